"""The folder of `ddpo sample`, which the same command completes after an interruption.

<prompt id>-<index>.png   the images
metadata.jsonl            one line per image, written after it
sheet.png                 the contact sheet, written last
.unfinished.json          what is sampled, until the folder is complete
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from PIL import Image

from ddpo.errors import ImageError, RunExistsError, StorageFailure
from ddpo.images import contact_sheet, load_image, save_png
from ddpo.io.atomic import remove_remains, storing, write_json
from ddpo.io.journal import Journal
from ddpo.io.json_files import read_json
from ddpo.io.lock import LOCK_FILE, owned
from ddpo.io.sync import sync_folder
from ddpo.policies.free_folder import MARK, check_free

__all__ = ["SampleFolder", "sample_folder"]

TABLE: Final = "metadata.jsonl"
SHEET: Final = "sheet.png"
MOST_IN_SHEET: Final = 512  # images of the contact sheet


@contextmanager
def sample_folder(
    out: Path, rows: Sequence[Mapping[str, Any]], identity: Mapping[str, Any]
) -> Iterator[SampleFolder]:
    """The folder, which no other process samples into within the block.

    Args:
        out: the folder; made if it is absent.
        rows: the lines of metadata.jsonl, one per image, each with its `file_name`.
        identity: plain JSON values that fix the pixels and are not in the rows.

    Raises:
        RunExistsError: the folder holds something else, or another process writes to it.
        StorageFailure: it cannot be written.
    """
    advice = "wait for it to end, or choose another --out"
    new = not out.exists()
    try:
        with owned(out / LOCK_FILE, out, "ddpo sample", advice):
            folder = SampleFolder(out, rows, identity)
            try:
                yield folder
            finally:
                folder.close()
    except StorageFailure as error:
        if not (out / TABLE).exists():
            raise
        hint = "the images so far are kept: repeat the command to resume"
        raise StorageFailure(f"{error}; {hint}") from error
    finally:
        if new and not (out / TABLE).exists():
            with suppress(OSError):
                out.rmdir()


class SampleFolder:
    """The images of one sampling. Made by `sample_folder`, whose arguments and errors it has."""

    def __init__(
        self, out: Path, rows: Sequence[Mapping[str, Any]], identity: Mapping[str, Any]
    ) -> None:
        self.out = out
        self._rows = rows
        self._shown: list[Image.Image] = []
        check_free(out)
        mark = {**identity, "rows": _digest(rows)}
        with storing(out):
            if (out / MARK).exists():
                _check_same(out, mark)
                remove_remains(out)
            else:
                write_json(out / MARK, mark)
        self._table = Journal(out, TABLE, rank=None, checksums=False)

    def keep_finished(self, batch: int) -> int:
        """Number of the first images that are complete, in whole batches; drops later lines.

        Whole batches are kept, since the bits of an image may depend on those sampled with it.

        Args:
            batch: number of images per batch.
        """
        ends = [0]
        for (end, record), row in zip(self._table.own_records(), self._rows, strict=False):
            if record != row:
                break
            image = self._image(str(row["file_name"]))
            if image is None:
                break
            ends.append(end)
            self._show(image)
        finished = len(ends) - 1
        if finished < len(self._rows):
            finished -= finished % batch
        del self._shown[finished:]
        with storing(self.out):
            self._table.cut(ends[finished])
        return finished

    def add(self, start: int, images: Sequence[Image.Image]) -> None:
        """Writes the images of a batch, each with its line after it.

        Args:
            start: 0-based index of the first image.
            images: the images.

        Raises:
            StorageFailure: a file cannot be written; earlier ones are whole.
        """
        rows = self._rows[start : start + len(images)]
        for row, image in zip(rows, images, strict=True):
            save_png(image, self.out / str(row["file_name"]))
            self._table.append([row])
            self._show(image)

    def finish(self, columns: int) -> Path:
        """Writes the contact sheet, after which the folder is complete.

        Args:
            columns: images per row of the sheet.

        Raises:
            StorageFailure: a file cannot be written.
        """
        sheet = self.out / SHEET
        self._table.close()
        with storing(sheet):
            save_png(contact_sheet(self._shown, columns=columns), sheet)
            (self.out / MARK).unlink()
            sync_folder(self.out)
        return sheet

    def close(self) -> None:
        """Closes the table; if nothing was written, the mark is withdrawn."""
        self._table.close()
        if {path.name for path in self.out.iterdir()} <= {MARK, LOCK_FILE}:
            (self.out / MARK).unlink(missing_ok=True)

    def _show(self, image: Image.Image) -> None:
        if len(self._shown) < MOST_IN_SHEET:
            self._shown.append(image)

    def _image(self, name: str) -> Image.Image | None:
        """An image that was written before; None if it is missing or damaged."""
        try:
            return load_image(self.out / name)
        except ImageError:
            return None


def _check_same(out: Path, mark: Mapping[str, Any]) -> None:
    """Compares the mark in a folder with that of the present command.

    Raises:
        RunExistsError: they differ, or the mark is damaged.
    """
    if read_json(out / MARK, error=RunExistsError) != json.loads(json.dumps(mark)):
        raise RunExistsError(
            f"{out} holds an unfinished sampling with other prompts, settings or weights: "
            "choose another --out"
        )


def _digest(rows: Sequence[Mapping[str, Any]]) -> str:
    return hashlib.sha256(json.dumps([dict(row) for row in rows]).encode()).hexdigest()
