"""Curves of bounded length, to which a training adds points."""

from __future__ import annotations

import math
from array import array
from typing import Final

__all__ = ["Series"]

MOST_POINTS: Final = 4_096  # kept of one curve


class Series:
    """Values over iterations; a long series keeps every second, fourth, … point and the last.

    Args:
        most: greatest number of points that are kept.
    """

    def __init__(self, most: int = MOST_POINTS) -> None:
        self._most = most
        self._iterations = array("q")
        self._values = array("d")
        self._stride = 1
        self._seen = 0
        self.last: tuple[int, float] | None = None

    def __len__(self) -> int:
        """Number of points that were added."""
        return self._seen

    def add(self, iteration: int, value: object) -> None:
        """Adds a point; what is no finite number is left out."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        if not math.isfinite(value):
            return
        self.last = (iteration, float(value))
        if self._seen % self._stride == 0:
            self._iterations.append(iteration)
            self._values.append(value)
        self._seen += 1
        if len(self._values) >= self._most:
            self._iterations = self._iterations[::2]
            self._values = self._values[::2]
            self._stride *= 2

    def points(self, most: int) -> list[tuple[int, float]]:
        """At most `most` points and the last one, evenly chosen."""
        step = -(-len(self._values) // most) or 1
        chosen = list(zip(self._iterations[::step], self._values[::step], strict=True))
        if self.last is not None and chosen[-1] != self.last:
            chosen.append(self.last)
        return chosen
