"""The win rate of tuned images over base images of the same prompt and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ddpo.stats.bootstrap import CONFIDENCE

__all__ = ["WinRate", "win_rate"]


@dataclass(frozen=True, slots=True)
class WinRate:
    """The share of pairs with a higher tuned score, ties counted half; Wilson's 95 % interval."""

    rate: float
    low: float
    high: float
    n: int
    ties: int


def win_rate(differences: ArrayLike) -> WinRate:
    """P(difference > 0) + ½ P(difference = 0) with Wilson's score interval.

    NaN differences are left out. The interval takes pairs as independent, so it is a little narrow
    where prompts differ.

    Source: Wilson 1927.
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[~np.isnan(d)]
    n = len(d)
    if n == 0:
        return WinRate(math.nan, math.nan, math.nan, 0, 0)
    ties = int((d == 0).sum())
    rate = (float((d > 0).sum()) + ties / 2) / n
    z = float(special.ndtri(0.5 + CONFIDENCE / 2))
    center = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return WinRate(rate, max(0.0, center - half), min(1.0, center + half), n, ties)
