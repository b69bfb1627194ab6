"""Statistics against scipy, hand values and simulations with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from ddpo.errors import ConfigError
from ddpo.eval.stats import clustered_mean, cohen_d_z, holm, paired_gain, transfer_ratio, win_rate


def test_one_value_per_cluster_is_the_t_interval_of_scipy() -> None:
    values = np.random.default_rng(0).normal(0.3, 2.0, 17)
    found = clustered_mean(values, range(17))
    expected = scipy_stats.ttest_1samp(values, 0.0)
    interval = expected.confidence_interval(0.95)
    assert found.se == pytest.approx(scipy_stats.sem(values), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-10)


def test_clustered_error_by_hand() -> None:
    # Clusters {1, 3} and {5, 7}: mean 4, cluster sums of deviations -4 and +4, SE² = 2/1 · 32 / 16 = 4.
    found = clustered_mean([1, 3, 5, 7], ["a", "a", "b", "b"])
    assert (found.mean, found.se, found.n, found.clusters) == (4.0, 2.0, 4, 2)
    assert found.high == pytest.approx(4 + 2 * 12.706204736, rel=1e-9)  # t table: 12.706 with one degree of freedom


def test_unscorable_values_are_left_out_and_counted() -> None:
    found = clustered_mean([1, math.nan, 3, 5, 7], ["a", "a", "a", "b", "b"])
    assert (found.mean, found.se, found.n, found.excluded) == (4.0, 2.0, 4, 1)
    nothing = clustered_mean([math.nan], ["a"])
    assert (nothing.n, nothing.clusters, nothing.excluded) == (0, 0, 1)
    assert math.isnan(nothing.mean)
    assert nothing.covers_zero


def test_one_cluster_has_no_interval() -> None:
    found = clustered_mean([1.0, 2.0, 3.0], ["a"] * 3)
    assert found.mean == 2.0
    assert all(math.isnan(value) for value in (found.se, found.low, found.high, found.p))


def _simulate(runs: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Tuned - base for 24 prompts × 8 seeds: true gain 1, prompts' own gains sd 0.5, noise sd 0.7 in each of the two scores."""
    base, tuned = random.normal(0, 0.7, (2, runs, 24, 8))
    return 1.0 + random.normal(0, 0.5, (runs, 24, 1)) + tuned - base


def test_clustered_interval_covers_the_truth_and_the_naive_one_does_not() -> None:
    runs = 2000
    values = _simulate(runs, np.random.default_rng(1)).reshape(runs, -1)
    prompts = np.repeat(np.arange(24), 8)
    clustered = [clustered_mean(row, prompts) for row in values]
    coverage = np.mean([found.low <= 1.0 <= found.high for found in clustered])
    half = scipy_stats.t.ppf(0.975, 191) * scipy_stats.sem(values, axis=1)
    naive = np.mean(np.abs(values.mean(1) - 1.0) <= half)
    # The naive error takes (0.5² + 2·0.7²) / 192 for the variance; the true one is 0.5²/24 + 2·0.7²/192: it covers 79.2 %.
    expected = 2 * scipy_stats.norm.cdf(1.959964 * np.sqrt((0.25 + 0.98) / 192 / (0.25 / 24 + 0.98 / 192))) - 1
    assert 0.93 <= coverage <= 0.97
    assert expected == pytest.approx(0.79, abs=0.005)
    assert naive == pytest.approx(expected, abs=0.03)


def test_paired_gain_pairs() -> None:
    base = [1.0, 2.0, 3.0, 4.0, math.nan]
    tuned = [2.0, 2.0, 2.0, 8.0, 9.0]
    found = paired_gain(base, tuned, ["a", "a", "b", "b", "b"])
    assert (found.gain.mean, found.gain.excluded) == (1.0, 1)
    assert (found.base_mean, found.tuned_mean) == (2.5, 3.5)  # the unpaired 9.0 is in neither
    assert (found.wins.rate, found.wins.ties, found.wins.n) == (0.625, 1, 4)
    assert found.d_z == pytest.approx(1.0 / math.sqrt(0.5))  # prompt means 0.5 and 1.5


def test_gain_is_exact_under_a_shift_of_both_and_flips_sign_when_exchanged() -> None:
    random = np.random.default_rng(2)
    base, tuned, ids = random.normal(size=40), random.normal(size=40), [str(i // 4) for i in range(40)]
    one, other = paired_gain(base, tuned, ids), paired_gain(tuned + 100, base + 100, ids)
    assert other.gain.mean == pytest.approx(-one.gain.mean)
    assert other.gain.se == pytest.approx(one.gain.se)
    assert other.wins.rate == pytest.approx(1 - one.wins.rate)


def test_wilson_interval_against_scipy() -> None:
    found = win_rate([1.0] * 37 + [-1.0] * 13)
    expected = scipy_stats.binomtest(37, 50).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert win_rate([1.0] * 5).high == pytest.approx(1.0)
    assert math.isnan(win_rate([math.nan]).rate)


def test_cohen_without_spread() -> None:
    assert cohen_d_z([2.0, 2.0], ["a", "b"]) == math.inf
    assert cohen_d_z([0.0, 0.0], ["a", "b"]) == 0.0
    assert math.isnan(cohen_d_z([2.0, 2.0], ["a", "a"]))


def test_transfer_ratio_finds_the_true_share() -> None:
    random = np.random.default_rng(3)
    ids = [str(i) for i in range(40) for _ in range(4)]
    covered = 0
    for run in range(200):
        seen = np.repeat(random.normal(2.0, 0.5, 40), 4) + random.normal(0, 0.5, 160)
        other = np.repeat(random.normal(1.0, 0.5, 40), 4) + random.normal(0, 0.5, 160)
        found = transfer_ratio(seen, ids, other, ids, seed=run, resamples=500)
        covered += found.low <= 0.5 <= found.high
    assert 0.90 <= covered / 200 <= 1.0


def test_transfer_ratio_is_refused_in_words() -> None:
    ids = ["a", "b", "c", "d"]
    found = transfer_ratio([1.0, -1.0, 1.5, -1.5], ids, [1.0] * 4, ids)
    assert math.isnan(found.ratio)
    assert "covers 0" in found.reason
    assert "fewer than two" in transfer_ratio([1.0], ["a"], [1.0], ["a"]).reason


def test_transfer_ratio_of_uneven_prompts_uses_no_padding() -> None:
    # All seen gains are 2 and all held-out gains 1, with 3, 1 and 2 seeds: any use of padding (0) would move the interval.
    found = transfer_ratio([2.0] * 6, list("aaabcc"), [1.0, math.nan, 1.0, 1.0], list("xxyz"))
    assert (found.ratio, found.low, found.high) == (0.5, 0.5, 0.5)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03 times 3, 2, 1 = 0.03, 0.04, 0.03, made monotone: 0.03, 0.04, 0.04.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    with_gap = holm([0.02, math.nan])
    assert with_gap[0] == 0.02
    assert math.isnan(with_gap[1])
    assert holm([]) == []


def test_lengths_must_agree() -> None:
    with pytest.raises(ConfigError):
        clustered_mean([1.0, 2.0], ["a"])
    with pytest.raises(ConfigError):
        paired_gain([1.0], [1.0, 2.0], ["a"])
