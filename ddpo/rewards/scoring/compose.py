"""Reward algebra: several rewards combined into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddpo.rewards.card import RewardCard
from ddpo.rewards.groups import group_places
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.scoring.scorer import Scorer, make_scorer
from ddpo.rewards.spec import Bounds, Combination
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = [
    "ComposedReward",
    "clamped",
    "pareto_fronts",
    "pareto_rank",
    "standardised",
    "without_weight",
]


def standardised(scores: Tensor, mean: float, sd: float) -> Tensor:
    """(score - mean) / sd, in standard deviations of the reference distribution. Any shape."""
    return (scores - mean) / sd


def clamped(scores: Tensor, bounds: Bounds) -> Tensor:
    """The scores limited to bounds, beyond which the gradient is 0. Any shape; NaN stays NaN."""
    low, high = bounds
    return scores.clamp(min=low, max=high)


def pareto_fronts(points: Tensor) -> Tensor:
    """The index of each point's front under non-dominated sorting; larger values are better.

    A point dominates another if it is nowhere less and somewhere more. Front 0 are the points that
    none dominates, front k those that none dominates once the fronts before k are removed. Equal
    points share a front.

    Args:
        points: Finite values `[count, objectives]`.

    Returns:
        int64 `[count]`.

    Source: K. Deb, A. Pratap, S. Agarwal, T. Meyarivan, "A fast and elitist multiobjective genetic
        algorithm: NSGA-II", IEEE Transactions on Evolutionary Computation 6(2), 2002, section
        III-A, https://doi.org/10.1109/4235.996017.
    """
    no_less = (points[:, None] >= points[None]).all(-1)  # [i, j]: i is nowhere less than j
    dominates = no_less & ~no_less.T
    fronts = torch.full((len(points),), -1, dtype=torch.int64)
    left = torch.ones(len(points), dtype=torch.bool)
    index = 0
    while left.any():
        front = left & ~(dominates & left[:, None]).any(0)
        fronts[front] = index
        left &= ~front
        index += 1
    return fronts


def pareto_rank(points: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """Minus the front index of each image among those of its prompt.

    An image with a NaN takes no part in the ranking and has the rank NaN.

    Args:
        points: Values `[batch, objectives]`.
        prompts: One prompt per image.

    Returns:
        float64 `[batch]`: 0, -1, -2, …
    """
    ranks = torch.full((len(points),), torch.nan, dtype=torch.float64)
    ranked = ~points.isnan().any(-1)
    for places in group_places(prompts):
        members = [place for place in places if ranked[place]]
        if members:
            ranks[members] = 0.0 - pareto_fronts(points[members]).cpu().double()
    return ranks


class ComposedReward:
    """Several rewards as one: scores are standardised, clamped, weighted and then combined.

    Each part has its own scorer; parts that differ only in their steps share it.
    `RewardOutput.parts` holds the native score of every part under its name, and a part's own
    parts as `name.part`. An image that one part cannot score is unscorable.

    The Pareto rank compares the images of a prompt within one call, which must hold whole groups.

    Args:
        card: Card of the combination.
        combination: Rule that combines the scores.
        parts: Parts with their steps.
        scorer_of: Function that makes the scorer of a part; by default a plain scorer.

    Raises:
        UserError: A part cannot be made.
    """

    def __init__(
        self,
        card: RewardCard,
        combination: Combination,
        parts: Sequence[ResolvedReward],
        scorer_of: Callable[[ResolvedReward], Scorer] | None = None,
    ) -> None:
        self.card = card
        self.combination = combination
        self.parts = tuple(parts)
        make = scorer_of or make_scorer
        self.scorers: dict[str, Scorer] = {}
        for part in self.parts:
            if part.name not in self.scorers:
                self.scorers[part.name] = make(part)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`, with gradients to its pixels if every part is differentiable."""
        outputs = {name: self._score(scorer, batch) for name, scorer in self.scorers.items()}
        columns = [_after_steps(part, outputs[part.name].values) for part in self.parts]
        points = torch.stack(columns, dim=-1)
        if self.combination == "pareto":
            values = pareto_rank(points, batch.prompts)
        else:
            values = points.sum(-1) if self.combination == "sum" else points.amin(-1)
        logged = {name: output.values for name, output in outputs.items()}
        for name, output in outputs.items():
            logged |= {f"{name}.{inner}": value for inner, value in output.parts.items()}
        parts = {name: value.detach().cpu().float() for name, value in logged.items()}
        errors = (
            _joined_errors({name: output.errors[i] for name, output in outputs.items()})
            for i in range(len(batch))
        )
        return RewardOutput(values.float(), parts, tuple(errors))

    def close(self) -> None:
        """Ends the threads of the parts' scorers."""
        for scorer in self.scorers.values():
            scorer.close()

    def _score(self, scorer: Scorer, batch: ImageBatch) -> RewardOutput:
        wants_gradient = (
            self.card.differentiable
            and torch.is_grad_enabled()
            and not batch.from_bytes
            and batch.pixels.requires_grad
        )
        if wants_gradient:  # which a scorer does not compute
            return scorer.reward(batch)
        return scorer.score(batch)


def without_weight(part: ResolvedReward, native: Tensor) -> Tensor:
    """The scores of a part after z and clamp, before its weight, in float64. `[batch]`."""
    scores = native.cpu().double()
    if part.reference is not None:
        scores = standardised(scores, part.reference.mean, part.reference.sd)
    if part.bounds is not None:
        scores = clamped(scores, part.bounds)
    return scores


def _after_steps(part: ResolvedReward, native: Tensor) -> Tensor:
    """The scores of a part after z, clamp and weight, in float64. `[batch]`."""
    scores = without_weight(part, native)
    return scores if part.weight is None else scores * part.weight


def _joined_errors(errors: dict[str, str | None]) -> str | None:
    found = [f"{name}: {error}" for name, error in errors.items() if error is not None]
    return "; ".join(found) or None
