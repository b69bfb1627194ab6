"""Pictures that ddpo did not draw: folders that another program filled, taken into the store so that all else is as ever."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ddpo.errors import ConfigError, ImageError
from ddpo.eval.folder_layouts import Placed, place_by_captions, place_by_numbers, place_by_subfolders, place_by_table
from ddpo.eval.sharing import ALONE, Together
from ddpo.eval.splits import Split
from ddpo.eval.store import PictureKey, PictureStore
from ddpo.images import load_image
from ddpo.inputs.image_files import find_images
from ddpo.types import Prompt

__all__ = ["Kept", "PictureFile", "PictureFolder", "check_paired", "find_pictures", "keep_pictures", "leftover_split"]

BLOCK: Final = 16  # files that are read and journaled together
LEFTOVER: Final = "prompts"
STATE: Final = "file_state"  # size in bytes and time of modification of the file that a picture was copied from


@dataclass(frozen=True, slots=True)
class PictureFile:
    """The `index`-th picture of a prompt."""

    path: Path
    prompt: Prompt
    index: int


@dataclass(frozen=True, slots=True)
class PictureFolder:
    """The pictures of one model; notes are sentences that the report has to say."""

    name: str
    folder: Path
    files: tuple[PictureFile, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a file: the SHA-256 of its stored picture, or "" and the reason why it is none."""

    sha256: str
    error: str | None = None


def find_pictures(name: str, folder: Path, prompts: Sequence[Prompt]) -> PictureFolder:
    """The pictures of a folder with their prompts and indices, by the first layout that fits (see `ddpo.eval.folder_layouts`).

    Args:
        name: what the model is called.
        folder: where the pictures are.
        prompts: those of all prompt lists, in order, by which folders and files may be called.

    Raises:
        ImageError: the folder does not exist or holds no pictures.
        ConfigError: no layout fits, or two pictures have the same prompt and index.
        PromptError: a picture without a prompt.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder")
    files = find_images([folder])
    placed = (
        place_by_table(folder, files)
        or place_by_captions(folder, files)
        or place_by_subfolders(folder, files, prompts)
        or place_by_numbers(folder, files, prompts)
    )
    if placed is None:
        raise ConfigError(
            f"{folder}: the prompts of its pictures are not known; expected metadata.jsonl with file_name and prompt, or a .txt beside "
            "each picture, or a folder per prompt called by the prompt, or files called NUMBER-OF-PROMPT_INDEX.png"
        )
    notes, known = [], all(one.index is not None for one in placed)
    if not known:
        notes.append(
            f"The pictures of {name} do not say which belong together: the pictures of a prompt were numbered in the order of their names, "
            "so that pairs may not share their noise."
        )
    if left := len(set(files) - {one.path for one in placed}):
        notes.append(f"{left} pictures in {folder} have no prompt and were left out.")
    return PictureFolder(name, folder, _indexed(folder, placed, prompts, known), tuple(notes))


def _indexed(folder: Path, placed: Sequence[Placed], prompts: Sequence[Prompt], known: bool) -> tuple[PictureFile, ...]:
    """The files with the prompts of the lists where those have the same text, in the order of the lists, then of the folder."""
    listed = {prompt.id: prompt for prompt in prompts}
    counts: Counter[str] = Counter()
    found: dict[tuple[str, int], PictureFile] = {}
    for one in placed if known else sorted(placed, key=lambda one: one.path):
        prompt = Prompt(one.text.strip())
        prompt = listed.setdefault(prompt.id, prompt)
        index = one.index if known and one.index is not None else counts[prompt.id]
        counts[prompt.id] += 1
        other = found.setdefault((prompt.id, index), PictureFile(one.path, prompt, index))
        if other.path != one.path:
            raise ConfigError(f"{folder}: {other.path.name} and {one.path.name} are both picture {index} of {prompt.text[:80]!r}")
    order = {prompt_id: place for place, prompt_id in enumerate(listed)}
    return tuple(sorted(found.values(), key=lambda file: (order[file.prompt.id], file.index)))


def keep_pictures(store: PictureStore, folder: PictureFolder, *, together: Together = ALONE) -> dict[tuple[str, int], Kept]:
    """Copies pictures into the store, but for those that are there from before; (prompt id, index) → what became of it.

    Raises:
        StorageFailure: a picture cannot be written.
    """
    for block in together.share(folder.files, BLOCK):
        new = [(file, pixels) for file in block if not _stored(store, file) and not isinstance(pixels := _read(file), str)]
        store.add((_key(file), pixels, {STATE: _state(file.path)}) for file, pixels in new)
    if together.count > 1:
        together.wait()
        store.reload()
    kept = {}
    for file in folder.files:
        known = store.get(_key(file))
        sound = known is not None and known.facts.get(STATE) == _state(file.path)
        kept[file.prompt.id, file.index] = Kept(known.sha256) if known is not None and sound else Kept("", str(_read(file)))
    return kept


def leftover_split(folders: Sequence[PictureFolder], splits: Sequence[Split]) -> Split | None:
    """The prompts of pictures that are in no prompt list, as a split of their own; None if there are none."""
    listed = {prompt.id for split in splits for prompt in split.prompts}
    left = {file.prompt.id: file.prompt for folder in folders for file in folder.files if file.prompt.id not in listed}
    return Split(LEFTOVER, "external", tuple(left.values())) if left else None


def check_paired(base: PictureFolder, tuned: PictureFolder) -> str | None:
    """What a reader has to know of pictures without a partner; None if each has one.

    Raises:
        ConfigError: no picture has one.
    """
    ours, theirs = ({(file.prompt.id, file.index) for file in folder.files} for folder in (base, tuned))
    if not ours & theirs:
        raise ConfigError(f"no picture of {tuned.folder} has the prompt and index of one of {base.folder}: there is nothing to compare")
    alone = len(ours ^ theirs)
    return f"{alone} pictures of {base.name} and {tuned.name} have no partner in the other and were left out." if alone else None


def _key(file: PictureFile) -> PictureKey:
    digest = hashlib.sha256(str(file.path.resolve()).encode()).hexdigest()[:16]
    return PictureKey(digest, file.prompt.id, file.index)


def _state(path: Path) -> list[int]:
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _stored(store: PictureStore, file: PictureFile) -> bool:
    known = store.get(_key(file))
    return known is not None and known.facts.get(STATE) == _state(file.path) and not store.damaged([known.sha256])


def _read(file: PictureFile) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | str:
    """The pixels of a file, or why there are none."""
    try:
        return np.asarray(load_image(file.path))
    except ImageError as error:
        return str(error)
