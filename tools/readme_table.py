"""Writes the reward tables and pages from the cards: `python tools/readme_table.py`.

Each table replaces the text between `<!-- NAME:begin -->` and `<!-- NAME:end -->` in README.md and
docs/zoo.md. `chosen` holds the eight rewards of the README, `rewards` all rewards with their flaws,
`embedded` the variants by embedded judges, and `facts` scales and licences. A page for each reward
goes into docs/reward-cards/. A test checks that they are up to date.
"""

from __future__ import annotations

import re
from pathlib import Path

from ddpo.io.atomic import write_text
from ddpo.rewards.cards import CARDS
from ddpo.rewards.tools.card_pages import (
    render_card_markdown,
    render_embedded_markdown,
    render_facts_markdown,
    render_table_markdown,
)

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "README.md", ROOT / "docs" / "zoo.md")
CARD_PAGES = ROOT / "docs" / "reward-cards"
CHOSEN = (
    "compressibility",
    "colorfulness",
    "aesthetic",
    "alignment",
    "pickscore",
    "hpsv3",
    "vqa_score",
    "ocr",
)
"""Rewards of the README: two without weights, one of looks, two of preference, three of prompts."""


def render_chosen() -> str:
    """The README's table of eight rewards, with the first clause of each summary and flaw."""
    lines = ["| reward | measures | needs | first flaw |", "|---|---|---|---|"]
    for name in CHOSEN:
        card = CARDS[name]
        link = f"[`{name}`](docs/reward-cards/{name}.md)"
        cells = (link, first_clause(card.summary), card.needs_text, first_clause(card.flaws))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def first_clause(text: str) -> str:
    """The text before the first colon or semicolon."""
    return re.split("[:;]", text, maxsplit=1)[0]


TABLES = {
    "chosen": render_chosen,
    "rewards": render_table_markdown,
    "embedded": render_embedded_markdown,
    "facts": render_facts_markdown,
}
BLOCK = re.compile(r"(<!-- (\w+):begin -->\n).*?(<!-- \2:end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """A page with an up-to-date table between each pair of markers."""
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]().strip()}\n{found[3]}", text)


def card_pages() -> dict[str, str]:
    """File name → text of each page in docs/reward-cards."""
    return {f"{name}.md": render_card_markdown(card) for name, card in CARDS.items()}


if __name__ == "__main__":
    for name, page in card_pages().items():
        write_text(CARD_PAGES / name, page)
    for stale in {path.name for path in CARD_PAGES.iterdir()} - set(card_pages()):
        (CARD_PAGES / stale).unlink()
    for path in FILES:
        write_text(path, with_tables(path.read_text(encoding="utf-8")))
