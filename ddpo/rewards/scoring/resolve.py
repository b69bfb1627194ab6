"""A reward that was found but not made yet: one of the zoo, or a combination of several. Nothing heavy is imported before `make`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ddpo.devices import AUTO, check_device, resolve_device
from ddpo.rewards.base import Reward
from ddpo.rewards.card import PLACEMENT, RewardCard
from ddpo.rewards.scoring.standardise import ScoreDistribution
from ddpo.rewards.scoring.user_reward import Factory, construct
from ddpo.rewards.signature import identity, signature
from ddpo.rewards.spec import Bounds, Combination
from ddpo.text import shortest_number
from ddpo.user_code import is_user_code

__all__ = ["ResolvedReward", "WeightedReward", "single_rewards"]


@dataclass(frozen=True, slots=True)
class ResolvedReward:
    """A reward that was found but not made yet."""

    card: RewardCard
    options: Mapping[str, Any]  # every option, the defaults too
    origin: str  # "ddpo", distribution and version, module, or file and hash
    factory: Factory | None  # None: what the card's `load` names
    combination: Combination | None = None  # of the parts; None: a reward of its own
    parts: tuple[WeightedReward, ...] = ()
    files: Mapping[str, str] = field(
        default_factory=dict
    )  # of a user's code: path relative to its folder → SHA-256, its own first

    @property
    def user_code(self) -> bool:
        """True for a user's file or module: more may move its scores than the files that are known."""
        return is_user_code(self.origin) or any(part.reward.user_code for part in self.parts)

    def make(self, scorer_of: Callable[[ResolvedReward], object] | None = None) -> Reward:
        """Loads and constructs it; raises as `construct`.

        Args:
            scorer_of: makes the scorer of each part of a combination, such as one with a cache; None for plain ones.
        """
        options = dict(self.options)
        for name in PLACEMENT:
            if options.get(name) == AUTO:
                options[name] = resolve_device(AUTO)
        if self.parts:
            options = {
                "card": self.card,
                "combination": self.combination,
                "parts": self.parts,
                "scorer_of": scorer_of,
            }
        elif self.origin == "ddpo" and "device" in options:
            check_device(options["device"])
        return construct(self.card, self.origin, options, self.factory)

    def on(self, device: str) -> ResolvedReward:
        """The reward on `device`, except for parts whose device was written by name."""
        options = {
            name: device if name in PLACEMENT and value == AUTO else value
            for name, value in self.options.items()
        }
        parts = tuple(replace(part, reward=part.reward.on(device)) for part in self.parts)
        return replace(self, options=options, parts=parts)

    def memory_mb(self, device: str) -> float:
        """Memory that it takes on a device, in 10⁶ bytes, by its card; 0 where it runs elsewhere."""
        if self.parts:
            return sum({part.name: part.reward.memory_mb(device) for part in self.parts}.values())
        place = "cpu" if self.card.device == "cpu" else str(self.options.get("device", device))
        return self.card.memory_mb if place in (device, AUTO) else 0

    @property
    def signature(self) -> str:
        """The line that fixes its scores."""
        return "|".join([signature(self.card, self.options, self.origin), *self._part_fields()])

    @property
    def identity(self) -> str:
        """What of the signature may move a score: its part of a cache key."""
        return "|".join([identity(self.card, self.options, self.origin), *self._part_fields()])

    def _part_fields(self) -> list[str]:
        """`part:name,version:…,card:…,options:…` of each; steps, weights, libraries and origins are in the main fields."""
        found = {}
        for part in self.parts:
            line = identity(part.reward.card, part.reward.options, part.reward.origin)
            fields = dict(field.split(":", 1) for field in line.split("|"))
            found[part.name] = f"part:{part.name}," + ",".join(
                f"{name}:{fields[name]}" for name in ("version", "card", "options")
            )
        return list(found.values())


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """One reward of a combination, with what is done to its score: standardise, clamp, weigh."""

    name: str  # under which its score is logged: its id, numbered if another reward of the combination has the same
    reward: ResolvedReward
    weight: float = 1.0
    reference: ScoreDistribution | None = None
    bounds: Bounds | None = None
    weighted: bool = False  # whether the weight was written, be it 1

    @property
    def steps(self) -> str:
        """All that is done to the score, in words: `0.2*compressibility.z[mean -74.3 sd 31.2].clamp[-3..3]`."""
        standardised = (
            ""
            if self.reference is None
            else f".z[mean {self.reference.mean!r} sd {self.reference.sd!r}]"
        )
        return f"{shortest_number(self.weight)}*{self.name}{standardised}" + (
            "" if self.bounds is None else f".clamp[{_range(self.bounds)}]"
        )

    @property
    def id(self) -> str:
        """A short form of `steps` in the letters of an id, such as `0.2compressibility.z.clamp-3..3`."""
        weight = (
            "" if self.weight == 1 else "-" if self.weight == -1 else shortest_number(self.weight)
        )
        standardised = "" if self.reference is None else ".z"
        return f"{weight}{self.name}{standardised}" + (
            "" if self.bounds is None else f".clamp{_range(self.bounds)}"
        )


def _range(bounds: Bounds) -> str:
    return "..".join("" if bound is None else shortest_number(bound) for bound in bounds)


def single_rewards(reward: ResolvedReward) -> Iterator[ResolvedReward]:
    """The rewards that a reward is made of; itself if it is no combination."""
    if not reward.parts:
        yield reward
    for part in reward.parts:
        yield from single_rewards(part.reward)
