"""The journal of a scoring: rows are appended as they come, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ddpo.inputs.input_image import InputImage
from ddpo.io.json_files import parse_record
from ddpo.io.sync import IntervalSync, make_folder
from ddpo.rewards.image_files.run import ScoreRow

__all__ = ["Journal", "journal_path"]

SCHEMA = 1


def journal_path(table: Path) -> Path:
    """Where the journal of a table lies while the table is not finished."""
    return table.with_name(f".{table.name}.partial")


class Journal:
    """One JSON line per picture, with the state of its file and its rows; the first line says which scores they are.

    Use it as a context manager. `resume` reads what an earlier run left; `append` adds to it; `rows` reads all of it.

    Args:
        path: of the journal; made if it is not there.
        identities: one per reward. A journal with others is of another scoring, and is begun anew.
    """

    def __init__(self, path: Path, identities: Sequence[str]) -> None:
        self.path = path
        self._header = {"schema": SCHEMA, "identities": list(identities)}
        self._file: IO[bytes] | None = None
        self._sync = IntervalSync()
        self._states: deque[tuple[str, list[int] | None]] = deque()  # of images handed out

    def __enter__(self) -> Journal:
        make_folder(self.path.parent)
        self._file = self.path.open("r+b") if self.path.is_file() else self.path.open("w+b")
        if _read_line(self._file) != self._header:
            self._cut(0)
            self._write(self._header)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def resume(
        self, pictures: Iterable[InputImage]
    ) -> tuple[Iterator[tuple[ScoreRow, ...]], Iterator[InputImage]]:
        """What is done of `pictures`, and what is left. Exhaust the first before the second.

        A picture is done if its file has the size and time of modification that it had, its prompt is the same, and no reward failed on it.
        From the first picture on for which that does not hold, the journal is cut.
        """
        source = iter(pictures)
        left: list[InputImage] = []

        def done() -> Iterator[tuple[ScoreRow, ...]]:
            for picture in source:
                here = self._opened.tell()
                record = _read_line(self._opened)
                rows = _rows(record, picture)
                if rows is None:
                    self._cut(here)
                    left.append(picture)
                    return
                yield rows
            self._cut(self._opened.tell())

        return done(), self.watched(itertools.chain(left, source))

    def watched(self, pictures: Iterable[InputImage]) -> Iterator[InputImage]:
        """The same images; what they are now is remembered until their rows are appended."""
        for picture in pictures:
            self._states.append((picture.file, picture.state()))
            yield picture

    def append(self, picture_rows: tuple[ScoreRow, ...]) -> None:
        """Adds the rows of one picture; they survive a kill of the process from here on.

        They survive a power cut after `sync.SYNC_SECONDS`, or once they are in the table.
        """
        rows = [
            {name: value for name, value in asdict(row).items() if name not in ("file", "prompt")}
            for row in picture_rows
        ]
        first = picture_rows[0]
        state = self._state_of(first.file)
        self._write({"file": first.file, "prompt": first.prompt, "state": state, "rows": rows})

    def _state_of(self, file: str) -> list[int] | None:
        """The state of an image that was handed out; of another, that of the file now."""
        while self._states:
            name, state = self._states.popleft()
            if name == file:
                return state
        return InputImage(file).state()

    def rows(self) -> Iterator[ScoreRow]:
        """All rows, in order, from the file."""
        with self.path.open("rb") as file:
            _read_line(file)
            while (record := _read_line(file)) is not None:
                for row in record["rows"]:
                    yield ScoreRow(file=record["file"], prompt=record["prompt"], **row)

    def remove(self) -> None:
        """Deletes it, once the table is there."""
        self.path.unlink(missing_ok=True)

    @property
    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("the journal is not open: use it in a with statement")
        return self._file

    def _cut(self, position: int) -> None:
        self._opened.seek(position)
        self._opened.truncate()

    def _write(self, record: dict[str, Any]) -> None:
        self._opened.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._opened.flush()
        self._sync.written(self._opened.fileno())


def _read_line(file: IO[bytes]) -> Any:
    """The next record; None at the end, or where the line is cut short or damaged."""
    line = file.readline()
    try:
        return parse_record(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def _rows(record: Any, picture: InputImage) -> tuple[ScoreRow, ...] | None:
    """The rows of a record, if it is one of `picture` as its file is now and no reward failed."""
    prompt = picture.prompt.text if picture.prompt else None
    if record is None or (record["file"], record["prompt"], record["state"]) != (
        picture.file,
        prompt,
        picture.state(),
    ):
        return None
    if any(row["status"] == "failed" for row in record["rows"]):
        return None
    return tuple(ScoreRow(file=picture.file, prompt=prompt, **row) for row in record["rows"])
