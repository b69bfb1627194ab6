"""The tables of rewards in the README and in docs/rewards.md, from the cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ddpo.rewards.card import RewardCard
from ddpo.rewards.catalog import CARDS

__all__ = ["needs", "render_facts_markdown", "render_table_markdown", "scale"]


def scale(card: RewardCard) -> str:
    """Range and unit in words."""
    low, high = (f"{bound:g}" if bound is not None else "" for bound in card.range)
    bounds = f"{low or '−∞'} … {high or '∞'}" if low or high else ""
    return f"{bounds} ({card.unit})" if bounds and card.unit else bounds or card.unit or "not stated"


def needs(card: RewardCard) -> str:
    """What has to be there before it scores: prompts, weights with their size, an extra."""
    size = sum(weight.megabytes for weight in card.weights)
    size_text = f"{size / 1000:.1f} GB" if size >= 1000 else f"{size:.1f} MB"
    things = ["prompt"] if "prompt" in card.inputs else []
    things += [f"weights {size_text}"] if card.weights else []
    things += [f"extra [{card.extra}]"] if card.extra else []
    return ", ".join(things) or "nothing"


def render_table_markdown(cards: Iterable[RewardCard] | None = None) -> str:
    """A Markdown table with one row per card, the built-in ones by default: what to choose by."""
    rows = [
        (f"`{card.id}`", card.summary, scale(card), needs(card), "yes" if card.differentiable else "no", card.flaws) for card in _all(cards)
    ]
    return _markdown(("reward", "measures", "scale", "needs", "differentiable", "known flaws"), rows)


def render_facts_markdown(cards: Iterable[RewardCard] | None = None) -> str:
    """A Markdown table with one row per card, the built-in ones by default: scale, licences and source."""
    rows = [
        (
            f"`{card.id}`",
            scale(card),
            " / ".join(f"{value:g}" for value in card.typical) if card.typical else "not measured",
            card.typical_source,
            ", ".join(dict.fromkeys([card.code_licence, *(weight.licence for weight in card.weights)])),
            f"[source]({card.paper})" if card.paper else "",
        )
        for card in _all(cards)
    ]
    return _markdown(("reward", "scale", "5 % / median / 95 %", "measured on", "licences of code, weights", "defined in"), rows)


def _all(cards: Iterable[RewardCard] | None) -> Iterable[RewardCard]:
    return CARDS.values() if cards is None else cards


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
