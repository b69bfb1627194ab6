"""p-values adjusted for the number of tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["holm"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, which bounds the chance of any false claim.

    The chance stays below α if results below α are rejected. NaN (no test was possible) stays NaN
    and does not count as a comparison.

    Source: Holm 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(p), math.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return [float(value) for value in adjusted]
