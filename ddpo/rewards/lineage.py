"""The backbones and data that rewards share: what fools one reward fools its relatives."""

from __future__ import annotations

from ddpo.rewards.card import RewardCard

__all__ = ["related", "shared_lineage"]


def shared_lineage(card: RewardCard, other: RewardCard) -> tuple[str, ...]:
    """The backbones, data or pixel properties that two rewards share, in the first card's words.

    A variant counts as the same, such as "openai/clip-vit-large-patch14-336".
    """
    return tuple(
        name for name in card.lineage if any(_akin(name, theirs) for theirs in other.lineage)
    )


def related(card: RewardCard, other: RewardCard) -> bool:
    """True for two rewards of one backbone or of shared lineage."""
    same_backbone = bool(card.backbone) and card.backbone == other.backbone
    return bool(shared_lineage(card, other)) or same_backbone


def _akin(name: str, other: str) -> bool:
    return name == other or name.startswith(f"{other}-") or other.startswith(f"{name}-")
