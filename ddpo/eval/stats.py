"""How sure a gain is: intervals clustered by prompt, win rates, effect sizes, transfer ratios and multiple comparisons.

The pictures of one prompt are not independent evidence about prompts, so every interval here resamples or sums over prompts.
Values that could not be scored are NaN: they are left out and counted, never taken as 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from ddpo.errors import ConfigError

__all__ = [
    "Estimate",
    "PairedGain",
    "TransferRatio",
    "WinRate",
    "clustered_mean",
    "cohen_d_z",
    "holm",
    "paired_gain",
    "transfer_ratio",
    "win_rate",
]

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000  # Efron & Tibshirani 1993: at least 1000 for percentile intervals
CHUNK: Final = 2_000_000  # bootstrap draws held in memory at a time

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval; `se`, `low` and `high` are NaN where fewer than two clusters leave no spread to judge by."""

    mean: float
    se: float
    low: float
    high: float
    n: int  # values used
    clusters: int
    excluded: int = 0  # values that were NaN

    @property
    def covers_zero(self) -> bool:
        """Whether 0 is inside the interval, or the interval is unknown."""
        return not (self.low > 0 or self.high < 0)

    @property
    def p(self) -> float:
        """Two-sided p-value of the t-test that the mean is 0, with clusters - 1 degrees of freedom; NaN without an interval."""
        if math.isnan(self.se):
            return math.nan
        if self.se == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * special.stdtr(self.clusters - 1, -abs(self.mean / self.se)))


@dataclass(frozen=True, slots=True)
class WinRate:
    """Share of pairs in which the tuned picture scores higher, ties counted half, with Wilson's 95 % interval."""

    rate: float
    low: float
    high: float
    n: int
    ties: int


@dataclass(frozen=True, slots=True)
class PairedGain:
    """Tuned against base on the same prompts, seeds and noise."""

    gain: Estimate
    base_mean: float
    tuned_mean: float
    wins: WinRate
    d_z: float


@dataclass(frozen=True, slots=True)
class TransferRatio:
    """Held-out gain as a share of the seen gain; or, where that share means nothing, the reason in words."""

    ratio: float
    low: float
    high: float
    reason: str = ""


def clustered_mean(values: ArrayLike, clusters: Sequence[object] | NDArray[np.generic]) -> Estimate:
    """Mean with a standard error that allows for any dependence inside a cluster.

    SE² = C/(C-1) · Σ_c (Σ_{i∈c} (x_i - x̄))² / n², interval x̄ ± t_{C-1, 0.975} · SE.

    Args:
        values: float `[n]`; NaN marks what could not be scored.
        clusters: the cluster of each value, here its prompt, `[n]`.

    Raises:
        ConfigError: the lengths differ.

    Source: Miller, arXiv 2411.00640, section 2.2; the finite-cluster factor is Cameron & Miller 2015, section II.B.
    """
    everything = np.asarray(values, dtype=np.float64)
    labels = np.asarray(clusters)
    if everything.shape != labels.shape or everything.ndim != 1:
        raise ConfigError(f"{everything.shape} values came with {labels.shape} clusters")
    kept = ~np.isnan(everything)
    x, labels = everything[kept], labels[kept]
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
    half = float(special.stdtrit(count - 1, 0.5 + CONFIDENCE / 2)) * se
    return Estimate(mean, se, mean - half, mean + half, len(x), count, excluded)


