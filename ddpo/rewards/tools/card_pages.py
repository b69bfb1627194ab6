"""Markdown of the cards: the tables of rewards in the docs, and a page for each reward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ddpo.rewards.card import RewardCard, WeightFile
from ddpo.rewards.cards import CARDS
from ddpo.rewards.cards.embedded import EMBEDDED_REWARDS, embedded_card, embedded_name
from ddpo.rewards.hub_cache import is_pinned

__all__ = [
    "render_card_markdown",
    "render_embedded_markdown",
    "render_facts_markdown",
    "render_table_markdown",
]


def render_table_markdown(cards: Iterable[RewardCard] | None = None) -> str:
    """A Markdown table for choosing a reward, one row per card; the built-in cards by default."""
    rows = [
        (
            f"`{card.id}`",
            card.summary,
            card.scale_text,
            card.needs_text,
            "yes" if card.differentiable else "no",
            card.flaws,
        )
        for card in _all(cards)
    ]
    return _markdown(
        ("reward", "measures", "scale", "needs", "differentiable", "known flaws"), rows
    )


def render_embedded_markdown() -> str:
    """A Markdown table of the embedded variants, one row per variant."""
    variants = {name: embedded_card(CARDS[name]) for name in EMBEDDED_REWARDS}
    rows = [
        (f"`{embedded_name(name)}`", card.summary, card.scale_text, card.flaws)
        for name, card in variants.items()
    ]
    return _markdown(("reward", "measures", "scale", "known flaws"), rows)


def render_facts_markdown(cards: Iterable[RewardCard] | None = None) -> str:
    """A Markdown table of scales, licences and sources, one row per card; as the table above."""
    rows = [
        (
            f"`{card.id}`",
            card.scale_text,
            " / ".join(f"{value:g}" for value in card.typical) if card.typical else "not measured",
            card.typical_source,
            ", ".join(
                dict.fromkeys([card.code_licence, *(weight.licence for weight in card.weights)])
            ),
            f"[source]({card.paper})" if card.paper else "",
        )
        for card in _all(cards)
    ]
    return _markdown(
        (
            "reward",
            "scale",
            "5 % / median / 95 %",
            "measured on",
            "licences of code, weights",
            "defined in",
        ),
        rows,
    )


PLAIN_RGB: Final = frozenset(
    ("aesthetic", "aesthetic_v1", "clip_score", "hpsv2", "imagereward", "pickscore")
)
"""Rewards whose originals open images with Pillow's `convert("RGB")`.

Sources: the transforms of openai/CLIP, open_clip and ImageReward; `convert_to_rgb` of transformers'
CLIP image processor.
"""

PLAIN_RGB_NOTE: Final = (
    'it opens images with `convert("RGB")`: transparency dropped without a background, EXIF '
    "orientation ignored, 16-bit greys clipped; "
    "the rules here are in [input-formats](../input-formats.md#pixels)"
)


def _revision(weight: WeightFile) -> str:
    return f"{weight.revision} ({'pinned' if is_pinned(weight) else 'floats'})"


def render_card_markdown(card: RewardCard) -> str:
    """The page of one reward: everything on its card, the most asked first."""
    parts = [
        f"# {card.id}\n\n{card.summary[0].upper()}{card.summary[1:]}.\n",
        f"**Known flaws:** {card.flaws}.\n",
        _markdown(("", ""), _facts(card)),
    ]
    if card.weights:
        weights = [
            (w.source, _revision(w), w.size, w.licence, w.sha256 or "none") for w in card.weights
        ]
        head = ("source", "revision", "size", "licence", "SHA-256")
        parts.append("## Weights\n\n" + _markdown(head, weights))
    if card.options:
        options = [
            (f"`{option.name}`", f"`{option.default}`", option.help) for option in card.options
        ]
        parts.append("## Options\n\n" + _markdown(("option", "default", "meaning"), options))
    if card.id in EMBEDDED_REWARDS:
        parts.append(_embedded_part(card))
    if card.golden:
        golden = [
            (one.fixture, f"{one.score:.9g} ± {one.tolerance:g}", one.source) for one in card.golden
        ]
        parts.append("## Known scores\n\n" + _markdown(("fixture", "score", "source"), golden))
    return "\n".join([*parts, "Generated from the card by `python tools/readme_table.py`.\n"])


def _embedded_part(card: RewardCard) -> str:
    """The section about the small variant that comes with the package."""
    small = embedded_card(card)
    judges = [weight.source.split("/")[-2] for weight in small.weights]
    cards = ", ".join(f"[{judge}](../../ddpo/rewards/judges/{judge}/README.md)" for judge in judges)
    facts = [
        ("measures", small.summary),
        ("known flaws", small.flaws),
        ("scale", small.scale_text),
        ("preprocessing", f"`{small.preprocessing}`"),
        ("lineage", ", ".join(small.lineage)),
        ("model cards", cards),
    ]
    title = f"## Embedded variant: `{embedded_name(card.id)}`"
    text = "Part of the package, for the embedded diffusion model: no download, no network."
    return f"{title}\n\n{text}\n\n" + _markdown(("", ""), facts)


def _facts(card: RewardCard) -> list[tuple[str, str]]:
    """Name and value of the facts on a page."""
    typical = "not measured"
    if card.typical is not None:
        values = " / ".join(f"{value:g}" for value in card.typical)
        typical = f"{values} ({card.typical_source})"
    preprocessing = card.preprocessing or "not stated"
    if not preprocessing.startswith(card.pixels):
        preprocessing = f"{card.pixels}; {preprocessing}"
    return [
        ("version", card.version),
        ("scale", card.scale_text),
        ("5 % / median / 95 %", typical),
        ("better", card.direction),
        ("judges", " + ".join(card.inputs)),
        ("needs", card.needs_text),
        ("preprocessing", f"`{preprocessing}`"),
        *([("the original differs", PLAIN_RGB_NOTE)] if card.id in PLAIN_RGB else []),
        ("computed in", f"{card.dtype}; about {card.memory_mb} MB"),
        ("differentiable", "yes" if card.differentiable else "no"),
        ("shares an encoder with", card.backbone or "none"),
        ("lineage", ", ".join(card.lineage) or "none"),
        ("licence of the code", card.code_licence),
        ("defined in", card.paper or "this project"),
    ]


def _all(cards: Iterable[RewardCard] | None) -> Iterable[RewardCard]:
    return CARDS.values() if cards is None else cards


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
