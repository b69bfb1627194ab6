"""Summary statistics of the scores of one reward, computed row by row."""

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
"""Name of the part that is 1 if a reward did not read the whole prompt, else 0.

In a combination it is called "ID.truncated".
"""


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary statistics of the scores of a set of files; NaN if there are too few."""

    scored: int
    unscorable: int
    failed: int
    truncated: int  # images whose prompt the reward did not read to the end
    mean: float
    sd: float  # of the sample, n - 1
    p5: float
    p50: float
    p95: float


class RunningSummary:
    """Counts, scores (eight bytes each), and the best and worst files of one reward.

    Args:
        extremes: Number of best and of worst files.
    """

    def __init__(self, extremes: int = 5) -> None:
        self._scores = array("d")
        self._unscorable = self._failed = self._truncated = 0
        self._extremes = extremes
        self._best: list[tuple[float, int, str]] = []
        self._worst: list[tuple[float, int, str]] = []

    def add(self, row: ScoreRow) -> None:
        """Adds one row."""
        self._unscorable += row.status == "unscorable"
        self._failed += row.status == "failed"
        self._truncated += any(
            value > 0 for name, value in row.parts.items() if name.rpartition(".")[2] == TRUNCATED
        )
        if row.score is None:
            return
        order = -len(self._scores)  # of equal scores the first file stays
        self._scores.append(row.score)
        self._keep_extreme(self._best, (row.score, order, row.file))
        self._keep_extreme(self._worst, (-row.score, order, row.file))

    def _keep_extreme(
        self, heap: list[tuple[float, int, str]], item: tuple[float, int, str]
    ) -> None:
        if len(heap) < self._extremes:
            heapq.heappush(heap, item)
        else:
            heapq.heappushpop(heap, item)

    @property
    def without_score(self) -> int:
        """Number of rows without a score."""
        return self._unscorable + self._failed

    def best(self) -> list[tuple[str, float]]:
        """The files with the highest scores, best first."""
        return [(file, score) for score, _, file in sorted(self._best, reverse=True)]

    def worst(self) -> list[tuple[str, float]]:
        """The files with the lowest scores, worst first."""
        return [(file, -score) for score, _, file in sorted(self._worst, reverse=True)]

    def summary(self) -> Summary:
        """Mean, standard deviation and percentiles of the scores, and counts of the other rows."""
        scores = np.frombuffer(self._scores, dtype=np.float64)
        counts = (self._unscorable, self._failed, self._truncated)
        if not len(scores):
            return Summary(0, *counts, math.nan, math.nan, math.nan, math.nan, math.nan)
        p5, p50, p95 = np.percentile(scores, [5, 50, 95]).tolist()
        sd = float(scores.std(ddof=1)) if len(scores) > 1 else math.nan
        return Summary(len(scores), *counts, float(scores.mean()), sd, p5, p50, p95)