def win_rate(differences: ArrayLike) -> WinRate:
    """P(difference > 0) + ½ P(difference = 0) with Wilson's score interval; NaN differences are left out.

    Source: Wilson 1927. The interval takes the pairs as independent, so it is a little narrow where prompts differ.
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[~np.isnan(d)]
    n = len(d)
    if n == 0:
        return WinRate(math.nan, math.nan, math.nan, 0, 0)
    ties = int((d == 0).sum())
    rate = (float((d > 0).sum()) + ties / 2) / n
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    center = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return WinRate(rate, max(0.0, center - half), min(1.0, center + half), n, ties)


def cohen_d_z(differences: ArrayLike, prompt_ids: Sequence[str]) -> float:
    """Cohen's d_z = mean / standard deviation of the prompts' mean differences; NaN below two prompts, ±inf without spread."""
    means = np.array([group.mean() for group in _by_prompt(differences, prompt_ids)])
    if len(means) < 2:
        return math.nan
    spread = float(means.std(ddof=1))
    if spread == 0:
        return 0.0 if means[0] == 0 else math.copysign(math.inf, means[0])
    return float(means.mean()) / spread


def paired_gain(base: ArrayLike, tuned: ArrayLike, prompt_ids: Sequence[str]) -> PairedGain:
    """The gain tuned - base over pairs that share prompt, seed and noise.

    A pair of which either picture could not be scored is left out of every number and counted in `gain.excluded`.

    Args:
        base: scores of the base model, float `[pairs]`.
        tuned: scores of the tuned model, float `[pairs]`.
        prompt_ids: the prompt of each pair, `[pairs]`.

    Raises:
        ConfigError: the lengths differ.
    """
    before, after = np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    if before.shape != after.shape:
        raise ConfigError(f"{len(before)} base scores were paired with {len(after)} tuned scores")
    differences = after - before
    kept = ~np.isnan(differences)
    return PairedGain(
        gain=clustered_mean(differences, prompt_ids),
        base_mean=float(before[kept].mean()) if kept.any() else math.nan,
        tuned_mean=float(after[kept].mean()) if kept.any() else math.nan,
        wins=win_rate(differences),
        d_z=cohen_d_z(differences, prompt_ids),
    )


def transfer_ratio(
    seen: ArrayLike, seen_ids: Sequence[str], heldout: ArrayLike, heldout_ids: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES
) -> TransferRatio:
    """Mean held-out gain / mean seen gain, with a percentile interval of a two-stage bootstrap (prompts, then seeds within a prompt).

    Args:
        seen: paired differences on training prompts, float `[pairs]`.
        seen_ids: their prompts.
        heldout: paired differences on held-out prompts, float `[pairs]`.
        heldout_ids: their prompts.
        seed: of the resampling.
        resamples: number of bootstrap draws.

    Returns:
        The ratio; all NaN with a reason where the interval of the seen gain covers 0, since a share of nothing means nothing.

    Source: Davison & Hinkley 1997, section 3.8 (hierarchical resampling). With few seeds per prompt it is a little wide.
    """
    gain = clustered_mean(seen, seen_ids)
    other = clustered_mean(heldout, heldout_ids)
    if gain.covers_zero:
        interval = (
            "is unknown (fewer than two prompts)"
            if math.isnan(gain.low)
            else f"({gain.low:.3g} to {gain.high:.3g}) covers 0".replace("-", "−")
        )
        return TransferRatio(math.nan, math.nan, math.nan, f"no share can be given: the interval of the gain on seen prompts {interval}")
    if other.clusters < 2:
        return TransferRatio(math.nan, math.nan, math.nan, "no share can be given: fewer than two held-out prompts could be scored")
    random = np.random.default_rng(seed)
    bottom = _bootstrap_means(_by_prompt(seen, seen_ids), resamples, random)
    top = _bootstrap_means(_by_prompt(heldout, heldout_ids), resamples, random)
    with np.errstate(divide="ignore"):
        low, high = np.quantile(top / bottom, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return TransferRatio(other.mean / gain.mean, float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: rejecting where the result is below α keeps the chance of any false claim below α.

    NaN (no test was possible) stays NaN and does not count as a comparison.

    Source: Holm 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(p), math.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return [float(value) for value in adjusted]


def _by_prompt(values: ArrayLike, prompt_ids: Sequence[str]) -> list[Floats]:
    """The values of each prompt, in order of first appearance, without NaN and without empty prompts."""
    groups: dict[str, list[float]] = {}
    for value, prompt in zip(np.asarray(values, dtype=np.float64).tolist(), prompt_ids, strict=True):
        if not math.isnan(value):
            groups.setdefault(prompt, []).append(value)
    return [np.array(group) for group in groups.values()]


def _bootstrap_means(groups: Sequence[Floats], resamples: int, random: np.random.Generator) -> Floats:
    """Means of `resamples` two-stage bootstrap samples, float `[resamples]`."""
    counts = np.array([len(group) for group in groups])
    longest = int(counts.max())
    padded = np.array([np.pad(group, (0, longest - len(group))) for group in groups])
    means: list[Floats] = []
    step = max(1, CHUNK // (len(groups) * longest))
    for start in range(0, resamples, step):
        draws = min(step, resamples - start)
        prompts = random.integers(len(groups), size=(draws, len(groups)))
        drawn = counts[prompts][..., None]
        seeds = (random.random((draws, len(groups), longest)) * drawn).astype(np.int64)
        values = padded[prompts[..., None], seeds]
        used = np.arange(longest) < drawn
        means.append((values * used).sum((1, 2)) / used.sum((1, 2)))
    return np.concatenate(means)
