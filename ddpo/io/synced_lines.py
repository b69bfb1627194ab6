"""A file of JSON lines for people and programs, each synced to the disk as it is appended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ddpo.io.atomic import storing, write_text
from ddpo.io.fields import Fields
from ddpo.io.json_files import JsonLine, json_lines, warn_of_damage
from ddpo.io.sync import sync_descriptor, sync_folder

__all__ = ["SyncedLines"]


class SyncedLines:
    """Records in a file, one a line, by a single writer.

    Args:
        path: File of the lines; `append` makes it.
        fields: Names and kinds that each record must have; others are damaged.
        loss: What follows from a damaged line, for a warning.
    """

    def __init__(self, path: Path, fields: Fields, loss: str) -> None:
        self.path = path
        self._fields = fields
        self._loss = loss

    def append(self, record: Mapping[str, Any]) -> None:
        """Appends a record, which is on the disk afterwards.

        Raises:
            StorageFailure: It cannot be written.
        """
        line = _line(record)
        with storing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            sync_descriptor(file.fileno())
            if file.tell() == len(line):  # the file is new
                sync_folder(self.path.parent)

    def read(self) -> list[dict[str, Any]]:
        """The records without damaged lines; [] without a file.

        A warning names the damaged ones, but for a last line that a kill cut short.
        """
        kept: list[dict[str, Any]] = []
        damaged: list[JsonLine] = []
        for line in json_lines(self.path, self._fields):
            if line.record is not None:
                kept.append(line.record)
            elif not line.cut_short:
                damaged.append(line)
        warn_of_damage(self.path, damaged, self._loss)
        return kept

    def replace(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Replaces all lines of a file that exists by the given records, in one step.

        Raises:
            OSError: It cannot be written.
        """
        if self.path.exists():
            write_text(self.path, "".join(map(_line, records)))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
