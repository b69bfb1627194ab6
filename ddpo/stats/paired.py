"""Gains and effect sizes of paired scores: tuned against base on the same prompts and noise.

Every interval is about prompts (clustered or resampled by prompt). Missing scores are NaN: they are
left out and counted. This module also exports the other statistics of an evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddpo.errors import ConfigError
from ddpo.stats.bootstrap import RESAMPLES, percentile_interval, two_stage_means
from ddpo.stats.estimate import Estimate, clustered_mean, mean_over_runs
from ddpo.stats.multiple_tests import holm
from ddpo.stats.transfer import Gap, TransferRatio, transfer_ratio, transfer_ratios
from ddpo.stats.win_rate import WinRate, win_rate

__all__ = [
    "RESAMPLES",
    "Estimate",
    "Gap",
    "PairedGain",
    "TransferRatio",
    "WinRate",
    "clustered_mean",
    "cohen_d_z",
    "holm",
    "mean_over_runs",
    "paired_gain",
    "paired_gains",
    "transfer_ratio",
    "transfer_ratios",
    "win_rate",
    "within_prompt_sd",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairedGain:
    """The gain of tuned over base scores on the same prompts, seeds and noise.

    `boot_low` and `boot_high` are the 95 % interval of the gain by a two-stage bootstrap (prompts,
    then seeds), beside the t interval.
    """

    gain: Estimate
    base_mean: float
    tuned_mean: float
    wins: WinRate
    d_z: float
    boot_low: float = math.nan
    boot_high: float = math.nan


def cohen_d_z(differences: ArrayLike, prompt_ids: Sequence[str]) -> float:
    """Cohen's d_z: mean / standard deviation of the prompts' mean differences.

    NaN below two prompts, ±inf without spread.
    """
    means = np.array([group.mean() for group in _by_prompt(differences, prompt_ids)])
    if len(means) < 2:
        return math.nan
    spread = float(means.std(ddof=1))
    if spread == 0:
        return 0.0 if means[0] == 0 else math.copysign(math.inf, means[0])
    return float(means.mean()) / spread


def within_prompt_sd(scores: ArrayLike, prompt_ids: Sequence[str]) -> float:
    """The standard deviation between images of one prompt; NaN if no prompt has two scores.

    √(Σ_p Σ_i (x_pi - x̄_p)² / Σ_p (n_p - 1)).

    Args:
        scores: float `[n]`; NaN where there is no score.
        prompt_ids: prompt of each score, `[n]`.
    """
    groups = _by_prompt(scores, prompt_ids)
    degrees = sum(len(group) - 1 for group in groups)
    if not degrees:
        return math.nan
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return math.sqrt(squares / degrees)


def paired_gain(base: ArrayLike, tuned: ArrayLike, prompt_ids: Sequence[str]) -> PairedGain:
    """The gain tuned - base over pairs that share prompt, seed and noise.

    A pair without both scores is left out of every number and counted in `gain.excluded`.

    Args:
        base: scores of the base model, float `[pairs]`.
        tuned: scores of the tuned model, float `[pairs]`.
        prompt_ids: prompt of each pair, `[pairs]`.

    Raises:
        ConfigError: the lengths differ.
    """
    before = np.asarray(base, dtype=np.float64)
    after = np.asarray(tuned, dtype=np.float64)
    if before.shape != after.shape or len(before) != len(prompt_ids):
        raise ConfigError(
            f"{len(before)} base scores were paired with {len(after)} tuned scores of "
            f"{len(prompt_ids)} prompts"
        )
    return paired_gains(before[:, None], after[:, None], prompt_ids)[0]


def paired_gains(base: Floats, tuned: Floats, prompt_ids: Sequence[str]) -> list[PairedGain]:
    """The `paired_gain` of every column of scores `[pairs, rewards]`, with shared resamples."""
    differences = tuned - base
    resampled = np.full((1, differences.shape[1]), math.nan)
    if len(set(prompt_ids)) > 1:
        resampled = two_stage_means(differences, prompt_ids)
    found: list[PairedGain] = []
    for column, d in enumerate(differences.T):
        kept = ~np.isnan(d)
        gain = clustered_mean(d, prompt_ids)
        interval = (math.nan, math.nan)
        if gain.clusters > 1:
            interval = percentile_interval(resampled[:, column])
        before = float(base[kept, column].mean()) if kept.any() else math.nan
        after = float(tuned[kept, column].mean()) if kept.any() else math.nan
        effect = cohen_d_z(d, prompt_ids)
        found.append(PairedGain(gain, before, after, win_rate(d), effect, *interval))
    return found


def _by_prompt(values: ArrayLike, prompt_ids: Sequence[str]) -> list[Floats]:
    """The values of each prompt without NaN, in order of first appearance."""
    groups: dict[str, list[float]] = {}
    numbers = np.asarray(values, dtype=np.float64).tolist()
    for value, prompt in zip(numbers, prompt_ids, strict=True):
        if not math.isnan(value):
            groups.setdefault(prompt, []).append(value)
    return [np.array(group) for group in groups.values()]
