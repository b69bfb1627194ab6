"""The form in which a reward rises and falls with the distance from the base model, fitted to the checkpoints of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = ["LEAST_POINTS", "OverOptimisationFit", "fit_over_optimisation"]

LEAST_POINTS: Final = (
    4  # two coefficients, and as many points again to see whether the form holds at all
)


@dataclass(frozen=True, slots=True)
class OverOptimisationFit:
    """gain ≈ d (α - β log d) with d = √KL, least squares over the checkpoints."""

    reward: str
    alpha: float  # reward units per √nat
    beta: float  # > 0: the gain bends down and would peak
    peak_kl: float  # nats at which the fitted gain is largest, exp(2 (α/β - 1)); NaN where β ≤ 0. Far outside the points it means nothing
    rmse: float  # root of the mean squared residual, reward units
    points: int


def fit_over_optimisation(
    reward: str, kl: Sequence[float], gains: Sequence[float]
) -> OverOptimisationFit | None:
    """Fits the over-optimisation curve of reinforcement learning; None below 4 points with a known gain and a KL above 0.

    Every checkpoint counts the same. The form was found for language models and is a description here, not a law.

    Args:
        reward: whose gains they are.
        kl: KL(policy || base) of each checkpoint, nats, `[points]`.
        gains: gain over the base model, `[points]`.

    Source: Gao, Schulman & Hilton, arXiv 2210.10760, section 3.1.
    """
    divergence, gain = np.asarray(kl, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    kept = np.isfinite(divergence) & np.isfinite(gain) & (divergence > 0)
    if kept.sum() < LEAST_POINTS:
        return None
    d, gain = np.sqrt(divergence[kept]), gain[kept]
    design = np.stack([d, -d * np.log(d)], axis=1)
    (alpha, beta), _, rank, _ = np.linalg.lstsq(design, gain, rcond=None)
    if rank < 2:
        return None
    exponent = 2 * (alpha / beta - 1) if beta > 0 else math.nan
    peak = (
        math.exp(exponent) if exponent < 700 else math.nan
    )  # e^700 is near the largest float: as good as no peak
    rmse = float(np.sqrt(np.mean((gain - design @ np.array([alpha, beta])) ** 2)))
    return OverOptimisationFit(reward, float(alpha), float(beta), peak, rmse, len(d))
