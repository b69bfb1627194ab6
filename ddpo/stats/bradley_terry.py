"""Calibration of score differences: Bradley-Terry temperature, reliability bins and errors."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from ddpo.stats.pairwise import cross_fitted

__all__ = ["Bin", "Calibration", "bradley_terry_slope", "calibration", "reliability"]

BINS: Final = 10  # over confidences ½ … 1
LIMIT: Final = 1e3
"""Slope per mean |difference| that stands for infinity: beyond it all pairs are ordered alike."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """The pairs whose predicted winner had a probability from `low` to `high`."""

    low: float
    high: float
    n: int
    confidence: float  # mean probability of the predicted winner
    accuracy: float  # share of the pairs in which it was preferred


@dataclass(frozen=True, slots=True)
class Calibration:
    """P(first preferred) = σ(difference / temperature), cross-fitted over prompts."""

    temperature: float  # fitted on all pairs, in units of the reward; NaN where it cannot be
    note: str  # why there is no temperature, or a warning about it; "" without either
    ece: float  # expected calibration error: mean over pairs of |accuracy − confidence| by bin
    brier: float  # mean squared error of the probability; 0.25 for a coin
    log_loss: float  # nats; 0.693 for a coin
    bins: tuple[Bin, ...]
    n: int


def bradley_terry_slope(choices: Floats, differences: Floats) -> float:
    """The maximum-likelihood slope β = 1 / temperature; ±inf without a maximum.

    It maximises Σ log σ(±β · difference), with + where the first image was preferred. The
    log-likelihood is concave in β, so its derivative has one root.

    Args:
        choices: 1 or 0, `[pairs]`.
        differences: score of the first image minus the second, `[pairs]`.

    Source: Bradley & Terry 1952, with the score as log-strength.
    """
    signed = (2 * choices - 1) * differences
    scale = float(np.abs(signed).mean()) if len(signed) else 0.0
    if scale == 0:
        return math.nan

    def rise(slope: float) -> float:
        """Derivative of the log-likelihood."""
        return float((signed * special.expit(-slope * signed / scale)).sum())

    if rise(LIMIT) >= 0 or rise(-LIMIT) <= 0:
        return math.copysign(math.inf, rise(0))
    return float(optimize.brentq(rise, -LIMIT, LIMIT)) / scale


def calibration(choices: Floats, differences: Floats, prompts: Sequence[Hashable]) -> Calibration:
    """The temperature, and the calibration of its probabilities on pairs that people did not tie.

    Args:
        choices: 1, 0 or 0.5, `[pairs]`.
        differences: score of the first image minus the second, `[pairs]`.
        prompts: prompt of each pair; its probability uses a temperature fitted on other prompts.
    """
    decided = choices != 0.5
    y = choices[decided]
    d = differences[decided]
    labels = [prompt for prompt, keep in zip(prompts, decided, strict=True) if keep]
    slope = bradley_terry_slope(y, d)
    slopes = cross_fitted(lambda kept: bradley_terry_slope(y[kept], d[kept]), labels)
    note = _note(slope, len(set(labels)))
    temperature = 1 / slope if math.isfinite(slope) and slope != 0 else math.nan
    if not len(y) or not np.isfinite(slopes).all():
        why = note or "the temperature cannot be fitted on some of the prompts"
        return Calibration(temperature, why, math.nan, math.nan, math.nan, (), len(y))
    probability = special.expit(slopes * d)
    bins = reliability(probability, y)
    ece = sum(one.n * abs(one.accuracy - one.confidence) for one in bins) / len(y)
    brier = float(((probability - y) ** 2).mean())
    log_loss = float(np.logaddexp(0, -(2 * y - 1) * slopes * d).mean())
    return Calibration(temperature, note, ece, brier, log_loss, bins, len(y))


def _note(slope: float, prompts: int) -> str:
    if prompts < 2:
        return "one prompt: there are no others to fit the temperature on"
    if math.isnan(slope):
        return "all differences are 0"
    if math.isinf(slope):
        order = "as" if slope > 0 else "against what"
        return f"no temperature: every pair is ordered {order} people chose"
    return "the temperature is negative: people prefer what scores worse" if slope < 0 else ""


def reliability(probability: Floats, choices: Floats, bins: int = BINS) -> tuple[Bin, ...]:
    """Pairs binned by the probability of their predicted winner, ½ … 1; empty bins are left out.

    The order of the two images makes no difference. A probability of exactly ½ is half right.

    Source: Guo et al. 2017, arXiv 1706.04599.
    """
    confidence = np.maximum(probability, 1 - probability)
    right = np.where(probability == 0.5, 0.5, (probability > 0.5) == (choices == 1))
    place = np.minimum((confidence - 0.5) * 2 * bins, bins - 1).astype(np.int64)
    edges = 0.5 + np.arange(bins + 1) / (2 * bins)
    return tuple(
        Bin(
            float(edges[i]),
            float(edges[i + 1]),
            int(inside.sum()),
            float(confidence[inside].mean()),
            float(right[inside].mean()),
        )
        for i in range(bins)
        if (inside := place == i).any()
    )
