"""The transfer of gains from training to held-out prompts, as a share and as a difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddpo.rounding import rounded_range
from ddpo.stats.bootstrap import RESAMPLES, percentile_interval, two_stage_means
from ddpo.stats.estimate import Estimate, clustered_mean

__all__ = ["Gap", "TransferRatio", "transfer_ratio", "transfer_ratios"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TransferRatio:
    """The held-out gain as a share of the seen gain; NaN with a reason where it means nothing."""

    ratio: float
    low: float
    high: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """The generalisation gap, seen gain - held-out gain, with its 95 % interval; NaN if unknown.

    It also exists where the share does not.
    """

    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan


def transfer_ratio(
    seen: ArrayLike,
    seen_ids: Sequence[str],
    heldout: ArrayLike,
    heldout_ids: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> TransferRatio:
    """Mean held-out gain / mean seen gain, with the interval of a two-stage bootstrap.

    The stages are prompts, and seeds within a prompt. With few seeds per prompt the interval is a
    little wide.

    Args:
        seen: paired differences on training prompts, float `[pairs]`.
        seen_ids: prompt of each difference.
        heldout: paired differences on held-out prompts, float `[pairs]`.
        heldout_ids: prompt of each difference.
        seed: seed of the resampling.
        resamples: number of resamples.

    Returns:
        The ratio; all NaN with a reason where the interval of the seen gain covers 0.

    Source: Davison & Hinkley 1997, section 3.8 (hierarchical resampling).
    """
    columns = [np.asarray(values, dtype=np.float64)[:, None] for values in (seen, heldout)]
    return transfer_ratios(
        columns[0], seen_ids, columns[1], heldout_ids, seed=seed, resamples=resamples
    )[0][0]


def transfer_ratios(
    seen: Floats,
    seen_ids: Sequence[str],
    heldout: Floats,
    heldout_ids: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[tuple[TransferRatio, Gap]]:
    """The `transfer_ratio` and generalisation gap of every column of `[pairs, rewards]`.

    The two prompt lists are independent, so they are resampled independently.
    """
    few = len(set(seen_ids)) < 2 or len(set(heldout_ids)) < 2
    nothing = np.full((1, seen.shape[1]), math.nan)
    bottom = nothing if few else two_stage_means(seen, seen_ids, resamples, 2 * seed)
    top = nothing if few else two_stage_means(heldout, heldout_ids, resamples, 2 * seed + 1)
    found: list[tuple[TransferRatio, Gap]] = []
    for column in range(seen.shape[1]):
        gain = clustered_mean(seen[:, column], seen_ids)
        other = clustered_mean(heldout[:, column], heldout_ids)
        gap = Gap()
        if gain.clusters > 1 and other.clusters > 1:
            interval = percentile_interval(bottom[:, column] - top[:, column])
            gap = Gap(gain.mean - other.mean, *interval)
        found.append((_share(gain, other, bottom[:, column], top[:, column]), gap))
    return found


def _share(gain: Estimate, other: Estimate, bottom: Floats, top: Floats) -> TransferRatio:
    """The ratio of two gains from estimates and resampled means `[resamples]`, or a reason."""
    if gain.covers_zero:
        interval = "is unknown (fewer than two prompts)"
        if not math.isnan(gain.low):
            interval = f"({rounded_range(gain.low, gain.high)}) covers 0"
        return _no_ratio(f"the interval of the gain on training prompts {interval}")
    if other.clusters < 2:
        return _no_ratio("fewer than two held-out prompts could be scored")
    with np.errstate(divide="ignore"):
        return TransferRatio(other.mean / gain.mean, *percentile_interval(top / bottom))


def _no_ratio(reason: str) -> TransferRatio:
    return TransferRatio(math.nan, math.nan, math.nan, f"no share can be given: {reason}")
