"""Journals: JSON lines that are only ever added to, so that work that is killed at any moment is known up to its last whole line.

Each process of an evaluation writes a journal of its own and reads those of all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ddpo.io.atomic import storing
from ddpo.io.json_files import json_lines
from ddpo.io.sync import IntervalSync, make_folder, sync_descriptor, sync_folder

__all__ = ["Journal"]

NEWLINE: Final = b"\n"


class Journal:
    """The journals `<name>-<rank>.jsonl` of a folder: written by this process is one, read are all.

    Nothing is made or opened for writing before the first `append`, so that a finished evaluation can be read from a read-only folder.

    Args:
        folder: where the journals lie.
        name: what they are called.
        rank: of this process.
    """

    def __init__(self, folder: Path, name: str, rank: int = 0) -> None:
        self.path = folder / f"{name}-{rank}.jsonl"
        self._folder, self._pattern = folder, f"{name}-*.jsonl"
        self._file: int | None = None
        self._sync = IntervalSync()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def records(self) -> Iterator[dict[str, Any]]:
        """The objects of all journals, each journal in the order of its lines. Lines that are cut short or damaged are passed over."""
        for path in sorted(self._folder.glob(self._pattern)):
            for line in json_lines(path):
                if line.record is not None:
                    yield line.record

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Adds one line per record, all in one write; they survive a kill of the process from here on.

        They survive a power cut once the journal is closed, or after `sync.SYNC_SECONDS`.

        Raises:
            StorageFailure: they cannot be written. What was there before is whole still.
        """
        data = b"".join(
            json.dumps(record, ensure_ascii=False, sort_keys=True).encode() + NEWLINE
            for record in records
        )
        with storing(self.path):
            file = self._opened()
            end = os.lseek(file, 0, os.SEEK_END)
            try:
                while data:  # a disk that is about full takes a part and says so at the next write
                    data = data[os.write(file, data) :]
            except BaseException:
                os.ftruncate(file, end)
                raise
            self._sync.written(file)

    def close(self) -> None:
        """Syncs and closes the file; a further `append` opens it again.

        Raises:
            StorageFailure: the disk failed, so that records may be lost.
        """
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            with storing(self.path):
                sync_descriptor(file)
                sync_folder(self._folder)
        finally:
            os.close(file)

    def _opened(self) -> int:
        """The file, open for appending. A last line that a kill cut short is cut off."""
        if self._file is None:
            make_folder(self._folder)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            whole = _length_of_whole_lines(self.path)
            if whole < os.fstat(self._file).st_size:
                os.ftruncate(self._file, whole)
        return self._file


def _length_of_whole_lines(path: Path) -> int:
    """Bytes up to and with the last newline."""
    with path.open("rb") as file:
        length = kept = 0
        for line in file:
            length += len(line)
            if line.endswith(NEWLINE):
                kept = length
    return kept
