"""The state of a labelling: who sees which pair, and what is recorded."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.io.fields import shown
from ddpo.labelling.answers import Answer, Answers, Choice
from ddpo.labelling.design import Presentation, presentations
from ddpo.labelling.pair import LabelPair

__all__ = ["MOST_RATERS", "Session", "rater_name"]

LONGEST_NAME: Final = 80  # characters of a rater's name
MOST_RATERS: Final = 1000
LONGEST_SECONDS: Final = 7 * 24 * 3600.0
PAUSE: Final = 20  # times the duration of a write of the table, until the next one


def rater_name(text: object) -> str:
    """A rater's name without spaces at its ends.

    Raises:
        ConfigError: it is no text, empty, too long, or has control characters.
    """
    name = text.strip() if isinstance(text, str) else ""
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ConfigError(
            f"a rater's name has 1 to {LONGEST_NAME} printable characters, got {shown(text)}"
        )
    return name


@dataclass(frozen=True, slots=True)
class _Shown:
    """The names of a pair's images in the browser, which say nothing about their models."""

    left: str
    right: str


class Session:
    """The pairs of one labelling, for any number of raters at once.

    Args:
        answers: recorded answers.
        pairs: pairs to show.
        seed: seed of the order and the sides.
        say: receiver of a line when a rater has finished.
    """

    def __init__(
        self,
        answers: Answers,
        pairs: Sequence[LabelPair],
        seed: int,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._answers = answers
        self._pairs = tuple(pairs)
        self._seed = seed
        self._say = say
        self._lock = threading.Lock()
        self._orders: dict[str, list[Presentation]] = {}
        self._shown: dict[tuple[str, str], _Shown] = {}
        self._images: dict[str, tuple[LabelPair, str]] = {}
        self._next_write = 0.0

    @property
    def total(self) -> int:
        """The number of pairs that each rater sees."""
        return len(self._pairs)

    def progress(self) -> dict[str, int]:
        """The number of answered pairs of each rater who has begun."""
        keys = {pair.key for pair in self._pairs}
        with self._lock:
            return {
                rater: len(keys & self._answers.of_rater(rater).keys())
                for rater in self._answers.raters()
            }

    def show(self, rater: object, place: object = None) -> dict[str, Any]:
        """The pair at a place, by default the first without an answer, as JSON for the page.

        Args:
            rater: name of the rater.
            place: 0-based place in the rater's order; no later than the first without an answer.

        Raises:
            ConfigError: the name or the place cannot be used.
        """
        name = rater_name(rater)
        with self._lock:
            return self._view(name, place)

    def answer(self, rater: object, place: object, choice: object, seconds: object) -> None:
        """Records a choice; it is on the disk when this returns.

        Args:
            rater: name of the rater.
            place: place of the pair in the rater's order, as it was shown.
            choice: "left", "right", "tie" or "bad".
            seconds: time from the images' appearance to the choice.

        Raises:
            ConfigError: one of them cannot be used.
            StorageFailure: the answer cannot be written.
        """
        name = rater_name(rater)
        with self._lock:
            order = self._order(name)
            first = self._first_open(name, order)
            if not _is_place(place, min(first, len(order) - 1)):
                raise ConfigError(f"there is no pair at place {shown(place)}")
            presentation = order[place]  # type: ignore[index]  # checked above
            now = datetime.now(UTC).isoformat(timespec="seconds")
            key = presentation.pair.key
            before = self._answers.of_rater(name).get(key)
            left = before.left if before is not None else presentation.left
            found = _choice_of(choice, left)
            self._answers.add(Answer(name, key, found, left, _seconds(seconds), now))
            done = self._first_open(name, order) == len(order)
            if done and first < len(order):
                self._say(f"{name} has labelled all {len(order)} pairs.")
            self._write_table(at_once=done)

    def image(self, token: str) -> tuple[LabelPair, str] | None:
        """The pair and the letter of an image that was shown; None for an unknown name."""
        return self._images.get(token)

    def close(self) -> None:
        """Writes the preference file."""
        with self._lock:
            if len(self._answers):
                self._answers.write_table()

    def _view(self, rater: str, place: object) -> dict[str, Any]:
        order = self._order(rater)
        answered = self._answers.of_rater(rater)
        first = self._first_open(rater, order)
        if place is None:
            place = first
        if not _is_place(place, first):
            raise ConfigError(f"there is no pair at place {shown(place)}")
        done = sum(one.pair.key in answered for one in order)
        view: dict[str, Any] = {"rater": rater, "done": done, "total": len(order), "place": place}
        if place == len(order):
            return view
        presentation = order[place]
        pair = presentation.pair
        before = answered.get(pair.key)
        left = before.left if before is not None else presentation.left
        names = self._names(rater, pair, left)
        return view | {
            "prompt": pair.prompt,
            "left": f"/image/{names.left}",
            "right": f"/image/{names.right}",
            "answer": None if before is None else _side_of(before.choice, left),
        }

    def _names(self, rater: str, pair: LabelPair, left: str) -> _Shown:
        found = self._shown.get((rater, pair.key))
        if found is None:
            found = _Shown(secrets.token_urlsafe(12), secrets.token_urlsafe(12))
            self._shown[rater, pair.key] = found
            self._images[found.left] = (pair, left)
            self._images[found.right] = (pair, "b" if left == "a" else "a")
        return found

    def _order(self, rater: str) -> list[Presentation]:
        if rater not in self._orders:
            if len(self._orders) >= MOST_RATERS:
                raise ConfigError(f"there are {MOST_RATERS} raters already")
            self._orders[rater] = presentations(self._pairs, rater, self._seed)
        return self._orders[rater]

    def _first_open(self, rater: str, order: Sequence[Presentation]) -> int:
        answered = self._answers.of_rater(rater)
        return next(
            (place for place, one in enumerate(order) if one.pair.key not in answered), len(order)
        )

    def _write_table(self, *, at_once: bool) -> None:
        """Writes the preference file, unless it takes long and was written just before."""
        now = time.monotonic()
        if at_once or now >= self._next_write:
            self._answers.write_table()
            ended = time.monotonic()
            self._next_write = ended + PAUSE * (ended - now)


def _is_place(value: object, last: int) -> bool:
    return type(value) is int and 0 <= value <= last


def _choice_of(side: object, left: str) -> Choice:
    """The chosen image of a side."""
    if side in ("left", "right"):
        is_first = (side == "left") == (left == "a")
        return "a" if is_first else "b"
    if side == "tie":
        return "tie"
    if side == "bad":
        return "bad"
    raise ConfigError(f"the choice must be left, right, tie or bad, got {shown(side)}")


def _side_of(choice: Choice, left: str) -> str:
    if choice in ("tie", "bad"):
        return choice
    return "left" if choice == left else "right"


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"the seconds must be a number, got {shown(value)}")
    if not 0 <= value <= LONGEST_SECONDS:
        raise ConfigError(f"the seconds must be 0 to {LONGEST_SECONDS:g}, got {value}")
    return round(float(value), 3)
