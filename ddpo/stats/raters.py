"""Agreement of raters beyond chance: Cohen's kappa and Krippendorff's alpha, both nominal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from ddpo.errors import ConfigError

__all__ = ["cohen_kappa", "krippendorff_alpha"]


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """κ = (p_o - p_e) / (1 - p_e) of two raters; NaN where it is not defined.

    p_o is the share of units with equal categories. p_e = Σ_k p_k q_k is the share that two raters
    with the same frequencies p and q of categories would reach by chance. κ is not defined without
    a unit, and where both raters gave one and the same category throughout (p_e = 1).

    Args:
        first: category of each unit by one rater, `[units]`.
        second: category of each unit by the other, `[units]`.

    Raises:
        ConfigError: the lengths differ.

    Source: Cohen 1960.
    """
    n = len(first)
    if n != len(second):
        raise ConfigError(f"{n} categories were compared with {len(second)}")
    if not n:
        return math.nan
    observed = sum(one == other for one, other in zip(first, second, strict=True))
    ours = Counter(first)
    theirs = Counter(second)
    by_chance = sum(ours[category] * theirs[category] for category in ours)  # times n²
    if by_chance == n * n:
        return math.nan
    return (observed * n - by_chance) / (n * n - by_chance)


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float:
    """α = 1 - D_o / D_e of any number of raters; NaN where it is not defined.

    With n_uc raters of unit u that gave category c, m_u = Σ_c n_uc, n_c = Σ_u n_uc and n = Σ_c n_c,
    D_o = Σ_u Σ_{c≠k} n_uc n_uk / (m_u - 1) / n and D_e = Σ_{c≠k} n_c n_k / (n (n - 1)). Units with
    fewer than two ratings are left out. α is not defined where no unit is left or all ratings are
    one category (D_e = 0).

    Args:
        units: categories of each unit, one of each rater who rated it.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", nominal metric.
    """
    pairable = [Counter(unit) for unit in units if len(unit) > 1]
    totals: Counter[Hashable] = Counter()
    for unit in pairable:
        totals.update(unit)
    n = totals.total()
    expected = _unequal(totals)
    if not expected:
        return math.nan
    observed = sum(_unequal(unit) / (unit.total() - 1) for unit in pairable)
    return 1 - (n - 1) * observed / expected


def _unequal(counts: Counter[Hashable]) -> int:
    """The number of ordered pairs of ratings with unequal categories, Σ_{c≠k} n_c n_k."""
    total = counts.total()
    return total * total - sum(number * number for number in counts.values())
