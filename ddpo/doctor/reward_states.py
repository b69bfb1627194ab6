"""State of each installed reward on this machine, found without importing or hashing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ddpo.device_words import has_gpu_files
from ddpo.errors import one_line
from ddpo.rewards.card import RewardCard
from ddpo.rewards.cards.embedded import with_variant
from ddpo.rewards.tools.availability import availability
from ddpo.rewards.zoo import rewards

__all__ = ["RewardState", "State", "reward_state", "reward_states"]

State = Literal["ready", "extra missing", "weights missing", "needs a server", "broken"]
SERVER_OPTION: Final = "vlm"
"""Option of a reward that takes the address of a server in place of a model."""

MB: Final = 1e6


@dataclass(frozen=True, slots=True)
class RewardState:
    """State of a reward, and the command that fetches its missing parts."""

    reward: str
    origin: str  # "ddpo", or distribution and version
    state: State
    missing_mb: float = 0.0  # of weights to download
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def reward_states() -> Iterator[RewardState]:
    """The state of every registered reward and of each embedded variant, without their code."""
    cards, failures = rewards.available()
    for name, card in cards.items():
        origin = rewards.origin(name)
        for expression, variant in with_variant(card, origin).items():
            yield reward_state(expression, variant, origin)
    for name, error in failures.items():
        yield RewardState(name, rewards.origin(name), "broken", remedy=one_line(error))


def reward_state(name: str, card: RewardCard, origin: str) -> RewardState:
    """The state of one reward.

    A model that the memory of this machine cannot hold "needs a server", if the reward takes one.
    """
    found = availability(card, origin)
    missing = sum(each.weight.megabytes for each in found.weights if each.path is None)
    if found.missing_libraries:
        return RewardState(name, origin, "extra missing", missing, found.install)
    if _takes_a_server(card) and not _has_room(card):
        remedy = f"--reward {name}:{SERVER_OPTION}=http://HOST:PORT/v1"
        return RewardState(name, origin, "needs a server", missing, remedy)
    if missing:
        command = f"ddpo rewards download {name}"
        return RewardState(name, origin, "weights missing", missing, command)
    return RewardState(name, origin, "ready")


def _takes_a_server(card: RewardCard) -> bool:
    return any(option.name == SERVER_OPTION for option in card.options)


def _has_room(card: RewardCard) -> bool:
    """True if the model fits into the memory, or a GPU is there whose memory only torch knows."""
    if has_gpu_files("cuda") or not hasattr(os, "sysconf"):
        return True
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return True
    return card.memory_mb * MB <= memory
