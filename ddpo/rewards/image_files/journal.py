"""The journal of an unfinished table of scores, with which an interrupted scoring resumes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Self, get_args

from ddpo.errors import ConfigError
from ddpo.inputs.input_image import InputImage, same_state
from ddpo.io.closing import ClosedOnExit
from ddpo.io.fields import SHORT, Fields, ListOf, MapOf, Maybe, Text, fault_of
from ddpo.io.journal import Journal
from ddpo.io.json_files import say_once
from ddpo.rewards.image_files.run import ScoreRow, Status

__all__ = ["TableJournal", "journal_path"]

SCHEMA: Final = 1
ROW: Final[Fields] = {
    "reward": SHORT,
    "status": Text(test=get_args(Status).__contains__),
    "score": Maybe(float),
    "error": Maybe(str),
    "parts": MapOf(Maybe(float)),
}


def journal_path(table: Path) -> Path:
    """The journal's path beside a table that is not finished."""
    return table.with_name(f".{table.name}.partial")


class TableJournal(ClosedOnExit):
    """One JSON line per image, with the state of its file and its rows, after a header.

    Use it as a context manager. `resume` reads the lines of an earlier run, `append` adds to them,
    and `rows` reads them all.

    Args:
        path: Path of the journal, which is made if it does not exist.
        identities: Identity of each reward; a journal with others is started anew.
    """

    def __init__(self, path: Path, identities: Sequence[str]) -> None:
        self._journal = Journal(
            path.parent, path.name, None, loss="the images from there on are scored again"
        )
        self._record: Fields = {
            "file": SHORT,
            "prompt": Maybe(str),
            "state": Maybe(ListOf(int)),
            "rows": ListOf(ROW, len(identities), len(identities)),
        }
        self._header = {"schema": SCHEMA, "identities": list(identities)}
        self._states: deque[tuple[str, list[int] | None]] = deque()  # of images handed out

    def __enter__(self) -> Self:
        _, header = next(self._journal.own_records(), (0, None))
        if header != self._header:
            self._journal.cut(0)
            self._journal.append([self._header])
        return self

    def close(self) -> None:
        """Closes the file; a finished table needs `remove` besides."""
        self._journal.close()

    def resume(
        self, images: Iterable[InputImage]
    ) -> tuple[Iterator[tuple[ScoreRow, ...]], Iterator[InputImage]]:
        """The rows of the images that are done, and the other images; exhaust the rows first.

        An image is done if the size and the modification time of its file and its prompt are
        unchanged and no reward failed on it. From the first other image on, the journal is cut.
        """
        source = iter(images)
        left: list[InputImage] = []

        def done() -> Iterator[tuple[ScoreRow, ...]]:
            records = self._journal.own_records()
            end, _ = next(records)  # the header
            for image in source:
                following, record = next(records, (end, None))
                rows = self._rows_of(record, image)
                if rows is None:
                    left.append(image)
                    break
                end = following
                yield rows
            self._journal.cut(end)

        return done(), self.watched(itertools.chain(left, source))

    def watched(self, images: Iterable[InputImage]) -> Iterator[InputImage]:
        """The same images; their present states are remembered until their rows are appended."""
        for image in images:
            self._states.append((image.file, image.state()))
            yield image

    def append(self, image_rows: tuple[ScoreRow, ...]) -> None:
        """Adds the rows of one image; from then on they survive a kill of the process.

        They survive a power cut as the records of `ddpo.io.journal`, or once they are in the table.

        Raises:
            StorageFailure: The rows cannot be written; earlier ones stay intact.
        """
        rows = [
            {name: value for name, value in asdict(row).items() if name not in ("file", "prompt")}
            for row in image_rows
        ]
        first = image_rows[0]
        state = self._state_of(first.file)
        record = {"file": first.file, "prompt": first.prompt, "state": state, "rows": rows}
        self._journal.append([record])

    def rows(self) -> Iterator[ScoreRow]:
        """All rows in order, read from the file."""
        for _, record in itertools.islice(self._journal.own_records(), 1, None):
            if fault := fault_of(record, self._record):
                raise ConfigError(f"{self._journal.path} has changed under the scoring: {fault}")
            yield from _score_rows(record)

    def remove(self) -> None:
        """Deletes the journal, once the table is written."""
        self._journal.close()
        self._journal.path.unlink(missing_ok=True)

    def _rows_of(
        self, record: Mapping[str, Any] | None, image: InputImage
    ) -> tuple[ScoreRow, ...] | None:
        """The rows of a record if it belongs to the unchanged image and no reward failed."""
        if record is None:
            return None
        if fault := fault_of(record, self._record):
            say_once(
                f"{self._journal.path}: a line is damaged ({fault}); "
                "the images from there on are scored again"
            )
            return None
        prompt = image.prompt.text if image.prompt else None
        if (record["file"], record.get("prompt")) != (image.file, prompt):
            return None
        if not same_state(record.get("state"), image.state()):
            return None
        rows = _score_rows(record)
        return None if any(row.status == "failed" for row in rows) else rows

    def _state_of(self, file: str) -> list[int] | None:
        """The state of an image when it was handed out, or else the present state of its file."""
        while self._states:
            name, state = self._states.popleft()
            if name == file:
                return state
        return InputImage(file).state()


def _score_rows(record: Mapping[str, Any]) -> tuple[ScoreRow, ...]:
    """The rows of a record of the right kind."""
    return tuple(
        ScoreRow(
            file=record["file"],
            prompt=record.get("prompt"),
            **{name: row.get(name) for name in ROW},
        )
        for row in record["rows"]
    )
