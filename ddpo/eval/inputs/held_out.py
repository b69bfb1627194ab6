"""The choice of held-out rewards, which are independent of the trained one, and pixel statistics.

A held-out reward is a learned model that shares neither backbone nor data with the trained reward:
the same images fool two rewards on one CLIP. Pixel statistics are no held-out rewards, since they
have no better or worse. They show side effects of training as artefacts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ddpo.rewards.card import RewardCard
from ddpo.rewards.cards import CARDS
from ddpo.rewards.cards.embedded import (
    EMBEDDED_REWARDS,
    embedded_card,
    embedded_name,
)
from ddpo.rewards.cards.scenes import READERS_OF_SCENES
from ddpo.rewards.lineage import related
from ddpo.rewards.tools.availability import availability
from ddpo.rewards.zoo import rewards

__all__ = [
    "HeldOut",
    "choose_artefacts",
    "choose_embedded",
    "choose_held_out",
]

MOST: Final = 4  # held-out rewards by default
MOST_MEMORY_MB: Final = 8_000  # 7B models take hours on a CPU; users may still name them
PIXELS: Final = "pixels"  # the family of statistics
MIRRORS: Final = ("compressibility", "incompressibility")
NOT_HELD_OUT: Final = (PIXELS, "guard", "group", "composed")  # families


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A reward that was chosen because it is independent of the trained ones."""

    id: str
    reason: str  # why it is independent, in words
    reward: str  # expression of the reward, such as "clip_score:model=emoji"


def choose_held_out(
    trained: Sequence[RewardCard],
    candidates: Mapping[str, RewardCard] | None = None,
    available: Callable[[RewardCard], bool] | None = None,
    most: int = MOST,
) -> list[HeldOut]:
    """Rewards that are independent of the trained ones, at most `most`, in a fixed order.

    A held-out reward is learned, states its lineage, and scores single images repeatably. It needs
    no metadata and no server, more of it is better, and all its files are on this machine. It
    shares lineage with no trained reward and with no reward chosen before it.

    Rewards of another family than the trained ones come first, then those that see the prompt,
    then by id. Readers of scenes score only prompts of the embedded world, so they judge runs that
    were trained on one of them.

    Args:
        trained: cards of the trained rewards, and of others that the report has anyway.
        candidates: name or expression → card; all registered rewards if None.
        available: predicate for a reward that can score offline now; looked up if None.
        most: largest number of rewards.
    """
    cards = rewards.available()[0] if candidates is None else candidates
    if not any(card.id in READERS_OF_SCENES for card in trained):
        cards = {name: card for name, card in cards.items() if card.id not in READERS_OF_SCENES}
    here = available or _here
    families = {card.family for card in trained}
    taken: dict[str, RewardCard] = {}
    order = sorted(
        cards.items(),
        key=lambda item: (item[1].family in families, "prompt" not in item[1].inputs, item[1].id),
    )
    for name, card in order:
        akin = any(
            card.id == other.id or related(card, other) for other in (*trained, *taken.values())
        )
        if len(taken) < most and not akin and _can_be_held_out(card) and here(card):
            taken[name] = card
    return [HeldOut(card.id, _reason(card, trained), name) for name, card in taken.items()]


def choose_embedded(trained: Sequence[RewardCard]) -> list[HeldOut]:
    """The embedded judges that are independent of the trained rewards, as `choose_held_out`.

    They know the world of the embedded diffusion model, of which they saw renderings and no
    samples. Captioner, CLIP and detector differ in architecture, task, augmentation and scenes.

    Raises:
        MissingResourceError: the installation lacks the judges.
    """
    judges = {embedded_name(id): embedded_card(CARDS[id]) for id in EMBEDDED_REWARDS}
    judges |= {name: CARDS[name] for name in READERS_OF_SCENES}
    return choose_held_out(trained, judges, lambda card: True)


def choose_artefacts(
    trained: Sequence[RewardCard], candidates: Mapping[str, RewardCard] | None = None
) -> list[str]:
    """Sorted ids of the pixel statistics that the report does not have yet.

    A part of a combination counts as in the report. `compressibility` and `incompressibility` are
    each other's negative, so at most one of them is taken.
    """
    cards = rewards.available()[0] if candidates is None else candidates
    known = {name for card in trained for name in re.findall(r"[a-z][a-z0-9_/]*", card.id)}
    known |= set(MIRRORS) if known & set(MIRRORS) else {MIRRORS[0]}
    return sorted(
        card.id for card in cards.values() if card.family == PIXELS and card.id not in known
    )


def _can_be_held_out(card: RewardCard) -> bool:
    """True for a learned reward of known lineage that scores any image of a prompt repeatably."""
    learned = card.family not in NOT_HELD_OUT and bool(card.weights and card.lineage)
    plain = set(card.inputs) <= {"image", "prompt"} and card.direction == "higher"
    local = not card.calls.retries and card.memory_mb <= MOST_MEMORY_MB
    return learned and plain and local and card.deterministic


def _here(card: RewardCard) -> bool:
    return availability(card, rewards.origin(card.id)).complete


def _reason(card: RewardCard, trained: Sequence[RewardCard]) -> str:
    bases = [f"built on {', '.join(card.lineage)}"]
    return "; ".join(bases + [f"{other.id} {_basis(other)}" for other in trained])


def _basis(card: RewardCard) -> str:
    if not card.lineage:
        return "does not state what it is built on"
    return f"{'measures' if card.family == PIXELS else 'is built on'} {', '.join(card.lineage)}"
