"""Writes the table of checks into docs/checks.md: `python tools/checks_table.py`.

A test checks that the page is up to date.
"""

from __future__ import annotations

import re
from pathlib import Path

from ddpo.io.atomic import write_text
from ddpo.rewards.check.run import render_checks_markdown

PAGE = Path(__file__).parents[1] / "docs" / "checks.md"
BLOCK = re.compile(r"(<!-- checks:begin -->\n).*?(<!-- checks:end -->)", re.DOTALL)


if __name__ == "__main__":
    table = render_checks_markdown().strip()
    page = PAGE.read_text(encoding="utf-8")
    write_text(PAGE, BLOCK.sub(lambda found: f"{found[1]}{table}\n{found[2]}", page))
