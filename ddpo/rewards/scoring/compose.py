"""Reward algebra: several rewards as one. The maths in pure functions, and the reward that applies them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddpo.rewards.card import RewardCard
from ddpo.rewards.scoring.resolve import ResolvedReward, WeightedReward
from ddpo.rewards.scoring.scorer import Scorer, make_scorer
from ddpo.rewards.spec import Bounds, Combination
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = ["ComposedReward", "clamped", "pareto_fronts", "pareto_rank", "standardised"]


def standardised(scores: Tensor, mean: float, sd: float) -> Tensor:
    """(score - mean) / sd: how many standard deviations of the reference distribution a score lies above its mean. Any shape."""
    return (scores - mean) / sd


def clamped(scores: Tensor, bounds: Bounds) -> Tensor:
    """`scores` with what lies beyond a bound put on it; no gradient comes from there. Any shape; NaN stays NaN."""
    low, high = bounds
    return scores.clamp(min=low, max=high)


def pareto_fronts(points: Tensor) -> Tensor:
    """The index of each point's front under non-dominated sorting, 0 for the points that none dominates. Larger is better.

    A point dominates another if it is nowhere less and somewhere more. Front k are the points that are dominated by none once the
    fronts before k are taken away; equal points are in one front.

    Args:
        points: `[count, objectives]`, finite.

    Returns:
        int64 `[count]`.

    Source: K. Deb, A. Pratap, S. Agarwal, T. Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE
        Transactions on Evolutionary Computation 6(2), 2002, section III-A, https://doi.org/10.1109/4235.996017.
    """
    no_less = (points[:, None] >= points[None]).all(-1)  # [i, j]: i is nowhere less than j
    dominates = no_less & ~no_less.T
    fronts = torch.full((len(points),), -1, dtype=torch.int64)
    left, index = torch.ones(len(points), dtype=torch.bool), 0
    while left.any():
        front = left & ~(dominates & left[:, None]).any(0)
        fronts[front] = index
        left &= ~front
        index += 1
    return fronts


def pareto_rank(points: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """Minus the front index of each picture among those of its prompt; NaN where a value is NaN, which takes no part in the ranking.

    Args:
        points: `[batch, objectives]`.
        prompts: one per picture.

    Returns:
        float64 `[batch]`: 0, -1, -2, …
    """
    ranks = torch.full((len(points),), torch.nan, dtype=torch.float64)
    groups: dict[str, list[int]] = {}
    for index, whole in enumerate((~points.isnan().any(-1)).tolist()):
        if whole:
            groups.setdefault(prompts[index].id, []).append(index)
    for members in groups.values():
        ranks[members] = 0.0 - pareto_fronts(points[members]).cpu().double()
    return ranks


class ComposedReward:
    """Several rewards as one: each part's score standardised, clamped and weighed, then summed, the least taken, or ranked.

    Each part has a scorer of its own, and parts that are one reward with other steps share it. `RewardOutput.parts` holds the native
    score of every part under its name, and a part's own parts as `name.part`. A picture that one part cannot score is unscorable.

    The Pareto rank compares the pictures of a prompt within one call: it has to be given whole groups.

    Args:
        card: of the combination.
        combination: how the parts become one number.
        parts: the rewards and their steps.
        scorer_of: makes the scorer of a part; a plain one by default.

    Raises:
        UserError: a part that cannot be made.
    """

    def __init__(
        self,
        card: RewardCard,
        combination: Combination,
        parts: Sequence[WeightedReward],
        scorer_of: Callable[[ResolvedReward], Scorer] | None = None,
    ) -> None:
        self.card, self.combination, self.parts = card, combination, tuple(parts)
        make = scorer_of or make_scorer
        self.scorers: dict[str, Scorer] = {}
        for part in self.parts:
            if part.name not in self.scorers:
                self.scorers[part.name] = make(part.reward)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; gradients flow to `batch.pixels` if every part is differentiable and the pixels ask for them."""
        outputs = {name: self._score(scorer, batch) for name, scorer in self.scorers.items()}
        points = torch.stack(
            [self._stepped(part, outputs[part.name].values) for part in self.parts], dim=-1
        )
        errors = tuple(
            _joined_errors({name: output.errors[i] for name, output in outputs.items()})
            for i in range(len(batch))
        )
        if self.combination == "pareto":
            values = pareto_rank(points, batch.prompts)
        else:
            values = points.sum(-1) if self.combination == "sum" else points.amin(-1)
        logged = {name: output.values for name, output in outputs.items()}
        logged |= {
            f"{name}.{inner}": value
            for name, output in outputs.items()
            for inner, value in output.parts.items()
        }
        return RewardOutput(
            values.float(),
            {name: value.detach().cpu().float() for name, value in logged.items()},
            errors,
        )

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
        return (
            scorer.reward(batch) if wants_gradient else scorer.score(batch)
        )  # a scorer takes no gradient

    @staticmethod
    def _stepped(part: WeightedReward, native: Tensor) -> Tensor:
        """z, clamp, weight, in float64. `[batch]`."""
        scores = native.cpu().double()
        if part.reference is not None:
            scores = standardised(scores, part.reference.mean, part.reference.sd)
        if part.bounds is not None:
            scores = clamped(scores, part.bounds)
        return scores * part.weight


def _joined_errors(errors: dict[str, str | None]) -> str | None:
    return (
        "; ".join(f"{name}: {error}" for name, error in errors.items() if error is not None) or None
    )
