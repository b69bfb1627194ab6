"""Copies of given images in the image store, so that later stages treat them like sampled ones."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ddpo.distributed import ALONE, World
from ddpo.errors import ImageError
from ddpo.eval.generate.image_store import ImageKey, ImageStore, Pixels
from ddpo.eval.inputs.image_folders import FolderImage, ImageFolder
from ddpo.inputs.input_image import same_state

__all__ = ["CopiedImage", "store_images"]

BLOCK: Final = 16  # files that are read and journaled together
STATE: Final = "file_state"  # result of `InputImage.state`


@dataclass(frozen=True, slots=True)
class CopiedImage:
    """The SHA-256 of a stored image; or "" and the reason why the file holds no image."""

    sha256: str
    error: str | None = None


def store_images(
    store: ImageStore, folder: ImageFolder, *, world: World = ALONE
) -> dict[tuple[str, int], CopiedImage]:
    """Copies the images of a folder into the store, unless an earlier evaluation did.

    Args:
        store: store of the evaluation's images.
        folder: images of one model.
        world: processes of the evaluation.

    Returns:
        (prompt id, index) → stored image.

    Raises:
        StorageFailure: an image cannot be written.
    """
    for block in world.shard(folder.files, BLOCK):
        read = [(file, _read(file)) for file in block if not _stored(store, file)]
        store.add(
            (_key(file), pixels, {STATE: _state(file)})
            for file, pixels in read
            if not isinstance(pixels, str)
        )
    if world.world_size > 1:
        world.barrier()
        store.reload()
    return {(file.prompt.id, file.index): _copied(store, file) for file in folder.files}


def _copied(store: ImageStore, file: FolderImage) -> CopiedImage:
    known = store.get(_key(file))
    if known is not None and same_state(known.facts.get(STATE), _state(file)):
        return CopiedImage(known.sha256)
    return CopiedImage("", str(_read(file)))


def _key(file: FolderImage) -> ImageKey:
    name = file.path if file.image.place is None else Path(file.image.file)
    digest = hashlib.sha256(os.fsencode(name.resolve())).hexdigest()[:16]
    return ImageKey(digest, file.prompt.id, file.index)


def _stored(store: ImageStore, file: FolderImage) -> bool:
    known = store.get(_key(file))
    if known is None or not same_state(known.facts.get(STATE), _state(file)):
        return False
    return not store.damaged([known.sha256])


def _state(file: FolderImage) -> list[int]:
    return file.image.state() or []


def _read(file: FolderImage) -> Pixels | str:
    """The pixels of an image, or why there are none."""
    try:
        return np.asarray(file.image.load())
    except ImageError as error:
        return str(error).replace(file.image.path, file.image.file)
