"""Resolved rewards: found by name, file or URL, but not made yet. Nothing heavy is imported."""

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

__all__ = ["ResolvedReward", "single_rewards"]


@dataclass(frozen=True, slots=True)
class ResolvedReward:
    """A reward that was found but not made yet: a single one, a combination, or a part of one."""

    card: RewardCard
    options: Mapping[str, Any]  # all options, including defaults
    origin: str  # "ddpo", distribution and version, module, or file and hash
    factory: Factory | None  # None: the card's `load` is called
    combination: Combination | None = None  # of the parts; None for a single reward
    parts: tuple[ResolvedReward, ...] = ()
    # Files of a user's code, its own first: path relative to its folder → SHA-256.
    files: Mapping[str, str] = field(default_factory=dict)

    # Of a part: the name of its score, and the steps on it. An id that several parts share is
    # numbered.
    name: str = ""
    weight: float | None = None  # None: not written, which counts as 1
    reference: ScoreDistribution | None = None
    bounds: Bounds | None = None

    @property
    def user_code(self) -> bool:
        """True for a user's file or module, which may depend on more than the known files."""
        return is_user_code(self.origin) or any(part.user_code for part in self.parts)

    @property
    def steps(self) -> str:
        """The steps on a part's score, such as `0.2*darkness.z[mean -74.3 sd 3.2].clamp[-3..3]`."""
        text = f"{shortest_number(1.0 if self.weight is None else self.weight)}*{self.name}"
        if self.reference is not None:
            text += f".z[mean {self.reference.mean!r} sd {self.reference.sd!r}]"
        if self.bounds is not None:
            text += f".clamp[{bounds_text(self.bounds)}]"
        return text

    def make(self, scorer_of: Callable[[ResolvedReward], object] | None = None) -> Reward:
        """Loads and constructs the reward; raises as `construct`.

        Args:
            scorer_of: Function that makes the scorer of each part of a combination, such as one
                with a cache; None for plain scorers.
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
        """The reward on `device`, except for parts whose device was chosen by name."""
        options = {
            name: device if name in PLACEMENT and value == AUTO else value
            for name, value in self.options.items()
        }
        return replace(self, options=options, parts=tuple(part.on(device) for part in self.parts))

    def memory_mb(self, device: str) -> float:
        """Memory use on a device by the card, in 10⁶ bytes; 0 if the reward runs elsewhere."""
        if self.parts:
            return sum({part.name: part.memory_mb(device) for part in self.parts}.values())
        place = "cpu" if self.card.device == "cpu" else str(self.options.get("device", device))
        return self.card.memory_mb if place in (device, AUTO) else 0

    @property
    def signature(self) -> str:
        """The line that fixes the scores."""
        return "|".join([signature(self.card, self.options, self.origin), *self._part_fields()])

    @property
    def identity(self) -> str:
        """The fields of the signature that may change a score: the reward's part of a cache key."""
        return "|".join([identity(self.card, self.options, self.origin), *self._part_fields()])

    def _part_fields(self) -> list[str]:
        """`part:name,version:…,card:…,options:…` of each part.

        Steps, weights, libraries and origins are in the fields of the combination.
        """
        found = {}
        for part in self.parts:
            line = identity(part.card, part.options, part.origin)
            fields = dict(text.split(":", 1) for text in line.split("|"))
            facts = ",".join(f"{name}:{fields[name]}" for name in ("version", "card", "options"))
            found[part.name] = f"part:{part.name},{facts}"
        return list(found.values())


def bounds_text(bounds: Bounds) -> str:
    """Bounds as they are written in an expression, such as `-3..3` or `..5`."""
    return "..".join("" if bound is None else shortest_number(bound) for bound in bounds)


def single_rewards(reward: ResolvedReward) -> Iterator[ResolvedReward]:
    """The parts of a combination, or the reward itself if it is a single one."""
    if not reward.parts:
        yield reward
    for part in reward.parts:
        yield from single_rewards(part)
