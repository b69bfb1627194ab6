"""Writes the table of rewards into README.md, from the cards: `python tools/readme_table.py`. A test checks that it is fresh."""

from __future__ import annotations

import re
from pathlib import Path

from ddpo.files import write_text
from ddpo.rewards.table import render_table_markdown

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"(<!-- rewards:begin -->\n).*?(<!-- rewards:end -->)", re.DOTALL)


def with_table(text: str) -> str:
    """`text` with the block between the two markers replaced."""
    return BLOCK.sub(lambda found: f"{found[1]}{render_table_markdown().strip()}\n{found[2]}", text)


if __name__ == "__main__":
    write_text(README, with_table(README.read_text(encoding="utf-8")))
