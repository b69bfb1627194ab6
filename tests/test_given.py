"""Objects that a program hands over: what makes them another reward, and what does not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from ddpo.given import given, name_of


def origin(found: Any) -> str:
    return given(name_of(found).partition(":")[2])[1]


def scale(images: Any, factor: float = 1.0) -> list[float]:
    return [factor] * len(images)


def closed_over(factor: Any) -> Callable[[Any], list[float]]:
    def reward(images: Any) -> list[float]:
        return [factor] * len(images)

    return reward


class Scorer:
    def __init__(self, factor: Any) -> None:
        self.factor = factor

    def __call__(self, images: Any) -> list[float]:
        return [self.factor] * len(images)

    def score(self, images: Any) -> list[float]:
        return [self.factor] * len(images)


LAMBDAS = (lambda images: [1.0] * len(images), lambda images: [2.0] * len(images))


@pytest.mark.parametrize(
    "of",
    [
        closed_over,
        lambda factor: functools.partial(scale, factor=factor),
        lambda factor: functools.partial(functools.partial(scale), factor=factor),
        lambda factor: Scorer(factor),
        lambda factor: Scorer(factor).score,
        lambda factor: closed_over(closed_over(factor)),
        lambda factor: closed_over([1, {"a": factor}]),
        lambda factor: LAMBDAS[factor],
    ],
)
def test_other_values_are_another_reward(of: Callable[[int], Any]) -> None:
    assert origin(of(0)) == origin(of(0))
    assert origin(of(0)) != origin(of(1))


def test_a_partial_of_another_function_is_another_reward() -> None:
    assert origin(functools.partial(scale)) != origin(functools.partial(closed_over))


def test_an_object_without_a_stable_text_changes_nothing() -> None:
    """As a model that a run resumed in another process loads again."""
    assert origin(closed_over(object())) == origin(closed_over(object()))
    assert origin(Scorer(object())) == origin(Scorer(object()))


def test_circles_end() -> None:
    looped: list[Any] = []
    looped.append(looped)
    scorer = Scorer(looped)
    scorer.factor = [scorer, scorer.score, looped]
    assert origin(scorer) == origin(scorer)
