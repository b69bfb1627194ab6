"""The over-optimisation curve of a run: a reward against the distance from the base model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = ["LEAST_POINTS", "OverOptimisationFit", "fit_over_optimisation"]

LEAST_POINTS: Final = 4  # two coefficients, and as many points again to judge the fit


@dataclass(frozen=True, slots=True)
class OverOptimisationFit:
    """gain ≈ d (α - β log d) with d = √KL, least squares over the checkpoints.

    A peak far outside the points means nothing.
    """

    reward: str
    alpha: float  # reward units per √nat
    beta: float  # > 0: the gain bends down and would peak
    peak_kl: float  # nats of the largest fitted gain, exp(2 (α/β - 1)); NaN where β ≤ 0
    rmse: float  # root of the mean squared residual, reward units
    points: int


def fit_over_optimisation(
    reward: str, kl: Sequence[float], gains: Sequence[float]
) -> OverOptimisationFit | None:
    """Fits the over-optimisation curve of reinforcement learning.

    Every checkpoint has the same weight. The form was found for language models and is a
    description here, not a law.

    Args:
        reward: id of the reward.
        kl: KL(policy || base) of each checkpoint in nats, `[points]`.
        gains: gain of each checkpoint over the base model, `[points]`.

    Returns:
        The fit; None below 4 points with a known gain and a KL above 0.

    Source: Gao, Schulman & Hilton, arXiv 2210.10760, section 3.1.
    """
    divergence = np.asarray(kl, dtype=np.float64)
    gain = np.asarray(gains, dtype=np.float64)
    kept = np.isfinite(divergence) & np.isfinite(gain) & (divergence > 0)
    if kept.sum() < LEAST_POINTS:
        return None
    d = np.sqrt(divergence[kept])
    gain = gain[kept]
    design = np.stack([d, -d * np.log(d)], axis=1)
    (alpha, beta), _, rank, _ = np.linalg.lstsq(design, gain, rcond=None)
    if rank < 2:
        return None
    exponent = 2 * (alpha / beta - 1) if beta > 0 else math.nan
    in_range = exponent < 700  # e^700 is near the largest float
    peak = math.exp(exponent) if in_range else math.nan
    rmse = float(np.sqrt(np.mean((gain - design @ np.array([alpha, beta])) ** 2)))
    return OverOptimisationFit(reward, float(alpha), float(beta), peak, rmse, len(d))
