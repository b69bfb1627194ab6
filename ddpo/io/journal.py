"""Append-only JSON lines, which keep the record of finished work when a process is killed.

Each process of an evaluation writes its own journal and reads those of all processes.
"""

from __future__ import annotations

import glob
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ddpo.io.atomic import storing
from ddpo.io.closing import ClosedOnExit
from ddpo.io.fields import Fields
from ddpo.io.json_files import JsonLine, json_lines, warn_of_damage
from ddpo.io.sync import IntervalSync, make_folder, sync_descriptor, sync_folder

__all__ = ["Journal"]

NEWLINE: Final = b"\n"
CHECKSUM: Final = "crc32"
"""Key of a line's checksum."""


class Journal(ClosedOnExit):
    """The journals `<name>-<rank>.jsonl` of a folder: this process writes its own and reads all.

    No file is created or opened for writing before the first `append`, so that a finished
    evaluation can be read from a read-only folder.

    Args:
        folder: Folder of the journals.
        name: Common name of the journals.
        rank: Rank of this process; None for a single journal, whose file is called `name`.
        fields: Names and kinds that each record must have; others are damaged.
        loss: What follows from a damaged line, for a warning.
        checksums: False for a file that other programs read too, whose lines then have none.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        rank: int | None = 0,
        fields: Fields | None = None,
        loss: str = "its work is done again",
        checksums: bool = True,
    ) -> None:
        self._line = _checked_line if checksums else _plain_line
        self._fields = fields
        self._loss = loss
        if rank is None:
            self.path = folder / name
            self._pattern = glob.escape(name)
        else:
            self.path = folder / f"{name}-{rank}.jsonl"
            self._pattern = f"{glob.escape(name)}-*.jsonl"
        self._folder = folder
        self._file: int | None = None
        self._sync = IntervalSync()

    def records(self) -> Iterator[dict[str, Any]]:
        """The objects of all journals, in line order, without damaged lines.

        A warning names them, but for a last line that a kill cut short.
        """
        for path in sorted(self._folder.glob(self._pattern)):
            damaged: list[JsonLine] = []
            for line in map(_whole, json_lines(path, self._fields)):
                if line.record is not None:
                    yield line.record
                elif not line.cut_short:
                    damaged.append(line)
            warn_of_damage(path, damaged, self._loss)

    def own_records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The objects of this process's journal, each with the position of its line's end.

        They end at the first damaged line, which a warning names unless a kill cut it short.
        """
        for line in map(_whole, json_lines(self.path, self._fields)):
            if line.record is None:
                warn_of_damage(self.path, [] if line.cut_short else [line], self._loss)
                return
            yield line.end, line.record

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Adds one line per record; from then on they survive a kill of the process.

        They survive a power cut after `close`, or `sync.SYNC_SECONDS` later at the next `append`.

        Raises:
            StorageFailure: The records cannot be written; earlier ones stay intact.
        """
        data = b"".join(map(self._line, records))
        with storing(self.path):
            file = self._opened()
            end = os.lseek(file, 0, os.SEEK_END)
            try:
                while data:  # a nearly full disk takes a part and fails at the next write
                    data = data[os.write(file, data) :]
            except BaseException:
                os.ftruncate(file, end)
                raise
            self._sync.written(file)

    def cut(self, position: int) -> None:
        """Removes all lines of this process's journal from a position on.

        Raises:
            StorageFailure: The file cannot be written.
        """
        with storing(self.path):
            if self.path.is_file():
                os.truncate(self.path, position)

    def close(self) -> None:
        """Syncs and closes the file; another `append` reopens it.

        Raises:
            StorageFailure: The disk failed, so that records may be lost.
        """
        if self._file is None:
            return
        file = self._file
        self._file = None
        try:
            with storing(self.path):
                sync_descriptor(file)
                sync_folder(self._folder)
        finally:
            os.close(file)

    def _opened(self) -> int:
        """The descriptor of the file, open for appending, with a truncated last line removed."""
        if self._file is None:
            make_folder(self._folder)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            whole = _length_of_whole_lines(self.path)
            if whole < os.fstat(self._file).st_size:
                os.ftruncate(self._file, whole)
        return self._file


def _checked_line(record: Mapping[str, Any]) -> bytes:
    """The line of a record with its checksum."""
    return _plain_line({**record, CHECKSUM: _checksum(record)})


def _plain_line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + NEWLINE


def _whole(line: JsonLine) -> JsonLine:
    """The line without its checksum, damaged if that is of another record.

    Lines of older versions have none.
    """
    if line.record is None:
        return line
    written = line.record.pop(CHECKSUM, None)
    if written is None or written == _checksum(line.record):
        return line
    return replace(line, record=None, fault="its content has changed since it was written")


def _checksum(record: Mapping[str, Any]) -> str:
    """CRC-32 of a record's JSON in eight hexadecimal digits."""
    return f"{zlib.crc32(json.dumps(record, ensure_ascii=False).encode()):08x}"


def _length_of_whole_lines(path: Path) -> int:
    """Number of bytes up to and including the last newline."""
    with path.open("rb") as file:
        length = kept = 0
        for line in file:
            length += len(line)
            if line.endswith(NEWLINE):
                kept = length
    return kept
