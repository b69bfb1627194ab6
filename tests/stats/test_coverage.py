"""What the intervals and the onset test promise, by simulation with a known truth.

24 prompts × 8 seeds, true gain 1, the prompts' gains with standard deviation 0.5, noise 0.7 in
each of the two scores.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from ddpo.eval.analysis.onset import find_onset
from ddpo.stats.bootstrap import cluster_weights, two_stage_means
from ddpo.stats.paired import clustered_mean, mean_over_runs

PROMPTS = 24
SEEDS = 8
IDS = [f"prompt {p}" for p in range(PROMPTS) for _ in range(SEEDS)]
BETWEEN = 0.5**2  # variance of a prompt's gain
WITHIN = 2 * 0.7**2  # variance of one difference around it
TRUE_VARIANCE = BETWEEN / PROMPTS + WITHIN / (PROMPTS * SEEDS)

Floats = NDArray[np.float64]


def _differences(runs: int, seed: int) -> Floats:
    """Tuned - base, float `[runs, prompts × seeds]`."""
    random = np.random.default_rng(seed)
    base, tuned = random.normal(0, 0.7, (2, runs, PROMPTS, SEEDS))
    return (1.0 + random.normal(0, 0.5, (runs, PROMPTS, 1)) + tuned - base).reshape(runs, -1)


def _coverage_of_draws(draws: Floats) -> float:
    """Share of the columns of bootstrap means `[resamples, runs]` whose interval holds 1."""
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return float(np.mean((low <= 1.0) & (high >= 1.0)))


def _normal_coverage(claimed: float, true: float) -> float:
    """Coverage of a 95 % interval that takes the variance for `claimed` where it is `true`."""
    return float(2 * scipy_stats.norm.cdf(1.959964 * math.sqrt(claimed / true)) - 1)


def test_clustered_interval_covers_95_percent_and_the_naive_one_79() -> None:
    values = _differences(3000, 1)
    clustered = [clustered_mean(row, IDS) for row in values]
    coverage = np.mean([found.low <= 1.0 <= found.high for found in clustered])
    half = scipy_stats.t.ppf(0.975, PROMPTS * SEEDS - 1) * scipy_stats.sem(values, axis=1)
    naive = np.mean(np.abs(values.mean(1) - 1.0) <= half)
    expected = _normal_coverage((BETWEEN + WITHIN) / (PROMPTS * SEEDS), TRUE_VARIANCE)
    assert 0.93 <= coverage <= 0.97
    assert expected == pytest.approx(0.79, abs=0.005)
    assert naive == pytest.approx(expected, abs=0.03)


def test_two_stage_bootstrap_is_a_little_wide_and_the_one_of_whole_prompts_a_little_narrow() -> (
    None
):
    values = _differences(2000, 2).T
    two_stage = _coverage_of_draws(two_stage_means(values, IDS))
    whole = _coverage_of_draws(
        np.concatenate(
            [(drawn @ values) / drawn.sum(1, keepdims=True) for drawn in cluster_weights(IDS)]
        )
    )
    # The second stage adds the spread within a prompt once more; both stages divide by n, not
    # by n - 1.
    between = (PROMPTS - 1) / PROMPTS * (BETWEEN + WITHIN / SEEDS)
    claimed = (between + (SEEDS - 1) / SEEDS * WITHIN / SEEDS) / PROMPTS
    assert two_stage == pytest.approx(_normal_coverage(claimed, TRUE_VARIANCE), abs=0.02)
    assert whole == pytest.approx(_normal_coverage(between / PROMPTS, TRUE_VARIANCE), abs=0.02)
    assert 0.95 <= two_stage <= 0.98
    assert 0.91 <= whole <= 0.95


def test_three_runs_cover_the_training_seed_and_one_run_does_not() -> None:
    # Runs of other training seeds differ by standard deviation 0.3 on the same prompts.
    random = np.random.default_rng(3)
    means = (
        1.0
        + random.normal(0, 0.3, (3000, 3))
        + random.normal(0, math.sqrt(WITHIN / (PROMPTS * SEEDS)), (3000, 3))
    )
    found = [mean_over_runs(three) for three in means]
    assert np.mean([one.low <= 1.0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.015)
    single = [
        clustered_mean(row + shift, IDS)
        for row, shift in zip(_differences(1000, 4), random.normal(0, 0.3, 1000), strict=True)
    ]
    alone = np.mean([one.low <= 1.0 <= one.high for one in single])
    assert alone == pytest.approx(_normal_coverage(TRUE_VARIANCE, TRUE_VARIANCE + 0.3**2), abs=0.05)
    assert alone < 0.65


@pytest.mark.parametrize(("points", "drift"), [(3, 0.0), (7, 0.0), (7, 0.3)])
def test_onset_is_found_in_at_most_7_percent_of_histories_without_change(
    points: int, drift: float
) -> None:
    # `drift`: standard deviation of the changes of single prompts while their mean stays.
    random = np.random.default_rng(5)
    histories = 800
    seeds = 4
    ids = [str(p) for p in range(PROMPTS) for _ in range(seeds)]
    alarms = 0
    for _ in range(histories):
        own = random.normal(0, 1, (1, PROMPTS, 1)) + random.normal(0, drift, (points, PROMPTS, 1))
        scores = own + random.normal(0, 0.7, (points, PROMPTS, seeds))
        alarms += find_onset(scores.reshape(points, -1), ids).onset >= 0
    assert 0 < alarms / histories <= 0.07


def test_onset_of_a_real_fall_is_found_where_it_is() -> None:
    # Gains rise to 0.6 at the third checkpoint and fall to 0.1 at the fifth; one step of 0.25 is
    # often within the noise.
    random = np.random.default_rng(8)
    truth = np.array([0.0, 0.3, 0.5, 0.6, 0.35, 0.1, -0.2])
    seeds = 4
    ids = [str(p) for p in range(PROMPTS) for _ in range(seeds)]
    onsets = []
    bests = []
    for _ in range(300):
        scores = (
            truth[:, None, None]
            + random.normal(0, 1, (1, PROMPTS, 1))
            + random.normal(0, 0.7, (7, PROMPTS, seeds))
        )
        found = find_onset(scores.reshape(7, -1), ids)
        onsets.append(found.onset)
        bests.append(found.best)
    assert np.mean(np.isin(bests, [2, 3])) > 0.95
    assert np.mean(np.isin(onsets, [4, 5])) > 0.9
    assert min(onsets) >= 4  # never missed, never where the truth still rises
