"""Which rewards judge a model besides the one that it was trained on: independent witnesses, and statistics of pixels.

A witness is a learned model that shares neither backbone nor data with what was trained on: two rewards on one CLIP are fooled by the same
pictures. Statistics of pixels are no witnesses: they have no better and worse. They show what else changed, as artefacts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ddpo.rewards.card import RewardCard
from ddpo.rewards.tools.availability import availability
from ddpo.rewards.zoo import rewards

__all__ = ["HeldOut", "choose_artefacts", "choose_held_out", "shared_lineage"]

MOST: Final = 4  # held-out rewards by default
MOST_MEMORY_MB: Final = (
    8_000  # larger ones, 7B models, take hours on a processor: they are asked for by name
)
PIXELS: Final = "pixels"  # the family of statistics
MIRRORS: Final = ("compressibility", "incompressibility")
NO_WITNESSES: Final = (PIXELS, "guard", "group", "composed")  # families


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A reward that was chosen as an independent witness."""

    id: str
    reason: str  # why it is independent, in words


def shared_lineage(card: RewardCard, other: RewardCard) -> tuple[str, ...]:
    """What two rewards share: backbones, data or properties of pixels, in the first card's words. A variant counts as the same: "-336"."""
    return tuple(
        name for name in card.lineage if any(_akin(name, theirs) for theirs in other.lineage)
    )


def choose_held_out(
    trained: Sequence[RewardCard],
    candidates: Mapping[str, RewardCard] | None = None,
    available: Callable[[RewardCard], bool] | None = None,
    most: int = MOST,
) -> list[HeldOut]:
    """Independent rewards for a model that was trained on some, at most `most`, in a fixed order.

    A candidate is a learned reward that scores single pictures repeatably, without metadata and without a server, where more is better, of
    which everything is on this machine, and which says what it is built on. Those of another family than the trained ones come first, then
    those that see the prompt, then by id. None shares lineage with a trained one or with one chosen before.

    Args:
        trained: cards of the rewards that were trained on, or that are in the report anyway.
        candidates: id → card; all registered rewards if None.
        available: whether a reward could score now, offline; looked up if None.
        most: how many at most.
    """
    cards = rewards.available()[0] if candidates is None else candidates
    here = available or _here
    families = {card.family for card in trained}
    taken: list[RewardCard] = []
    order = sorted(
        cards.values(),
        key=lambda card: (card.family in families, "prompt" not in card.inputs, card.id),
    )
    for card in order:
        known = any(
            card.id == other.id or shared_lineage(card, other) or _same_tower(card, other)
            for other in (*trained, *taken)
        )
        if len(taken) < most and not known and _can_witness(card) and here(card):
            taken.append(card)
    return [HeldOut(card.id, _reason(card, trained)) for card in taken]


def choose_artefacts(
    trained: Sequence[RewardCard], candidates: Mapping[str, RewardCard] | None = None
) -> list[str]:
    """The ids of the statistics of pixels that are not in the report anyway, sorted; a part of a combination counts as in it.

    Of `compressibility` and `incompressibility`, each of which is the other's negative, one says all: none is taken if either is there.
    """
    cards = rewards.available()[0] if candidates is None else candidates
    known = {
        name for card in trained for name in re.findall(r"[a-z][a-z0-9_/]*", card.id)
    }  # of a combination, those of its parts
    known |= set(MIRRORS) if known & set(MIRRORS) else {MIRRORS[0]}
    return sorted(
        card.id for card in cards.values() if card.family == PIXELS and card.id not in known
    )


def _can_witness(card: RewardCard) -> bool:
    """Whether a reward is learned, says what it is built on, and can score any picture of a prompt here and again."""
    learned = card.family not in NO_WITNESSES and bool(card.weights and card.lineage)
    plain = set(card.inputs) <= {"image", "prompt"} and card.direction == "higher"
    return (
        learned
        and plain
        and card.deterministic
        and not card.calls.retries
        and card.memory_mb <= MOST_MEMORY_MB
    )


def _here(card: RewardCard) -> bool:
    return availability(card, rewards.origin(card.id)).complete


def _same_tower(card: RewardCard, other: RewardCard) -> bool:
    return bool(card.backbone) and card.backbone == other.backbone


def _akin(name: str, other: str) -> bool:
    return name == other or name.startswith(f"{other}-") or other.startswith(f"{name}-")


def _reason(card: RewardCard, trained: Sequence[RewardCard]) -> str:
    told = [f"{other.id} {_basis(other)}" for other in trained]
    return f"built on {', '.join(card.lineage)}" + (f"; {'; '.join(told)}" if told else "")


def _basis(card: RewardCard) -> str:
    if not card.lineage:
        return "does not say what it is built on"
    return f"{'measures' if card.family == PIXELS else 'is built on'} {', '.join(card.lineage)}"
