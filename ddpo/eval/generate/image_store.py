"""The pictures of an evaluation, each stored once by its content, and a journal of which picture shows what.

    images/ab/<SHA-256 of the pixels>.png     the pictures
    images/journal-<rank>.jsonl               which model, prompt and index each belongs to, and facts about it

Other settings have other keys, so that a folder holds the pictures of any number of evaluations.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpo.errors import ImageError
from ddpo.images import load_image
from ddpo.io.atomic import storing
from ddpo.io.journal import Journal
from ddpo.io.sync import make_folder, sync_files
from ddpo.rewards.scoring.scorer import processors

__all__ = ["ImageKey", "ImageStore", "Pixels", "StoredImage", "image_path", "pixels_sha256"]

FOLDER: Final = "images"
NAME: Final = "journal"

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ImageKey:
    """Which picture."""

    source: str  # digest of all that fixes the pixels but for what follows
    prompt_id: str  # whose noise it has
    index: int
    swap: str = ""  # id of the prompt whose text it was drawn with, if not its own


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A stored picture."""

    sha256: str  # of the decoded pixels, uint8 `[height, width, 3]`
    facts: Mapping[str, Any]  # plain JSON values

    @property
    def path(self) -> str:
        """Its file, relative to the output folder."""
        return image_path(self.sha256)


def image_path(sha256: str) -> str:
    """Where the picture with these pixels lies, relative to the output folder."""
    return f"{FOLDER}/{sha256[:2]}/{sha256}.png"


def pixels_sha256(pixels: Pixels) -> str:
    """SHA-256 of uint8 pixels `[height, width, 3]`."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


class ImageStore:
    """Pictures by key. Use it as a context manager, or `close` it.

    Args:
        out: the output folder; made with the first picture.
        rank: of this process, which writes a journal of its own and reads those of all.
    """

    def __init__(self, out: Path, rank: int = 0) -> None:
        self.out, self._rank = out, rank
        self._journal = Journal(out / FOLDER, NAME, rank)
        self._known: dict[ImageKey, StoredImage] = {}
        self._whole: set[str] = set()  # hashes of pictures that this process wrote or decoded
        self._swept = False
        self.reload()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def reload(self) -> None:
        """Reads the journals anew: what other processes have written since is known then."""
        self._known.clear()
        for record in self._journal.records():
            try:
                key = ImageKey(
                    str(record["source"]),
                    str(record["prompt"]),
                    int(record["index"]),
                    str(record["swap"]),
                )
                self._know(key, str(record["image"]), dict(record["facts"]))
            except (KeyError, TypeError, ValueError):
                continue  # not a line of ours: as if it were not there

    def get(self, key: ImageKey) -> StoredImage | None:
        """What the journals say of a picture; whether its file is whole says `damaged`."""
        return self._known.get(key)

    def add(self, found: Iterable[tuple[ImageKey, Pixels, Mapping[str, Any]]]) -> None:
        """Stores pictures with facts about them; facts that were known before of the same picture stay known.

        Args:
            found: key, uint8 pixels `[height, width, 3]` and facts of each. The journal gets the lines of all in one write.

        Raises:
            StorageFailure: a file cannot be written; pictures that were there before are whole still.
        """
        records = []
        for key, pixels, facts in found:
            sha256 = pixels_sha256(pixels)
            self._write(sha256, pixels)
            picture = self._know(key, sha256, facts)
            records.append(
                {
                    "source": key.source,
                    "prompt": key.prompt_id,
                    "index": key.index,
                    "swap": key.swap,
                    "image": sha256,
                    "facts": dict(picture.facts),
                }
            )
        self._journal.append(records)

    def pixels(self, sha256: str) -> Pixels:
        """The pixels uint8 `[height, width, 3]` of a stored picture.

        Raises:
            ImageError: the file is missing or damaged.
        """
        path = self.out / image_path(sha256)
        pixels = np.asarray(load_image(path))
        if pixels_sha256(pixels) != sha256:
            raise ImageError(
                f"{path} does not hold the pixels that its name says: the file is damaged"
            )
        self._whole.add(sha256)
        return pixels

    def damaged(self, hashes: Collection[str]) -> set[str]:
        """Those of the pictures whose file is missing or does not decode to its own pixels. Each is decoded once in a process."""
        unseen = sorted(set(hashes) - self._whole)
        with ThreadPoolExecutor(processors(), thread_name_prefix="ddpo-verify") as pool:
            return {
                sha256
                for sha256, whole in zip(unseen, pool.map(self._decodes, unseen), strict=True)
                if not whole
            }

    def sync(self) -> None:
        """Forces all stored images to the disk; before that, a power cut may damage them.

        They are synced together, before the report, so that sampling does not wait for the disk.

        Raises:
            StorageFailure: the disk failed.
        """
        with storing(self.out / FOLDER):
            sync_files(self.out / image_path(one.sha256) for one in self._known.values())

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()

    def _know(self, key: ImageKey, sha256: str, facts: Mapping[str, Any]) -> StoredImage:
        before = self._known.get(key)
        picture = StoredImage(
            sha256,
            {**before.facts, **facts}
            if before is not None and before.sha256 == sha256
            else dict(facts),
        )
        self._known[key] = picture
        return picture

    def _decodes(self, sha256: str) -> bool:
        try:
            self.pixels(sha256)
        except ImageError:
            return False
        return True

    def _write(self, sha256: str, pixels: Pixels) -> None:
        """The PNG, unless it is there and whole. It is made in memory, so that one write and one rename make the file."""
        if sha256 in self._whole or self._decodes(sha256):
            return
        path, buffer = self.out / image_path(sha256), io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        temporary = self.out / FOLDER / f".{self._rank}-{os.getpid()}.tmp"
        with storing(path):
            make_folder(path.parent)
            self._sweep()
            try:
                temporary.write_bytes(buffer.getvalue())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        self._whole.add(sha256)

    def _sweep(self) -> None:
        """Removes, once, the temporary file that a killed process of this rank may have left."""
        if not self._swept:
            for left in (self.out / FOLDER).glob(f".{self._rank}-*.tmp"):
                left.unlink(missing_ok=True)
            self._swept = True
