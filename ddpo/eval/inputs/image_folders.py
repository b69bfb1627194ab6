"""Folders of images that another program made, with their prompts and indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from ddpo.errors import ConfigError, ImageError, PromptError
from ddpo.eval.inputs.folder_layouts import Placed, place_by_layout
from ddpo.eval.inputs.splits import Split
from ddpo.inputs.collection import image_source
from ddpo.inputs.image_files import left_out_sentence
from ddpo.inputs.input_image import InputImage, copied_to
from ddpo.types import Prompt

__all__ = [
    "FolderImage",
    "ImageFolder",
    "check_paired",
    "find_images",
    "leftover_split",
    "without_prompts",
]

LEFTOVER: Final = "prompts"


@dataclass(frozen=True, slots=True)
class FolderImage:
    """The `index`-th image of a prompt."""

    image: InputImage
    prompt: Prompt
    index: int

    @property
    def path(self) -> Path:
        """The file that holds the image."""
        return Path(self.image.path)


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The images of one model; notes are sentences for the report."""

    name: str
    folder: Path
    files: tuple[FolderImage, ...]
    notes: tuple[str, ...]
    copies: TemporaryDirectory[str] | None = field(default=None, compare=False)  # from an archive


def find_images(name: str, folder: Path, lists: Mapping[str, Sequence[Prompt]]) -> ImageFolder:
    """The images of a folder, table or archive with their prompts and indices.

    Prompts that lie with the images come first (`ddpo.inputs.folder_prompts`), then the layouts by
    prompt lists (`ddpo.eval.inputs.folder_layouts`).

    Args:
        name: name of the model.
        folder: place of the images.
        lists: name of a prompt list → its prompts, in order, with repetitions.

    Raises:
        ImageError: the folder does not exist or holds no images.
        ConfigError: no layout fits, or two images have the same prompt and index.
        PromptError: an image has no prompt, while others have one beside them.
    """
    if not folder.exists():
        raise ImageError(f"{folder}: no such folder")
    source = image_source([folder])
    copies = TemporaryDirectory(prefix="ddpo-")
    images = list(copied_to(Path(copies.name), source))
    copied = any(image.place is not None for image in images)
    if not copied:
        copies.cleanup()
    placed = _with_own_prompts(folder, images) or place_by_layout(str(folder), images, lists)
    if placed is None:
        raise ConfigError(
            f"{folder}: the prompts of its images are not known; expected metadata.jsonl with "
            "file_name and prompt, or a .txt beside each image, or a folder per prompt called by "
            "the prompt, or --prompts and files called NUMBER-OF-PROMPT_INDEX.png"
        )
    numbered = all(one.index is not None for one in placed)
    prompts = [prompt for several in lists.values() for prompt in several]
    files = _indexed(folder, placed, prompts, numbered)
    notes = _notes(name, folder, numbered, len(images) - len(placed), source.left_out)
    return ImageFolder(name, folder, files, notes, copies if copied else None)


def leftover_split(folders: Sequence[ImageFolder], splits: Sequence[Split]) -> Split | None:
    """The prompts of images that are in no prompt list, as a split; None if there are none."""
    listed = {prompt.id for split in splits for prompt in split.prompts}
    left = {
        file.prompt.id: file.prompt
        for folder in folders
        for file in folder.files
        if file.prompt.id not in listed
    }
    return Split(LEFTOVER, "external", tuple(left.values())) if left else None


def without_prompts(folder: ImageFolder, dropped: Collection[str]) -> ImageFolder:
    """The folder without the images of prompts whose ids are `dropped`."""
    kept = tuple(file for file in folder.files if file.prompt.id not in dropped)
    return replace(folder, files=kept)


def check_paired(base: ImageFolder, tuned: ImageFolder) -> str | None:
    """A note for the report about images without a partner; None if every image has one.

    Raises:
        ConfigError: no image has a partner.
    """
    ours = {(file.prompt.id, file.index) for file in base.files}
    theirs = {(file.prompt.id, file.index) for file in tuned.files}
    if not ours & theirs:
        raise ConfigError(
            f"no image of {tuned.folder} has the prompt and index of one of {base.folder}: "
            "there is nothing to compare"
        )
    alone = len(ours ^ theirs)
    if not alone:
        return None
    return (
        f"{alone} images of {base.name} and {tuned.name} have no partner in the other and were "
        "left out."
    )


def _notes(
    name: str, folder: Path, numbered: bool, bare: int, left_out: Mapping[str, int]
) -> tuple[str, ...]:
    """Sentences for the report about a folder.

    Args:
        name: name of the model.
        folder: place of the images.
        numbered: True if every image has an index.
        bare: number of images without a prompt.
        left_out: suffix → number of files that are not read.
    """
    notes = []
    if not numbered:
        notes.append(
            f"The images of {name} do not say which belong together: the images of a prompt were "
            "numbered in the order of their names, so that pairs may not share their noise."
        )
    if bare:
        notes.append(f"{bare} images in {folder} have no prompt and were left out.")
    if sentence := left_out_sentence(left_out):
        notes.append(f"{folder}: {sentence}.")
    return tuple(notes)


def _with_own_prompts(folder: Path, images: Sequence[InputImage]) -> list[Placed] | None:
    """The images whose prompts lie with them; None if none has one.

    Raises:
        PromptError: an image has none, while others have a caption or metadata in the image.
        ConfigError: an index is no whole number.
    """
    placed = [
        Placed(image, image.prompt.text, _whole_index(image))
        for image in images
        if image.prompt is not None
    ]
    bare = next((image for image in images if image.prompt is None), None)
    if bare is None or (not placed and bare.no_prompt is None):
        return placed or None
    if bare.no_prompt is not None:
        raise PromptError(f"{bare.file}: {bare.no_prompt}")
    tabled = any(one.image.origin in ("table", "folder") for one in placed)
    if not tabled:
        stem = Path(bare.file).stem
        raise PromptError(
            f"{bare.file} has no caption beside it ({stem}.txt), "
            f"while other images of {folder} have a prompt"
        )
    return placed


def _whole_index(image: InputImage) -> int | None:
    if image.index is None:
        return None
    try:
        number = int(image.index)
        if float(image.index) == number:
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(
        f"{image.file}: the index or seed must be a whole number, got {image.index!r}"
    )


def _indexed(
    folder: Path, placed: Sequence[Placed], prompts: Sequence[Prompt], numbered: bool
) -> tuple[FolderImage, ...]:
    """The images with their prompts, in the order of the prompt lists, then of the folder.

    A prompt of a list replaces one of the same text that lies with an image.
    """
    listed: dict[str, Prompt] = {}
    for prompt in prompts:
        listed.setdefault(prompt.id, prompt)
    counts: Counter[str] = Counter()
    found: dict[tuple[str, int], FolderImage] = {}
    for one in placed:
        own = one.image.prompt or Prompt(one.text.strip())
        prompt = listed.setdefault(own.id, own)
        index = one.index if numbered and one.index is not None else counts[prompt.id]
        counts[prompt.id] += 1
        other = found.setdefault((prompt.id, index), FolderImage(one.image, prompt, index))
        if other.image is not one.image:
            names = f"{Path(other.image.file).name} and {Path(one.image.file).name}"
            raise ConfigError(f"{folder}: {names} are both image {index} of {prompt.text[:80]!r}")
    order = {prompt_id: place for place, prompt_id in enumerate(listed)}
    return tuple(sorted(found.values(), key=lambda file: (order[file.prompt.id], file.index)))
