"""The folder of `ddpo sample`: images, metadata.jsonl with a row for each, and a contact sheet.

An image is on the disk before its row is. Until the sheet is written, a hidden file holds the
request, so that the same command resumes and another one is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from PIL import Image

from ddpo.errors import ConfigError, ImageError, RunExistsError, StorageFailure
from ddpo.images import contact_sheet, load_image, save_png
from ddpo.io.atomic import storing, write_json
from ddpo.io.journal import Journal
from ddpo.io.json_files import read_json
from ddpo.io.lock import LOCK_FILE, owned

__all__ = ["SampleFolder", "check_sample_folder", "opened_sample_folder"]

REQUEST: Final = ".sampling.json"
TABLE: Final = "metadata.jsonl"
SHEET: Final = "sheet.png"
MOST_IN_SHEET: Final = 512  # images


def check_sample_folder(folder: Path) -> None:
    """Makes sure, before time is spent, that a folder is new, empty or an unfinished sampling.

    Raises:
        RunExistsError: It is a file, or holds something else.
        ConfigError: It cannot be listed.
    """
    if not folder.is_symlink() and not folder.exists():
        return
    if not folder.is_dir():
        raise RunExistsError(f"{folder} is not a folder: choose another --out")
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise ConfigError(f"{folder} cannot be listed: {error.strerror}") from error
    unfinished = {REQUEST, LOCK_FILE} & names
    others = {name for name in names if not name.startswith(REQUEST[:-1])}
    if others and not unfinished:
        raise RunExistsError(f"{folder} is not an empty folder: choose another --out")


@contextmanager
def opened_sample_folder(folder: Path, request: Mapping[str, Any]) -> Iterator[SampleFolder]:
    """The folder of one sampling, new or resumed, which this process owns in the block.

    Args:
        folder: Path of the folder; made if it does not exist.
        request: All that determines the images, as plain JSON values.

    Raises:
        RunExistsError: Another process owns the folder, or it holds another sampling.
        StorageFailure: A file cannot be written; the message names the way to resume.
    """
    advice = "wait for it to end, or choose another --out"
    new = not folder.exists()
    try:
        with owned(folder / LOCK_FILE, folder, "ddpo sample", advice):
            _claim(folder, json.loads(json.dumps(dict(request))))
            found = SampleFolder(folder)
            try:
                yield found
            finally:
                found.close()
    except StorageFailure as error:
        if not (folder / TABLE).exists():
            raise
        hint = "the images so far are kept: repeat the command to resume"
        raise StorageFailure(f"{error}; {hint}") from error
    finally:
        if new and not (folder / TABLE).exists():
            with suppress(OSError):
                folder.rmdir()


def _claim(folder: Path, request: Mapping[str, Any]) -> None:
    """Writes the request into a new folder, or compares it with that of an unfinished sampling."""
    place = folder / REQUEST
    names = {path.name for path in folder.iterdir()} - {LOCK_FILE}
    if REQUEST in names:
        try:
            known = read_json(place)
        except (OSError, ValueError, ConfigError):
            known = None
        if known != request:
            raise RunExistsError(
                f"{folder} holds an unfinished sampling with other prompts or settings: "
                "repeat its command, or choose another --out"
            )
        return
    if any(not name.startswith(REQUEST[:-1]) for name in names):
        raise RunExistsError(f"{folder} is not an empty folder: choose another --out")
    write_json(place, request)


class SampleFolder:
    """An open folder of images.

    Args:
        folder: Path of the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._table = Journal(folder, TABLE, rank=None)
        for left in folder.glob(".*.tmp"):  # of a killed process
            with suppress(OSError):
                left.unlink()

    def resume(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """The number of first rows whose images are done; other rows are cut off.

        Args:
            rows: The rows of all images, in order.
        """
        done = end = 0
        for (position, record), row in zip(self._table.own_records(), rows, strict=False):
            if record != row or not self._is_whole(row):
                break
            done += 1
            end = position
        self._table.cut(end)
        return done

    def add(self, row: Mapping[str, Any], image: Image.Image) -> None:
        """Writes the image of a row, then the row.

        Raises:
            StorageFailure: One of them cannot be written; earlier ones stay intact.
        """
        path = self._folder / row["file_name"]
        save_png(image, path)
        self._table.append([row])

    def finish(self, rows: Sequence[Mapping[str, Any]], columns: int) -> Path:
        """Writes the contact sheet of the first images, and returns its path.

        Args:
            rows: The rows of all images, in order.
            columns: Number of images in a row of the sheet.

        Raises:
            StorageFailure: The sheet cannot be written.
        """
        self._table.close()
        sheet = self._folder / SHEET
        images = [load_image(self._folder / row["file_name"]) for row in rows[:MOST_IN_SHEET]]
        with storing(sheet):
            save_png(contact_sheet(images, columns=columns), sheet)
            (self._folder / REQUEST).unlink()
        return sheet

    def close(self) -> None:
        """Syncs and closes the table; without an image, the request is withdrawn."""
        self._table.close()
        if not self._table.path.exists():
            (self._folder / REQUEST).unlink(missing_ok=True)

    def _is_whole(self, row: Mapping[str, Any]) -> bool:
        try:
            load_image(self._folder / row["file_name"])
        except ImageError:
            return False
        return True
