"""The answers of all raters: a journal that survives a kill, and the preference file made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from ddpo.errors import ConfigError
from ddpo.io.closing import ClosedOnExit
from ddpo.io.fields import SHORT, Fields, Maybe, Real, Text
from ddpo.io.journal import Journal
from ddpo.io.tables import Record, check_table_path, write_records
from ddpo.labelling.pair import PAIR, LabelPair

__all__ = ["COLUMNS", "Answer", "Answers", "Choice", "journal_of"]

Choice = Literal["a", "b", "tie", "bad"]
"""The preferred image; "tie" for equally good ones, "bad" for equally bad ones."""

KEY: Final = Text(16)
ANSWER: Final[Fields] = {
    "rater": SHORT,
    "pair": KEY,
    "choice": Text(test=get_args(Choice).__contains__),
    "left": Text(test=("a", "b").__contains__),
    "seconds": Real(0),
    "time": SHORT,
}
RECORD: Final[Fields] = {"pair": Maybe(PAIR), "answer": Maybe(ANSWER)}
"""A line of the journal: a pair that is to be shown, or an answer."""
COLUMNS: Final = (
    *("image_a", "image_b", "label", "prompt", "rater", "seconds", "time"),
    *("model_a", "model_b", "both_bad", "left", "split", "index"),
    *("identity_a", "identity_b", "sha256_a", "sha256_b"),
)
"""The columns of the preference file."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The choice of one rater for one pair."""

    rater: str
    pair: str  # key of the pair
    choice: Choice
    left: str  # "a" or "b": the image that was on the left
    seconds: float  # from the images' appearance to the choice
    time: str  # UTC, ISO 8601


def journal_of(out: Path) -> Path:
    """The journal beside a preference file."""
    return out.with_name(f"{out.name}.answers.jsonl")


class Answers(ClosedOnExit):
    """The pairs and answers of a preference file. Use it as a context manager, or `close` it.

    The caller owns the file. A later answer to the same pair replaces the rater's earlier one.

    Args:
        out: preference file, .parquet, .csv or .jsonl.

    Raises:
        ConfigError: the file has another suffix, cannot be written, or exists without its journal.
    """

    def __init__(self, out: Path) -> None:
        check_table_path(out)
        self.out = out
        path = journal_of(out)
        if out.exists() and not path.exists():
            raise ConfigError(
                f"{out} has no {path.name} beside it, so that its answers would be lost: "
                "choose another --out"
            )
        self._journal = Journal(path.parent, path.name, None, RECORD, "its answer is asked again")
        self.pairs: dict[str, LabelPair] = {}
        self._answers: dict[tuple[str, str], Answer] = {}
        for record in self._journal.records():
            if (pair := record.get("pair")) is not None:
                self._know(LabelPair.from_dict(pair))
            if (found := record.get("answer")) is not None:
                answer = Answer(**{name: found[name] for name in ANSWER})
                self._answers[answer.rater, answer.pair] = answer

    @property
    def folder(self) -> Path:
        """The folder that image paths are relative to."""
        return self.out.parent

    def place_pairs(self, pairs: Iterable[LabelPair]) -> None:
        """Records pairs that are to be shown, so that a resumed labelling shows them again.

        Raises:
            StorageFailure: they cannot be written.
        """
        new = [pair for pair in pairs if pair.key not in self.pairs]
        for pair in new:
            self._know(pair)
        if new:
            self._append([{"pair": pair.to_dict()} for pair in new])

    def add(self, answer: Answer) -> None:
        """Records an answer; when it returns, a power cut cannot take it.

        Raises:
            StorageFailure: it cannot be written.
        """
        self._append([{"answer": asdict(answer)}])
        self._answers[answer.rater, answer.pair] = answer

    def of_rater(self, rater: str) -> dict[str, Answer]:
        """The answers of a rater by the pair's key, in the order of first answers."""
        return {pair: one for (name, pair), one in self._answers.items() if name == rater}

    def raters(self) -> dict[str, int]:
        """The number of answers of each rater, in the order of first answers."""
        counts: dict[str, int] = {}
        for rater, _ in self._answers:
            counts[rater] = counts.get(rater, 0) + 1
        return counts

    def __len__(self) -> int:
        return len(self._answers)

    def write_table(self) -> int:
        """Writes the preference file anew; returns the number of its rows.

        Raises:
            ConfigError, StorageFailure: it cannot be written.
        """
        return write_records(self._rows(), COLUMNS, self.out)

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()

    def _append(self, records: Sequence[dict[str, Any]]) -> None:
        self._journal.append(records)
        self._journal.close()  # which syncs, so that no answer is lost by a power cut

    def _know(self, pair: LabelPair) -> None:
        self.pairs[pair.key] = pair

    def _rows(self) -> Iterator[Record]:
        for answer in list(self._answers.values()):
            pair = self.pairs.get(answer.pair)
            if pair is None:  # its line is damaged
                continue
            row = {
                **pair.to_dict(),
                **asdict(answer),
                "label": "tie" if answer.choice == "bad" else answer.choice,
                "both_bad": "true" if answer.choice == "bad" else "false",
                "index": str(pair.index),
            }
            yield {name: row[name] for name in COLUMNS}
