"""The door to all rewards: built in, of installed packages, of a user's file. Nothing heavy is imported before `make`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpo.errors import ConfigError
from ddpo.registry import Registry
from ddpo.rewards.base import Reward
from ddpo.rewards.card import RewardCard
from ddpo.rewards.catalog import CARDS
from ddpo.rewards.loading import Factory, adopt, construct, load_file, load_object
from ddpo.rewards.signature import identity, signature
from ddpo.rewards.spec import parse_spec, resolve_options

__all__ = ["ResolvedReward", "make_reward", "resolve", "resolve_card", "rewards"]


def _same_id(name: str, card: RewardCard) -> None:
    if card.id != name:
        raise ConfigError(f"its card has the id {card.id!r}")


rewards: Registry[RewardCard] = Registry("reward", "ddpo.rewards", RewardCard, CARDS, _same_id)


@dataclass(frozen=True, slots=True)
class ResolvedReward:
    """A reward that was found but not made yet."""

    card: RewardCard
    options: Mapping[str, Any]  # every option, the defaults too
    origin: str  # "ddpo", distribution and version, module, or file and hash
    factory: Factory | None  # None: what the card's `load` names

    def make(self) -> Reward:
        """Loads and constructs it; raises as `construct`."""
        return construct(self.card, self.origin, dict(self.options), self.factory)

    @property
    def signature(self) -> str:
        """The line that fixes its scores."""
        return signature(self.card, self.options, self.origin)

    @property
    def identity(self) -> str:
        """What of the signature may move a score: its part of a cache key."""
        return identity(self.card, self.options, self.origin)


def resolve(spec: str, **options: Any) -> ResolvedReward:
    """Finds the reward of a specification (see `ddpo.rewards.spec`); `options` win over those in the text.

    Raises:
        UnknownNameError: no reward of that name; says the nearest.
        RewardLoadError: the plug-in, file or object is broken or no reward.
        ConfigError: a malformed specification, an unknown option or a value of the wrong type.
    """
    parsed = parse_spec(spec)
    card: RewardCard
    factory: Factory | None
    if parsed.kind == "name":
        card, factory, origin = rewards.get(parsed.target), None, rewards.origin(parsed.target)
    else:
        found, origin = (
            load_file(Path(parsed.target), parsed.attribute) if parsed.kind == "file" else load_object(parsed.target, parsed.attribute)
        )
        card, factory = adopt(found, f"{parsed.target}:{parsed.attribute}", origin)
    return ResolvedReward(card, resolve_options(card.id, card.options, {**parsed.options, **options}), origin, factory)


def resolve_card(spec: str) -> RewardCard:
    """The card of a specification, without making the reward; raises as `resolve`."""
    return resolve(spec).card


def make_reward(spec: str, **options: Any) -> Reward:
    """The reward of a specification, ready to be called; raises as `resolve` and `construct`."""
    return resolve(spec, **options).make()
