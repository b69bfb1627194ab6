"""Writes the tables of checks into the pages of the docs: `python tools/checks_table.py`.

Tests check that the pages are up to date.
"""

from __future__ import annotations

import re
from pathlib import Path

from ddpo.io.atomic import write_text
from ddpo.rewards.check.run import render_checks_markdown
from ddpo.trainer.check import render_checks_markdown as render_algorithm_checks

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {
    "checks.md": render_checks_markdown,
    "writing-an-algorithm.md": render_algorithm_checks,
}
BLOCK = re.compile(r"(<!-- checks:begin -->\n).*?(<!-- checks:end -->)", re.DOTALL)


if __name__ == "__main__":
    for name, render in PAGES.items():
        parts = BLOCK.split((DOCS / name).read_text(encoding="utf-8"))
        before, begin, end, after = parts
        write_text(DOCS / name, f"{before}{begin}{render().strip()}\n{end}{after}")
