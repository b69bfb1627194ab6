"""Which rewards judge: the trained ones, those that the user asked for, independent ones, and statistics of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddpo.errors import ConfigError
from ddpo.eval.held_out import choose_artefacts, choose_held_out
from ddpo.eval.request import Request
from ddpo.rewards.zoo import ResolvedReward, resolve

__all__ = ["PlannedReward", "plan_rewards"]


@dataclass(frozen=True, slots=True)
class PlannedReward:
    """A reward, why it is here, and whether it is made from the facts of a picture rather than by a scorer."""

    resolved: ResolvedReward
    role: str  # "trained", "heldout", "artefact" or "asked"
    why: str = ""  # of a held-out one: what makes it independent

    @property
    def id(self) -> str:
        """The id on its card."""
        return self.resolved.card.id


def plan_rewards(request: Request, trained: Sequence[ResolvedReward]) -> tuple[PlannedReward, ...]:
    """The trained rewards, those asked for, and, if wanted, independent ones and pixel statistics."""
    found = {reward.card.id: PlannedReward(reward, "trained") for reward in _of_single_pictures(trained)}
    for reward in _of_single_pictures([resolve(spec) for spec in request.rewards]):
        found.setdefault(reward.card.id, PlannedReward(reward, "asked"))
    if not found:
        raise ConfigError("the checkpoint does not lie in a run folder, so its reward is not known: give --reward")
    if request.held_out:
        cards = [one.resolved.card for one in found.values()]
        for choice in choose_held_out(cards):
            found.setdefault(choice.id, PlannedReward(resolve(choice.id), "heldout", choice.reason))
        for id in choose_artefacts(cards):
            found.setdefault(id, PlannedReward(resolve(id), "artefact"))
    return tuple(found.values())


def _of_single_pictures(found: Sequence[ResolvedReward]) -> tuple[ResolvedReward, ...]:
    """The rewards; in place of one that judges a group, whose scores mean nothing between two models, its parts that judge pictures."""
    chosen = {reward.card.id: reward for one in found for reward in _singles(one)}
    if found and not chosen:
        names = ", ".join(repr(reward.card.id) for reward in found)
        raise ConfigError(f"reward {names} judges pictures as a group and cannot compare two models: give --reward")
    return tuple(chosen.values())


def _singles(reward: ResolvedReward) -> list[ResolvedReward]:
    if "group" not in reward.card.inputs:
        return [reward]
    return [single for part in reward.parts for single in _singles(part.reward)]
