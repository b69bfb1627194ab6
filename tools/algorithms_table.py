"""Writes the table of settings into docs/algorithms.md: `python tools/algorithms_table.py`.

A test checks that the table is fresh.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ddpo.io.atomic import write_text
from ddpo.trainer.algorithms import algorithms, load_algorithm

PAGE = Path(__file__).parents[1] / "docs" / "algorithms.md"
BLOCK = re.compile(r"(<!-- defaults:begin -->\n).*?(<!-- defaults:end -->)", re.DOTALL)


def table() -> str:
    """A table with a row per built-in algorithm that has settings of its own."""
    lines = ["| algorithm | settings |", "|---|---|"]
    for name in algorithms.names():
        settings = dict(_flat(load_algorithm(name)[0].defaults))
        if algorithms.origin(name) == "ddpo" and settings:
            shown = ", ".join(f"`{key}` {_cell(value)}" for key, value in settings.items())
            lines.append(f"| `{name}` | {shown} |")
    return "\n".join(lines)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, value


def _cell(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def with_table(text: str) -> str:
    """The text with a new table between the markers."""
    return BLOCK.sub(lambda found: f"{found[1]}{table()}\n{found[2]}", text)


if __name__ == "__main__":
    write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8")))
