"""Figures about the scores of one reward, gathered row by row."""

from __future__ import annotations

import heapq
import math
from array import array
from dataclasses import dataclass
from typing import Final

import numpy as np

from ddpo.rewards.image_files.run import ScoreRow

__all__ = ["TRUNCATED", "RunningSummary", "Summary"]

TRUNCATED: Final = "truncated"
"""The part by which a reward says that it did not read the whole prompt: 1 for such a picture, else 0; "ID.truncated" in a combination."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures about the scores of a set of files; NaN where there are too few."""

    scored: int
    unscorable: int
    failed: int
    truncated: int  # pictures whose prompt the reward did not read to the end
    mean: float
    sd: float  # of the sample, n - 1
    p5: float
    p50: float
    p95: float


class RunningSummary:
    """Counts, scores (eight bytes each) and the `extremes` best and worst files of one reward."""

    def __init__(self, extremes: int = 5) -> None:
        self._scores = array("d")
        self._unscorable = self._failed = self._truncated = 0
        self._extremes = extremes
        self._best: list[tuple[float, int, str]] = []
        self._worst: list[tuple[float, int, str]] = []

    def add(self, row: ScoreRow) -> None:
        """Takes one row."""
        self._unscorable += row.status == "unscorable"
        self._failed += row.status == "failed"
        self._truncated += any(
            value > 0 for name, value in row.parts.items() if name.rpartition(".")[2] == TRUNCATED
        )
        if row.score is None:
            return
        order = -len(self._scores)  # of equal scores the first file stays
        self._scores.append(row.score)
        for heap, score in ((self._best, row.score), (self._worst, -row.score)):
            (heapq.heappush if len(heap) < self._extremes else heapq.heappushpop)(
                heap, (score, order, row.file)
            )

    @property
    def without_score(self) -> int:
        """How many rows had none."""
        return self._unscorable + self._failed

    def best(self) -> list[tuple[str, float]]:
        """The files with the highest scores, best first."""
        return [(file, score) for score, _, file in sorted(self._best, reverse=True)]

    def worst(self) -> list[tuple[str, float]]:
        """The files with the lowest scores, worst first."""
        return [(file, -score) for score, _, file in sorted(self._worst, reverse=True)]

    def summary(self) -> Summary:
        """Mean, standard deviation and percentiles of the scores; what has no score is counted, not averaged."""
        scores, counts = (
            np.frombuffer(self._scores, dtype=np.float64),
            (self._unscorable, self._failed, self._truncated),
        )
        if not len(scores):
            return Summary(0, *counts, math.nan, math.nan, math.nan, math.nan, math.nan)
        p5, p50, p95 = np.percentile(scores, [5, 50, 95]).tolist()
        sd = float(scores.std(ddof=1)) if len(scores) > 1 else math.nan
        return Summary(len(scores), *counts, float(scores.mean()), sd, p5, p50, p95)
