"""Pairwise accuracy against human choices, by the named conventions of the field for ties.

A choice is 1 where people preferred the first image, 0 for the second, and 0.5 for a tie. A
difference is the score of the first image minus the second. The credit of a pair is 0 … 1, or NaN
where the convention leaves the pair out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ddpo.stats.bootstrap import mean_interval

__all__ = [
    "CONVENTIONS",
    "Accuracy",
    "Convention",
    "best_threshold",
    "cross_fitted",
    "pairwise_accuracy",
    "prompt_folds",
]

FOLDS: Final = 5

Floats = NDArray[np.float64]
Credit = Callable[[Floats, Floats, Floats], Floats]
"""Choices, differences, and tie threshold of each pair → credit of each pair."""


@dataclass(frozen=True, slots=True)
class Convention:
    """A rule for pairs where people, the scores, or both are tied."""

    name: str
    rule: str
    source: str
    credit: Credit
    threshold: bool = False  # whether a small difference of scores counts as a tie
    per_prompt: bool = False  # whether the mean is over prompts rather than pairs


def imagereward(choices: Floats, differences: Floats, thresholds: Floats) -> Floats:
    """1 where the preferred image scores strictly higher."""
    credit: Floats = (np.sign(differences) == _sides(choices)).astype(np.float64)
    credit[choices == 0.5] = math.nan
    return credit


def hpsv2(choices: Floats, differences: Floats, thresholds: Floats) -> Floats:
    """0 where the scores are strictly opposed to people, otherwise 1."""
    credit: Floats = (np.sign(differences) * _sides(choices) >= 0).astype(np.float64)
    return credit


def pickapic(choices: Floats, differences: Floats, thresholds: Floats) -> Floats:
    """1 where the prediction is the choice, ½ where only one of them is a tie."""
    credit: Floats = 1 - np.abs(_predicted(differences, thresholds) - _sides(choices)) / 2
    return credit


def acc_eq(choices: Floats, differences: Floats, thresholds: Floats) -> Floats:
    """1 where the prediction is the choice, ties included."""
    credit: Floats = (_predicted(differences, thresholds) == _sides(choices)).astype(np.float64)
    return credit


def _sides(choices: Floats) -> Floats:
    """+1 first, −1 second, 0 tie."""
    return 2 * choices - 1


def _predicted(differences: Floats, thresholds: Floats) -> Floats:
    return np.where(np.abs(differences) <= thresholds, 0.0, np.sign(differences))


CONVENTIONS: Final[Mapping[str, Convention]] = {
    one.name: one
    for one in (
        Convention(
            "imagereward",
            "pairs that people tied are left out; equal scores are wrong",
            "test.py of THUDM/ImageReward; arXiv 2304.05977",
            imagereward,
        ),
        Convention(
            "hpsv2",
            "wrong only if scores and people are strictly opposed; mean of the prompts' means",
            "inversion_score of tgxs002/HPSv2; arXiv 2306.09341",
            hpsv2,
            per_prompt=True,
        ),
        Convention(
            "pickapic",
            "scores nearer than a threshold are a tie; half a point if only people or only the "
            "scores tie",
            "eval_preference_predictor.py of yuvalkirstain/PickScore; arXiv 2305.01569",
            pickapic,
            threshold=True,
        ),
        Convention(
            "acc_eq",
            "scores nearer than a threshold are a tie; right only if people tie exactly where "
            "the scores do",
            "Deutsch, Foster & Freitag 2023, arXiv 2305.14324",
            acc_eq,
            threshold=True,
        ),
    )
}
"""The three of text-to-image rewards, and the tie-calibrated accuracy of machine translation."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Pairwise accuracy by one convention, with a 95 % bootstrap interval over prompts."""

    value: float
    low: float
    high: float
    n: int  # pairs that count
    threshold: float  # median over folds; NaN where the convention has none


def pairwise_accuracy(
    convention: Convention, choices: Floats, differences: Floats, prompts: Sequence[Hashable]
) -> Accuracy:
    """The accuracy by `convention`; the tie threshold of a pair is chosen on other prompts.

    Args:
        convention: one of `CONVENTIONS`.
        choices: 1, 0 or 0.5, `[pairs]`.
        differences: score of the first image minus the second, `[pairs]`.
        prompts: prompt of each pair, `[pairs]`.
    """
    unknown = Accuracy(math.nan, math.nan, math.nan, 0, math.nan)
    thresholds = np.full(len(choices), math.nan)
    if convention.threshold:
        thresholds = cross_fitted(
            lambda kept: best_threshold(convention.credit, choices[kept], differences[kept]),
            prompts,
        )
        if np.isnan(thresholds).any():
            return unknown  # with one prompt, there are no others to choose it on
    credit = convention.credit(choices, differences, thresholds)
    counted = np.flatnonzero(~np.isnan(credit)).tolist()
    values = credit[counted]
    labels = [prompts[index] for index in counted]
    if not len(values):
        return unknown
    if convention.per_prompt:
        values, labels = _prompt_means(values, labels)
    middle = float(np.median(thresholds)) if convention.threshold else math.nan
    return Accuracy(float(values.mean()), *mean_interval(values, labels), len(counted), middle)


def _prompt_means(values: Floats, prompts: Sequence[Hashable]) -> tuple[Floats, list[Hashable]]:
    groups: dict[Hashable, list[float]] = {}
    for value, prompt in zip(values.tolist(), prompts, strict=True):
        groups.setdefault(prompt, []).append(value)
    return np.array([np.mean(group) for group in groups.values()], dtype=np.float64), list(groups)


def best_threshold(credit: Credit, choices: Floats, differences: Floats) -> float:
    """The smallest tie threshold of the largest mean credit, among 0 and all |differences|.

    A step of the threshold past one |difference| changes the credit of that pair only. So one sort
    and one running sum try all thresholds.
    """
    sizes = np.abs(differences)
    order = np.argsort(sizes, kind="stable")
    as_tie = credit(choices, differences, np.full(len(sizes), math.inf))
    as_scored = credit(choices, differences, np.full(len(sizes), -math.inf))
    gains = np.concatenate([[0.0], np.cumsum((as_tie - as_scored)[order])])
    candidates = np.concatenate([[0.0], sizes[order]])
    reached = np.searchsorted(sizes[order], candidates, side="right")
    return float(candidates[np.argmax(gains[reached])]) if len(sizes) else math.nan


def prompt_folds(prompts: Sequence[Hashable], folds: int = FOLDS) -> NDArray[np.int64]:
    """The fold of each pair; all pairs of a prompt are in one fold."""
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    return np.array([numbers[prompt] % folds for prompt in prompts], dtype=np.int64)


def cross_fitted(fit: Callable[[NDArray[np.bool_]], float], prompts: Sequence[Hashable]) -> Floats:
    """The value for each pair that `fit` gives on the other folds, `[pairs]`; NaN without others.

    Args:
        fit: function of the pairs to use, bool `[pairs]`.
        prompts: prompt of each pair.
    """
    fold = prompt_folds(prompts)
    found = np.full(len(fold), math.nan)
    for number in np.unique(fold):
        others = fold != number
        if others.any():
            found[~others] = fit(others)
    return found
