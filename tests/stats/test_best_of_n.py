"""Best-of-n against brute force over all subsets, closed forms and quadrature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from scipy import integrate
from scipy import stats as scipy_stats

from ddpo.errors import ConfigError
from ddpo.stats.best_of_n import (
    against_best_of_n,
    best_of_n_curve,
    best_of_n_kl,
    expected_best,
    largest_n,
)


def _brute(selecting: Sequence[float], measured: Sequence[float], n: int) -> float:
    """The mean over every subset of the measured score of its best image, or of its tied ones."""
    found = []
    for subset in combinations(range(len(selecting)), n):
        top = max(selecting[i] for i in subset)
        found.append(np.mean([measured[i] for i in subset if selecting[i] == top]))
    return float(np.mean(found))


@pytest.mark.parametrize("n", range(1, 8))
@pytest.mark.parametrize(
    "selecting",
    [[3.0, 1.0, 4.0, 1.5, 9.0, 2.0, 6.0], [1.0, 2.0, 2.0, 1.0, 3.0, 2.0, 3.0], [5.0] * 7],
)
def test_expected_best_is_the_mean_over_all_subsets(selecting: list[float], n: int) -> None:
    measured = np.random.default_rng(n).normal(size=7).tolist()
    assert expected_best(selecting, measured, n) == pytest.approx(
        _brute(selecting, measured, n), rel=1e-12
    )
    assert expected_best(selecting, selecting, n) == pytest.approx(
        _brute(selecting, selecting, n), rel=1e-12
    )


def test_images_without_a_score_are_left_out() -> None:
    selecting = [1.0, math.nan, 3.0, 2.0, 9.0]
    measured = [10.0, 50.0, 30.0, 20.0, math.nan]
    assert expected_best(selecting, measured, 2) == pytest.approx(
        _brute([1.0, 3.0, 2.0], [10.0, 30.0, 20.0], 2)
    )
    assert math.isnan(expected_best(selecting, measured, 4))


@pytest.mark.parametrize("n", [1, 2, 10, 64])
def test_best_of_the_numbers_up_to_200(n: int) -> None:
    # The expected largest of n numbers without replacement from 1 … N is n (N + 1) / (n + 1).
    numbers = np.random.default_rng(0).permutation(np.arange(1.0, 201.0))
    assert expected_best(numbers, numbers, n) == pytest.approx(n * 201 / (n + 1), rel=1e-12)
    assert expected_best(numbers, -2 * numbers, n) == pytest.approx(
        -2 * n * 201 / (n + 1), rel=1e-12
    )


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_kl_is_that_of_the_density_of_the_largest(n: int) -> None:
    # In the base model's quantiles u the best of n has density n u^(n-1).
    exact = integrate.quad(lambda u: n * u ** (n - 1) * math.log(n * u ** (n - 1)), 0, 1)[0]
    assert best_of_n_kl(n) == pytest.approx(exact, abs=1e-7)


def test_kl_is_only_an_upper_bound_where_images_tie() -> None:
    # Two equally likely scores: the best of two is the better one with chance 3/4.
    exact = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert exact < best_of_n_kl(2) - 0.05


@pytest.mark.parametrize(("selecting", "n"), [([1.0, 2.0], 0), ([1.0, 2.0, 3.0], 1)])
def test_impossible_questions_are_refused(selecting: list[float], n: int) -> None:
    with pytest.raises(ConfigError):
        expected_best(selecting, [1.0, 2.0], n)


def _base(prompts: int, images: int, seed: int = 0) -> dict[str, dict[str, list[float]]]:
    """Standard normal scores around the prompt's mean.

    "other" has correlation 0.6 with "trained", "blind" has none.
    """
    random = np.random.default_rng(seed)
    found = {}
    for prompt in range(prompts):
        trained, free, blind = random.normal(size=(3, images))
        scores = {
            "trained": trained + 3 * prompt,
            "other": 0.6 * trained + 0.8 * free,
            "blind": blind,
        }
        found[f"prompt {prompt}"] = {reward: values.tolist() for reward, values in scores.items()}
    return found


def test_curve_gains_what_normal_order_statistics_say() -> None:
    curve = best_of_n_curve(
        _base(60, 32), "trained", ["trained", "other", "blind"], [8, 1, 4, 64], training_prompts=45
    )
    assert [(point.n, point.queries) for point in curve] == [(1, 45), (4, 180), (8, 360)]
    assert [point.kl for point in curve] == [best_of_n_kl(n) for n in (1, 4, 8)]
    assert all(gain.mean == pytest.approx(0.0, abs=1e-12) for gain in curve[0].gains.values())
    # Expected largest of 4 and of 8 standard normals: 1.02938 and 1.42360 (Harter 1961).
    for point, best in zip(curve[1:], (1.02938, 1.42360), strict=True):
        for reward, correlation in (("trained", 1.0), ("other", 0.6), ("blind", 0.0)):
            gain = point.gains[reward]
            assert gain.low < correlation * best < gain.high
            assert gain.clusters == 60
        assert point.gains["trained"].low > 0.9 * best


def test_unscorable_images_cost_prompts_and_not_the_curve() -> None:
    base = _base(20, 8)
    base["prompt 3"]["trained"][:5] = [math.nan] * 5
    base["prompt 4"]["trained"] = [math.nan] * 8
    assert largest_n(base, "trained") == 8
    best = best_of_n_curve(base, "trained", ["other"], [8], 20)[0].gains["other"]
    assert (best.n, best.excluded) == (18, 2)
    nothing = {"p": {"trained": [math.nan]}}
    assert largest_n(nothing, "trained") == 0
    assert best_of_n_curve(nothing, "trained", ["trained"], [1, 2], 1) == ()


def _gains(base: dict[str, dict[str, list[float]]], shift: float) -> dict[str, list[float]]:
    random = np.random.default_rng(9)
    return {prompt: (shift + random.normal(0, 0.3, 4)).tolist() for prompt in base}


@pytest.mark.parametrize(
    ("shift", "queries", "verdict"),
    [
        (3.0, 320, "yes"),  # best-of-8 of a normal gains 1.42
        (0.5, 320, "no"),
        (1.42, 320, "undecided"),
        (3.0, 3200, "undecided"),  # beats best-of-16, but its queries would have bought best-of-80
        (0.5, 3200, "no"),  # loses to best-of-16, all the more to best-of-80
        (3.0, -1, "undecided"),
    ],
)
def test_verdict_at_equal_reward_queries(shift: float, queries: int, verdict: str) -> None:
    base = _base(40, 16)
    text, found = against_best_of_n(_gains(base, shift), base, "trained", queries, 40)
    assert found == verdict
    assert ("best-of-80" in text) == (queries == 3200)
    assert ("best-of-8 " in text) == (queries == 320)


def test_verdict_says_both_numbers_and_their_difference_paired_by_prompt() -> None:
    # By hand: the best of two of 1, 2, 3 is (2 + 3 + 3) / 3 = 8/3 on average, 2/3 above the mean.
    # The run gains 1 and 3.
    base = {"a": {"r": [1.0, 2.0, 3.0]}, "b": {"r": [13.0, 11.0, 12.0]}}
    text, found = against_best_of_n(
        {"a": [1.0, math.nan], "b": [2.0, 4.0], "c": [7.0]}, base, "r", 5, 2
    )
    interval = scipy_stats.ttest_1samp([1 - 2 / 3, 3 - 2 / 3], 0.0).confidence_interval(0.95)
    assert text == (
        "The last checkpoint gains +2 by r, best-of-2 of the base model +1; "
        "the difference is +1 "  # the interval is 25 wide: ones
        f"(95 % interval −{-interval.low:.0f} to +{interval.high:.0f})."
    )
    assert found == "undecided"


def test_the_gain_of_more_images_is_estimated_for_normal_scores() -> None:
    base = {
        prompt: {"trained": [10 * x for x in scores["trained"]]}
        for prompt, scores in _base(200, 16).items()
    }
    text, _ = against_best_of_n(_gains(base, 30.0), base, "trained", 100 * 200, 200)
    stated = float(text.rsplit("about +", 1)[1].rstrip("."))
    assert stated == pytest.approx(
        25.0759, rel=0.03
    )  # ten times the expected largest of 100 standard normals (Harter 1961)


def test_no_verdict_without_images_to_choose_from() -> None:
    text, found = against_best_of_n({"a": [1.0]}, {"a": {"r": [1.0]}}, "r", 10, 1)
    assert found == "undecided"
    assert "Too few" in text
