"""The rewards of an evaluation: trained, requested and held-out ones, and pixel statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddpo.errors import ConfigError
from ddpo.eval.config import EvalConfig
from ddpo.eval.inputs.held_out import choose_artefacts, choose_held_out
from ddpo.rewards.zoo import ResolvedReward, resolve

__all__ = ["PlannedReward", "plan_rewards"]


@dataclass(frozen=True, slots=True)
class PlannedReward:
    """A reward of the evaluation and its role."""

    resolved: ResolvedReward
    role: str  # "trained", "heldout", "artefact" or "asked"
    why: str = ""  # of a held-out one: what makes it independent

    @property
    def id(self) -> str:
        """The id on its card."""
        return self.resolved.card.id


def plan_rewards(
    config: EvalConfig, trained: Sequence[ResolvedReward]
) -> tuple[PlannedReward, ...]:
    """The trained and requested rewards and, unless switched off, held-out ones and artefacts.

    Args:
        config: settings of the evaluation.
        trained: rewards that the models were trained on.

    Raises:
        ConfigError: no reward is known, a reward only judges groups, or two rewards share a name.
    """
    own = _of_single_images(trained)
    requested = _of_single_images([resolve(spec) for spec in config.rewards])
    _check_names([*own, *requested])
    found = {reward.card.id: PlannedReward(reward, "trained") for reward in own}
    for reward in requested:
        found.setdefault(reward.card.id, PlannedReward(reward, "asked"))
    if not found:
        raise ConfigError(
            "the checkpoint does not lie in a run folder, so its reward is not known: give --reward"
        )
    if config.held_out:
        cards = [one.resolved.card for one in found.values()]
        for choice in choose_held_out(cards):
            found.setdefault(choice.id, PlannedReward(resolve(choice.id), "heldout", choice.reason))
        for id in choose_artefacts(cards):
            found.setdefault(id, PlannedReward(resolve(id), "artefact"))
    return tuple(found.values())


def _of_single_images(found: Sequence[ResolvedReward]) -> tuple[ResolvedReward, ...]:
    """The rewards that judge single images; a group reward is replaced by such parts of it.

    Scores within a group mean nothing between two models.
    """
    singles = [reward for one in found for reward in _singles(one)]
    _check_names(singles)
    chosen = {reward.card.id: reward for reward in singles}
    if found and not chosen:
        names = ", ".join(repr(reward.card.id) for reward in found)
        raise ConfigError(
            f"reward {names} judges images as a group and cannot compare two models: give --reward"
        )
    return tuple(chosen.values())


def _check_names(found: Sequence[ResolvedReward]) -> None:
    """Refuses two rewards of user code with one name and different content."""
    seen: dict[str, ResolvedReward] = {}
    for reward in found:
        other = seen.setdefault(reward.card.id, reward)
        contents = {one.origin.rpartition("sha256:")[2] for one in (reward, other)}
        if (reward.user_code or other.user_code) and len(contents) > 1:
            raise ConfigError(
                f"two different rewards are called {reward.card.id!r}, "
                f"of {other.origin} and {reward.origin}: rename one"
            )


def _singles(reward: ResolvedReward) -> list[ResolvedReward]:
    if "group" not in reward.card.inputs:
        return [reward]
    return [single for part in reward.parts for single in _singles(part)]
