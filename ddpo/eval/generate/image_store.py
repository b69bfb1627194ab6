"""The store of an evaluation's images: each stored once by content, with a journal of facts.

    images/ab/<SHA-256 of the pixels>.png     the images
    images/journal-<rank>.jsonl               the key of each image, and facts about it

Other settings have other keys, so that a folder holds the images of any number of evaluations.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpo.devices import processors
from ddpo.errors import ImageError
from ddpo.images import load_image, pixels_sha256
from ddpo.io.atomic import remove_remains, storing, temporary_path
from ddpo.io.closing import ClosedOnExit
from ddpo.io.fields import COUNT, DIGEST, SHORT, Fields, Maybe, Text
from ddpo.io.journal import Journal
from ddpo.io.sync import sync_files

__all__ = [
    "IMAGES",
    "ImageKey",
    "ImageStore",
    "Pixels",
    "StoredImage",
    "image_path",
]

IMAGES: Final = "images"
NAME: Final = "journal"
SHA256: Final = re.compile(r"[0-9a-f]{64}")

Pixels = NDArray[np.uint8]


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


RECORD: Final[Fields] = {
    "source": SHORT,
    "prompt": SHORT,
    "index": COUNT,
    "swap": SHORT,
    "image": DIGEST,
    "facts": {
        "fit": Maybe(float),
        "prompt_evidence": Maybe(float),
        "kl": Maybe(float),
        "features": Maybe(Text(test=_is_base64)),
    },
}
"""A line of the journal; facts may have other names too."""


@dataclass(frozen=True, slots=True)
class ImageKey:
    """The key of an image: model and settings, prompt, and index."""

    source: str  # digest of all other settings that fix the pixels
    prompt_id: str  # the prompt whose noise it has
    index: int
    swap: str = ""  # id of the prompt that it was sampled with, if not its own


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A stored image and the facts about it."""

    sha256: str  # of the decoded pixels, uint8 `[height, width, 3]`
    facts: Mapping[str, Any]  # plain JSON values

    @property
    def path(self) -> str:
        """Its file, relative to the output folder."""
        return image_path(self.sha256)


def image_path(sha256: str) -> str:
    """The file of the image with these pixels, relative to the output folder."""
    return f"{IMAGES}/{sha256[:2]}/{sha256}.png"


class ImageStore(ClosedOnExit):
    """The stored images by key. Use it as a context manager, or `close` it.

    Args:
        out: output folder; made with the first image.
        rank: rank of this process, which writes its own journal and reads those of all.
    """

    def __init__(self, out: Path, rank: int = 0) -> None:
        self.out = out
        self._rank = rank
        self._journal = Journal(
            out / IMAGES, NAME, rank, RECORD, "images that only it names are made again"
        )
        self._known: dict[ImageKey, StoredImage] = {}
        self._whole: set[str] = set()  # hashes of images that this process wrote or decoded
        self._swept = False
        self.reload()

    def reload(self) -> None:
        """Reads the journals again, with the lines that other processes have added."""
        self._known.clear()
        for record in self._journal.records():
            self._know(_key(record), record["image"], record["facts"])

    def get(self, key: ImageKey) -> StoredImage | None:
        """The journals' record of an image, or None; `damaged` checks the file itself."""
        return self._known.get(key)

    def add(self, found: Iterable[tuple[ImageKey, Pixels, Mapping[str, Any]]]) -> None:
        """Stores images and facts about them; earlier facts about the same image are kept.

        Args:
            found: key, uint8 pixels `[height, width, 3]` and facts of each image. The journal gets
                all lines in one write.

        Raises:
            StorageFailure: a file cannot be written; images stored before are still whole.
        """
        records = []
        for key, pixels, facts in found:
            sha256 = pixels_sha256(pixels)
            self._write(sha256, pixels)
            image = self._know(key, sha256, facts)
            records.append(
                {
                    "source": key.source,
                    "prompt": key.prompt_id,
                    "index": key.index,
                    "swap": key.swap,
                    "image": sha256,
                    "facts": dict(image.facts),
                }
            )
        self._journal.append(records)

    def pixels(self, sha256: str) -> Pixels:
        """The uint8 pixels `[height, width, 3]` of a stored image.

        Raises:
            ImageError: the file is missing or damaged.
        """
        path = self.out / image_path(sha256)
        pixels = np.asarray(load_image(path))
        if pixels_sha256(pixels) != sha256:
            raise ImageError(
                f"{path} does not hold the pixels that its name states: the file is damaged"
            )
        self._whole.add(sha256)
        return pixels

    def damaged(self, hashes: Collection[str]) -> set[str]:
        """The images whose file is missing or does not decode to the pixels of its name.

        Each image is decoded once per process.
        """
        unseen = sorted(set(hashes) - self._whole)
        with ThreadPoolExecutor(processors(), thread_name_prefix="ddpo-verify") as pool:
            decoded = zip(unseen, pool.map(self._decodes, unseen), strict=True)
            return {sha256 for sha256, whole in decoded if not whole}

    def sync(self) -> None:
        """Forces all stored images to the disk; until then a power cut may damage them.

        They are synced together, before the report, so that sampling does not wait for the disk.

        Raises:
            StorageFailure: the disk failed.
        """
        with storing(self.out / IMAGES):
            sync_files(self.out / image_path(one.sha256) for one in self._known.values())

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()

    def _know(self, key: ImageKey, sha256: str, facts: Mapping[str, Any]) -> StoredImage:
        before = self._known.get(key)
        earlier = before.facts if before is not None and before.sha256 == sha256 else {}
        image = StoredImage(sha256, {**earlier, **facts})
        self._known[key] = image
        return image

    def _decodes(self, sha256: str) -> bool:
        try:
            self.pixels(sha256)
        except ImageError:
            return False
        return True

    def _write(self, sha256: str, pixels: Pixels) -> None:
        """Writes the PNG unless it is whole already, by one write and one rename."""
        if sha256 in self._whole or self._decodes(sha256):
            return
        path = self.out / image_path(sha256)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        temporary = temporary_path(self.out / IMAGES / str(self._rank))
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sweep()
            try:
                temporary.write_bytes(buffer.getvalue())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        self._whole.add(sha256)

    def _sweep(self) -> None:
        """Removes once the temporary files that killed processes may have left."""
        if not self._swept:
            remove_remains(self.out / IMAGES)
            for left in (self.out / IMAGES).glob(f".{self._rank}-*.tmp"):  # of older versions
                left.unlink(missing_ok=True)
            self._swept = True


def _key(record: Mapping[str, Any]) -> ImageKey:
    return ImageKey(record["source"], record["prompt"], record["index"], record["swap"])
