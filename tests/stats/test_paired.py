"""Statistics against scipy, published examples, hand values and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from ddpo.errors import ConfigError
from ddpo.stats.bootstrap import percentile_interval, two_stage_means, two_stage_weights
from ddpo.stats.paired import (
    clustered_mean,
    cohen_d_z,
    holm,
    mean_over_runs,
    paired_gain,
    paired_gains,
    transfer_ratio,
    transfer_ratios,
    win_rate,
    within_prompt_sd,
)

# Hours of sleep gained by ten patients with two drugs (Student 1908).
# R prints for the paired test, in the help page of `t.test`:
# t = 4.0621, df = 9, p = 0.002833, mean 1.58, 95 % interval 0.7001142 to 2.4598858.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
PATIENTS = list("abcdefghij")


def test_one_value_per_cluster_is_the_t_interval_of_scipy() -> None:
    values = np.random.default_rng(0).normal(0.3, 2.0, 17)
    found = clustered_mean(values, range(17))
    expected = scipy_stats.ttest_1samp(values, 0.0)
    interval = expected.confidence_interval(0.95)
    assert found.se == pytest.approx(scipy_stats.sem(values), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-10)


def test_clustered_error_by_hand() -> None:
    # Clusters {1, 3} and {5, 7}: mean 4, sums of deviations -4 and +4, SE² = 2/1 · 32 / 16 = 4.
    found = clustered_mean([1, 3, 5, 7], ["a", "a", "b", "b"])
    assert (found.mean, found.se, found.n, found.clusters) == (4.0, 2.0, 4, 2)
    assert found.high == pytest.approx(
        4 + 2 * 12.706204736, rel=1e-9
    )  # t table: 12.706 with one degree of freedom


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
    base = random.normal(size=40)
    tuned = random.normal(size=40)
    ids = [str(i // 4) for i in range(40)]
    one = paired_gain(base, tuned, ids)
    other = paired_gain(tuned + 100, base + 100, ids)
    assert other.gain.mean == pytest.approx(-one.gain.mean)
    assert other.gain.se == pytest.approx(one.gain.se)
    assert other.wins.rate == pytest.approx(1 - one.wins.rate)


def test_student_sleep_data() -> None:
    found = paired_gain(SLEEP_1, SLEEP_2, PATIENTS)
    assert found.gain.mean == pytest.approx(1.58)
    assert (found.gain.low, found.gain.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert found.gain.p == pytest.approx(0.002833, abs=5e-7)
    assert found.d_z == pytest.approx(4.0621 / math.sqrt(10), abs=1e-4)  # d_z = t / √n
    assert (found.wins.rate, found.wins.ties) == (0.95, 1)


def test_bootstrap_interval_against_scipy() -> None:
    # With one image per prompt the second stage has no choice: the ordinary percentile bootstrap.
    d = np.subtract(SLEEP_2, SLEEP_1)
    expected = scipy_stats.bootstrap(
        (d,), np.mean, n_resamples=50_000, method="percentile", rng=np.random.default_rng(0)
    )
    interval = expected.confidence_interval
    found = percentile_interval(two_stage_means(d[:, None], PATIENTS, resamples=50_000)[:, 0])
    assert found == pytest.approx((interval.low, interval.high), abs=0.03)
    default = paired_gain(SLEEP_1, SLEEP_2, PATIENTS)
    assert (default.boot_low, default.boot_high) == pytest.approx(
        (interval.low, interval.high), abs=0.1
    )


def test_two_stage_draws_have_their_closed_form_variance() -> None:
    # A resampled prompt gives a mean with variance var(prompt means) + mean(variance within) / S.
    # P such means are averaged.
    values = np.random.default_rng(4).normal(size=(6, 5)) + np.arange(6)[:, None]
    ids = [f"prompt {i}" for i in range(6) for _ in range(5)]
    draws = two_stage_means(values.reshape(-1, 1), ids, resamples=60_000)[:, 0]
    assert draws.mean() == pytest.approx(values.mean(), abs=0.02)
    assert draws.var() == pytest.approx(
        (values.mean(1).var() + values.var(1).mean() / 5) / 6, rel=0.03
    )


def test_two_stage_weights_draw_whole_prompts_and_as_many_images_as_each_has() -> None:
    ids = list("abacaabbc")  # 4 × a, 3 × b, 2 × c, mixed
    for drawn in two_stage_weights(ids, resamples=500):
        per_prompt = np.stack(
            [drawn[:, [i for i, one in enumerate(ids) if one == name]].sum(1) for name in "abc"],
            axis=1,
        )
        times = per_prompt / np.array([4, 3, 2])
        assert (times == times.round()).all()
        assert (times.sum(1) == 3).all()
        assert drawn.max() > 3  # the most that an image could come if only prompts were drawn


def test_columns_are_judged_as_if_alone() -> None:
    random = np.random.default_rng(6)
    base = random.normal(size=(30, 3))
    tuned = random.normal(size=(30, 3))
    ids = [str(i // 3) for i in range(30)]
    tuned[:7, 1] = math.nan  # two prompts without a score, one with some
    together = paired_gains(base, tuned, ids)
    for column, found in enumerate(together):
        alone = paired_gain(base[:, column], tuned[:, column], ids)
        assert (found.gain, found.wins, found.d_z) == (alone.gain, alone.wins, alone.d_z)
        assert (found.boot_low, found.boot_high) == pytest.approx(
            (alone.boot_low, alone.boot_high), rel=1e-12
        )
    assert (together[1].gain.n, together[1].gain.clusters, together[1].gain.excluded) == (23, 8, 7)


def test_one_prompt_that_could_be_scored_has_no_interval() -> None:
    found = paired_gain([1.0, 2.0, 3.0], [2.0, 4.0, math.nan], ["a", "a", "b"])
    assert found.gain.mean == 1.5
    assert all(math.isnan(value) for value in (found.gain.low, found.boot_low, found.boot_high))


def test_mean_over_runs_is_the_t_interval_over_runs() -> None:
    found = mean_over_runs([1.0, 2.0, 4.5])
    expected = scipy_stats.ttest_1samp([1.0, 2.0, 4.5], 0.0).confidence_interval(0.95)
    assert (found.low, found.high, found.clusters) == pytest.approx(
        (expected.low, expected.high, 3)
    )


def test_spread_within_prompts_by_hand() -> None:
    # Deviations ±1 around 2, and 3, 0, -3 around 10: (2 + 18) / (1 + 2).
    # The single 7 and the NaN add nothing.
    found = within_prompt_sd([1, 3, 13, 10, 7, math.nan, 7], ["a", "a", "b", "b", "b", "a", "c"])
    assert found == pytest.approx(math.sqrt(20 / 3))
    assert math.isnan(within_prompt_sd([1.0, 2.0], ["a", "b"]))


# k of n and Wilson's interval, to four places: Newcombe 1998, Statistics in Medicine 17,
# table I, method 3.
@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_as_published(wins: int, n: int, low: float, high: float) -> None:
    found = win_rate([1.0] * wins + [-1.0] * (n - wins))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


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


def test_the_two_prompt_lists_are_resampled_independently() -> None:
    found = transfer_ratio(
        SLEEP_2, PATIENTS, SLEEP_2, PATIENTS
    )  # draws in step would give exactly 1 every time
    assert found.ratio == 1.0
    assert found.low < 0.6
    assert found.high > 1.6


def test_transfer_ratio_is_refused_in_words() -> None:
    ids = ["a", "b", "c", "d"]
    found = transfer_ratio([1.0, -1.0, 1.5, -1.5], ids, [1.0] * 4, ids)
    assert math.isnan(found.ratio)
    assert "covers 0" in found.reason
    assert "fewer than two" in transfer_ratio([1.0], ["a"], [1.0], ["a"]).reason


def test_transfer_ratio_of_uneven_prompts_uses_no_padding() -> None:
    # All seen gains are 2 and all held-out gains 1, with 3, 1 and 2 seeds: any use of padding (0)
    # would move the interval.
    found = transfer_ratio([2.0] * 6, list("aaabcc"), [1.0, math.nan, 1.0, 1.0], list("xxyz"))
    assert (found.ratio, found.low, found.high) == (0.5, 0.5, 0.5)


def test_generalisation_gap() -> None:
    # The gain on seen prompts covers 0, so there is no share, but the gap to the held-out prompts
    # is still known.
    random = np.random.default_rng(7)
    seen = random.normal(0.0, 1.0, 60)
    heldout = random.normal(-3.0, 1.0, 40)
    ids = [[str(i // 2) for i in range(n)] for n in (60, 40)]
    share, gap = transfer_ratios(seen[:, None], ids[0], heldout[:, None], ids[1])[0]
    assert math.isnan(share.ratio)
    assert gap.mean == pytest.approx(seen.mean() - heldout.mean())
    means = [seen.reshape(-1, 2).mean(1), heldout.reshape(-1, 2).mean(1)]
    welch = scipy_stats.ttest_ind(*means, equal_var=False).confidence_interval(0.95)
    assert (gap.low, gap.high) == pytest.approx(
        (welch.low, welch.high), abs=0.25
    )  # the two stages make it up to a fifth wider
    assert gap.low < welch.low
    assert gap.high > welch.high


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
