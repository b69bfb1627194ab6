"""State of each installed reward on this machine, found without importing or hashing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ddpo.errors import one_line
from ddpo.rewards.tools.availability import Availability, availability
from ddpo.rewards.zoo import rewards

__all__ = ["RewardState", "reward_states"]


@dataclass(frozen=True, slots=True)
class RewardState:
    """State of a reward, and the command that fetches its missing parts."""

    reward: str
    origin: str  # "ddpo", or distribution and version
    state: Literal["ready", "extra missing", "weights missing", "broken"]
    missing_mb: float = 0.0  # of weights to download
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def reward_states() -> Iterator[RewardState]:
    """The state of every registered reward; `ddpo rewards doctor` also loads their code."""
    cards, failures = rewards.available()
    for name, card in cards.items():
        origin = rewards.origin(name)
        yield _state(name, origin, availability(card, origin))
    for name, error in failures.items():
        yield RewardState(name, rewards.origin(name), "broken", remedy=one_line(error))


def _state(name: str, origin: str, found: Availability) -> RewardState:
    missing = sum(each.weight.megabytes for each in found.weights if each.path is None)
    if found.missing_libraries:
        return RewardState(name, origin, "extra missing", missing, found.install)
    if missing:
        command = f"ddpo rewards download {name}"
        return RewardState(name, origin, "weights missing", missing, command)
    return RewardState(name, origin, "ready")
