"""Shares of choices and agreement of raters, against numbers by hand and published examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ddpo.errors import ConfigError
from ddpo.stats.raters import cohen_kappa, krippendorff_alpha
from ddpo.stats.win_rate import clustered_share


def test_the_share_and_its_interval_by_hand() -> None:
    """Four prompts with two choices each: 2, 2, 1 and ½ of 2 for the tuned image."""
    found = clustered_share([1, 1, 1, 1, 1, 0, 0.5, 0], ["a", "a", "b", "b", "c", "c", "d", "d"])
    assert found.mean == 5.5 / 8
    assert (found.n, found.clusters, found.excluded) == (8, 4, 0)
    # Two added prompts of two choices: sums 2, 2, 1, ½, 2, 0 of 12 choices, so the centre is
    # 7.5 / 12 = 0.625. Each prompt's sum minus 2 · 0.625 = 1.25: ¾, ¾, -¼, -¾, ¾, -1¼, whose
    # squares add up to 4 · 9/16 + 1/16 + 25/16 = 62/16 = 3.875.
    se = math.sqrt(6 / 5 * 3.875) / 12
    half = 2.570582 * se  # Student's t with 5 degrees of freedom, 97.5 %
    assert found.se == pytest.approx(se, rel=1e-12)
    assert found.low == pytest.approx(0.625 - half, abs=1e-6)
    assert found.high == pytest.approx(min(1, 0.625 + half), abs=1e-6)


@pytest.mark.parametrize(("prompts", "t"), [(2, 3.182446), (5, 2.446912), (12, 2.160369)])
def test_unanimous_choices_have_an_interval(prompts: int, t: float) -> None:
    """Its lower end is (C + 1 - t) / (C + 2), however many choices each prompt has."""
    for each in (1, 7):
        names = [number // each for number in range(prompts * each)]
        liked = clustered_share([1.0] * len(names), names)
        low = (prompts + 1 - t) / (prompts + 2)
        assert (liked.mean, liked.high) == (1, 1)
        assert liked.low == pytest.approx(max(0, low), abs=1e-6)
        disliked = clustered_share([0.0] * len(names), names)
        assert (disliked.mean, disliked.low) == (0, 0)
        assert disliked.high == pytest.approx(1 - liked.low, abs=1e-12)


def test_one_more_win_never_lowers_the_interval() -> None:
    names = [number // 4 for number in range(48)]
    lows = [clustered_share([1.0] * wins + [0.0] * (48 - wins), names).low for wins in range(49)]
    assert lows == sorted(lows)


def test_repeated_choices_of_a_prompt_are_no_further_evidence() -> None:
    once = clustered_share([1, 0, 1], ["a", "b", "c"])
    often = clustered_share([1, 0, 1] * 50, ["a", "b", "c"] * 50)
    assert (often.low, often.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_a_share_without_an_interval() -> None:
    one = clustered_share([1, 0, math.nan], ["a", "a", "b"])
    assert (one.mean, one.n, one.clusters, one.excluded) == (0.5, 2, 1, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    none = clustered_share([], [])
    assert none.n == 0
    assert math.isnan(none.mean)
    with pytest.raises(ConfigError, match="2 values came with 1 clusters"):
        clustered_share([1, 0], ["a"])


@pytest.mark.parametrize(("share", "spread"), [(0.5, 4.0), (0.8, 4.0), (0.9, 1.0)])
def test_the_interval_covers_the_share_of_dependent_choices(share: float, spread: float) -> None:
    """Beta-binomial choices: 20 prompts of 3, each with its own share."""
    random = np.random.default_rng(5)
    names = np.repeat(np.arange(20), 3).tolist()
    covered = 0
    for _ in range(600):
        shares = random.beta(share * spread, (1 - share) * spread, 20)
        found = clustered_share(random.random(60) < np.repeat(shares, 3), names)
        covered += found.low <= share <= found.high
    # 0.95 of 600, less three standard errors of a binomial
    assert covered >= stats.binom.mean(600, 0.95) - 3 * stats.binom.std(600, 0.95)


def test_kappa_by_hand() -> None:
    """20 times both yes, 5 and 10 times one of them, 15 times both no."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    # p_o = 35/50 = 0.7; p_e = 0.5 · 0.6 + 0.5 · 0.4 = 0.5
    assert cohen_kappa(first, second) == pytest.approx((0.7 - 0.5) / (1 - 0.5), rel=1e-12)


def test_kappa_is_not_defined_without_variety() -> None:
    assert math.isnan(cohen_kappa([], []))
    assert math.isnan(cohen_kappa(["a", "a"], ["a", "a"]))
    assert cohen_kappa(["a", "a"], ["b", "b"]) == 0  # p_o = p_e = 0
    assert cohen_kappa(["a", "b"], ["b", "a"]) == -1  # p_o = 0, p_e = ½
    with pytest.raises(ConfigError, match="1 categories were compared with 2"):
        cohen_kappa(["a"], ["a", "b"])


def units(*raters: str) -> list[list[str]]:
    """The ratings of each unit; "." stands for none."""
    return [[one for one in unit if one != "."] for unit in zip(*raters, strict=True)]


@pytest.mark.parametrize(
    ("raters", "alpha"),
    [
        (("0100000010", "1110010000"), 0.095),
        (("aabbdcccedda", "babbbccceddd"), 0.692),
        (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.743),
    ],
)
def test_alpha_of_the_published_examples(raters: tuple[str, ...], alpha: float) -> None:
    """Krippendorff 2011, sections A to C; B is also written out here.

    9 of 12 units agree. The 24 ratings are a 3 + 1, b 2 + 4, c 3 + 3, d 3 + 3, e 1 + 1. Ordered
    unequal pairs of the whole: 24² - (4² + 6² + 6² + 6² + 2²) = 448. Three units have 2 each.
    """
    found = krippendorff_alpha(units(*raters))
    assert round(found, 3) == alpha
    if alpha == 0.692:
        assert found == pytest.approx(1 - 23 * 6 / 448, rel=1e-12)


def test_alpha_is_not_defined_without_variety() -> None:
    assert math.isnan(krippendorff_alpha([]))
    assert math.isnan(krippendorff_alpha([["a"], ["b"]]))  # no unit has two ratings
    assert math.isnan(krippendorff_alpha([["a", "a"], ["a", "a"]]))
    assert krippendorff_alpha([["a", "a"], ["b", "b"]]) == 1
