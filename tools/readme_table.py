"""Writes the tables of rewards into README.md and docs/rewards.md, from the cards: `python tools/readme_table.py`.

The table to choose by goes between `<!-- rewards:begin -->` and `<!-- rewards:end -->`, that of scales and licences between
`facts:begin` and `facts:end`; and a page for each reward goes into docs/reward-cards/. A test checks that they are fresh.
"""

from __future__ import annotations

import re
from pathlib import Path

from ddpo.io.atomic import write_text
from ddpo.rewards.cards import CARDS
from ddpo.rewards.tools.card_pages import (
    render_card_markdown,
    render_facts_markdown,
    render_table_markdown,
)

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "README.md", ROOT / "docs" / "rewards.md")
CARD_PAGES = ROOT / "docs" / "reward-cards"
TABLES = {"rewards": render_table_markdown, "facts": render_facts_markdown}
BLOCK = re.compile(r"(<!-- (\w+):begin -->\n).*?(<!-- \2:end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """`text` with what is between each pair of markers replaced."""
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]().strip()}\n{found[3]}", text)


def card_pages() -> dict[str, str]:
    """Name → text of the pages of docs/reward-cards."""
    return {f"{name}.md": render_card_markdown(card) for name, card in CARDS.items()}


if __name__ == "__main__":
    for name, page in card_pages().items():
        write_text(CARD_PAGES / name, page)
    for stale in {path.name for path in CARD_PAGES.iterdir()} - set(card_pages()):
        (CARD_PAGES / stale).unlink()
    for path in FILES:
        write_text(path, with_tables(path.read_text(encoding="utf-8")))
