"""Means with t intervals, clustered by prompt or over training runs.

Images of one prompt are not independent evidence about prompts, so they are summed before their
spread is estimated. Missing scores are NaN: they are left out and counted, never taken as 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddpo.errors import ConfigError
from ddpo.stats.bootstrap import CONFIDENCE

__all__ = ["Estimate", "clustered_mean", "mean_over_runs"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval; `se`, `low` and `high` are NaN below two clusters."""

    mean: float
    se: float
    low: float
    high: float
    n: int  # number of values in use
    clusters: int
    excluded: int = 0  # values that were NaN

    @property
    def covers_zero(self) -> bool:
        """True if 0 is inside the interval, or the interval is unknown."""
        return not (self.low > 0 or self.high < 0)

    @property
    def p(self) -> float:
        """Two-sided p-value of the t-test for a mean of 0; NaN without an interval.

        The test has clusters - 1 degrees of freedom.
        """
        if math.isnan(self.se):
            return math.nan
        if self.se == 0:
            return 1.0 if self.mean == 0 else 0.0
        from scipy import special  # takes 0.3 s, which no command that only checks should pay

        return float(2 * special.stdtr(self.clusters - 1, -abs(self.mean / self.se)))


def clustered_mean(values: ArrayLike, clusters: Sequence[object] | NDArray[np.generic]) -> Estimate:
    """The mean, with a standard error that allows for any dependence inside a cluster.

    SE² = C/(C-1) · Σ_c (Σ_{i∈c} (x_i - x̄))² / n², interval x̄ ± t_{C-1, 0.975} · SE.

    Args:
        values: float `[n]`; NaN where there is no score.
        clusters: cluster of each value, here its prompt, `[n]`.

    Raises:
        ConfigError: the lengths differ.

    Source: Miller, arXiv 2411.00640, section 2.2; the finite-cluster factor is Cameron & Miller
    2015, section II.B.
    """
    everything = np.asarray(values, dtype=np.float64)
    labels = np.asarray(clusters)
    if everything.shape != labels.shape or everything.ndim != 1:
        raise ConfigError(f"{everything.shape} values came with {labels.shape} clusters")
    kept = ~np.isnan(everything)
    x = everything[kept]
    labels = labels[kept]
    excluded = int((~kept).sum())
    if not len(x):
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0, excluded)
    mean = float(x.mean())
    members = np.unique(labels, return_inverse=True)[1]
    sums = np.bincount(members, weights=x - mean)
    count = len(sums)
    if count < 2:
        return Estimate(mean, math.nan, math.nan, math.nan, len(x), count, excluded)
    se = math.sqrt(count / (count - 1) * float((sums**2).sum())) / len(x)
    from scipy import special

    half = float(special.stdtrit(count - 1, 0.5 + CONFIDENCE / 2)) * se
    return Estimate(mean, se, mean - half, mean + half, len(x), count, excluded)


def mean_over_runs(run_means: ArrayLike) -> Estimate:
    """The mean of the runs' means with a t interval over runs.

    The interval covers other training seeds on the same prompts. It says nothing about other
    prompts, so read it beside the interval clustered by prompt.

    Args:
        run_means: mean gain of each run, float `[runs]`; NaN for a run without scores.
    """
    means = np.asarray(run_means, dtype=np.float64)
    return clustered_mean(means, np.arange(len(means)))
