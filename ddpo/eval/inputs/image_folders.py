"""Pictures that ddpo did not draw: folders that another program filled, taken into the store so that all else is as ever."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from ddpo.distributed import ALONE, World
from ddpo.errors import ConfigError, ImageError, PromptError
from ddpo.eval.generate.image_store import ImageKey, ImageStore
from ddpo.eval.inputs.folder_layouts import Placed, place_by_layout
from ddpo.eval.inputs.splits import Split
from ddpo.inputs.collection import image_source
from ddpo.inputs.image_files import left_out_sentence
from ddpo.inputs.input_image import InputImage, copied_to
from ddpo.types import Prompt

__all__ = [
    "FolderImage",
    "ImageFolder",
    "Kept",
    "check_paired",
    "find_images",
    "leftover_split",
    "store_images",
    "without_prompts",
]

BLOCK: Final = 16  # files that are read and journaled together
LEFTOVER: Final = "prompts"
STATE: Final = "file_state"  # size in bytes and time of modification (or checksum) of what an image was copied from


@dataclass(frozen=True, slots=True)
class FolderImage:
    """The `index`-th image of a prompt."""

    picture: InputImage
    prompt: Prompt
    index: int

    @property
    def path(self) -> Path:
        """The file that holds the image."""
        return Path(self.picture.path)


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The images of one model; notes are sentences that the report has to say."""

    name: str
    folder: Path
    files: tuple[FolderImage, ...]
    notes: tuple[str, ...]
    copies: TemporaryDirectory[str] | None = field(
        default=None, compare=False
    )  # of archived images


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a file: the SHA-256 of its stored picture, or "" and the reason why it is none."""

    sha256: str
    error: str | None = None


def find_images(name: str, folder: Path, lists: Mapping[str, Sequence[Prompt]]) -> ImageFolder:
    """The images of a folder, table or archive with their prompts and indices.

    Prompts that lie with the images come first (`ddpo.inputs.folder_prompts`), then the layouts by
    prompt lists (`ddpo.eval.inputs.folder_layouts`).

    Args:
        name: what the model is called.
        folder: where the images are.
        lists: name of a prompt list → its prompts, in order, each as often as the list names it.

    Raises:
        ImageError: the folder does not exist or holds no images.
        ConfigError: no layout fits, or two images have the same prompt and index.
        PromptError: an image without a prompt, where others have one beside them.
    """
    if not folder.exists():
        raise ImageError(f"{folder}: no such folder")
    source = image_source([folder])
    copies = TemporaryDirectory(prefix="ddpo-")
    pictures = list(copied_to(Path(copies.name), source))
    copied = any(picture.place is not None for picture in pictures)
    if not copied:
        copies.cleanup()
    placed = _described(folder, pictures) or place_by_layout(str(folder), pictures, lists)
    if placed is None:
        raise ConfigError(
            f"{folder}: the prompts of its images are not known; expected metadata.jsonl with "
            "file_name and prompt, or a .txt beside each image, or a folder per prompt called by "
            "the prompt, or --prompts and files called NUMBER-OF-PROMPT_INDEX.png"
        )
    notes, known = [], all(one.index is not None for one in placed)
    if not known:
        notes.append(
            f"The images of {name} do not say which belong together: the images of a prompt were "
            "numbered in the order of their names, so that pairs may not share their noise."
        )
    if left := len(pictures) - len(placed):
        notes.append(f"{left} images in {folder} have no prompt and were left out.")
    if sentence := left_out_sentence(source.left_out):
        notes.append(f"{folder}: {sentence}.")
    prompts = [prompt for several in lists.values() for prompt in several]
    return ImageFolder(
        name,
        folder,
        _indexed(folder, placed, prompts, known),
        tuple(notes),
        copies if copied else None,
    )


def _described(folder: Path, pictures: Sequence[InputImage]) -> list[Placed] | None:
    """The images whose prompts lie with them; None if none has one.

    Raises:
        PromptError: an image has none, while others have a caption or metadata in the image.
        ConfigError: an index that is no whole number.
    """
    placed = [
        Placed(picture, picture.prompt.text, _whole_index(picture))
        for picture in pictures
        if picture.prompt is not None
    ]
    bare = next((picture for picture in pictures if picture.prompt is None), None)
    if bare is None or (not placed and bare.no_prompt is None):
        return placed or None
    if bare.no_prompt is not None:
        raise PromptError(f"{bare.file}: {bare.no_prompt}")
    tabled = any(one.picture.origin in ("table", "folder") for one in placed)
    if not tabled:
        stem = Path(bare.file).stem
        raise PromptError(
            f"{bare.file} has no caption beside it ({stem}.txt), while other images of {folder} have a prompt"
        )
    return placed


def _whole_index(picture: InputImage) -> int | None:
    if picture.index is None:
        return None
    try:
        number = int(picture.index)
        if float(picture.index) == number:
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(
        f"{picture.file}: the index or seed must be a whole number, got {picture.index!r}"
    )


def _indexed(
    folder: Path, placed: Sequence[Placed], prompts: Sequence[Prompt], known: bool
) -> tuple[FolderImage, ...]:
    """The files with the prompts of the lists where those have the same text, in the order of the lists, then of the folder."""
    listed: dict[str, Prompt] = {}
    for prompt in prompts:
        listed.setdefault(prompt.id, prompt)
    counts: Counter[str] = Counter()
    found: dict[tuple[str, int], FolderImage] = {}
    for one in placed:
        own = one.picture.prompt or Prompt(one.text.strip())
        prompt = listed.setdefault(own.id, own)
        index = one.index if known and one.index is not None else counts[prompt.id]
        counts[prompt.id] += 1
        other = found.setdefault((prompt.id, index), FolderImage(one.picture, prompt, index))
        if other.picture is not one.picture:
            names = f"{Path(other.picture.file).name} and {Path(one.picture.file).name}"
            raise ConfigError(f"{folder}: {names} are both image {index} of {prompt.text[:80]!r}")
    order = {prompt_id: place for place, prompt_id in enumerate(listed)}
    return tuple(sorted(found.values(), key=lambda file: (order[file.prompt.id], file.index)))


def store_images(
    store: ImageStore, folder: ImageFolder, *, together: World = ALONE
) -> dict[tuple[str, int], Kept]:
    """Copies pictures into the store, but for those that are there from before; (prompt id, index) → what became of it.

    Raises:
        StorageFailure: a picture cannot be written.
    """
    for block in together.shard(folder.files, BLOCK):
        new = [
            (file, pixels)
            for file in block
            if not _stored(store, file) and not isinstance(pixels := _read(file), str)
        ]
        store.add((_key(file), pixels, {STATE: _state(file)}) for file, pixels in new)
    if together.world_size > 1:
        together.barrier()
        store.reload()
    kept = {}
    for file in folder.files:
        known = store.get(_key(file))
        sound = known is not None and known.facts.get(STATE) == _state(file)
        kept[file.prompt.id, file.index] = (
            Kept(known.sha256) if known is not None and sound else Kept("", str(_read(file)))
        )
    return kept


def leftover_split(folders: Sequence[ImageFolder], splits: Sequence[Split]) -> Split | None:
    """The prompts of pictures that are in no prompt list, as a split of their own; None if there are none."""
    listed = {prompt.id for split in splits for prompt in split.prompts}
    left = {
        file.prompt.id: file.prompt
        for folder in folders
        for file in folder.files
        if file.prompt.id not in listed
    }
    return Split(LEFTOVER, "external", tuple(left.values())) if left else None


def without_prompts(folder: ImageFolder, dropped: Collection[str]) -> ImageFolder:
    """The same images but for those of the prompts whose ids are `dropped`."""
    return replace(
        folder, files=tuple(file for file in folder.files if file.prompt.id not in dropped)
    )


def check_paired(base: ImageFolder, tuned: ImageFolder) -> str | None:
    """What a reader has to know of pictures without a partner; None if each has one.

    Raises:
        ConfigError: no picture has one.
    """
    ours, theirs = (
        {(file.prompt.id, file.index) for file in folder.files} for folder in (base, tuned)
    )
    if not ours & theirs:
        raise ConfigError(
            f"no picture of {tuned.folder} has the prompt and index of one of {base.folder}: there is nothing to compare"
        )
    alone = len(ours ^ theirs)
    return (
        f"{alone} pictures of {base.name} and {tuned.name} have no partner in the other and were left out."
        if alone
        else None
    )


def _key(file: FolderImage) -> ImageKey:
    name = file.path if file.picture.place is None else Path(file.picture.file)
    digest = hashlib.sha256(os.fsencode(name.resolve())).hexdigest()[:16]
    return ImageKey(digest, file.prompt.id, file.index)


def _stored(store: ImageStore, file: FolderImage) -> bool:
    known = store.get(_key(file))
    return (
        known is not None
        and known.facts.get(STATE) == _state(file)
        and not store.damaged([known.sha256])
    )


def _state(file: FolderImage) -> list[int]:
    return file.picture.state() or []


def _read(file: FolderImage) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | str:
    """The pixels of an image, or why there are none."""
    try:
        return np.asarray(file.picture.load())
    except ImageError as error:
        return str(error).replace(file.picture.path, file.picture.file)
