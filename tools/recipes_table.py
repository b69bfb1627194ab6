"""Writes the table of settings into docs/training-settings.md: `python tools/recipes_table.py`.

A test checks that the table is fresh.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpo.io.atomic import write_text
from ddpo.policies.family import FAMILIES
from ddpo.recipes import read_builtin
from ddpo.trainer.recipe import config_from_dict

PAGE = Path(__file__).parents[1] / "docs" / "training-settings.md"
BLOCK = re.compile(r"(<!-- families:begin -->\n).*?(<!-- families:end -->)", re.DOTALL)


def table() -> str:
    """A table with a row per setting that a family's recipe states, and a column per family."""
    columns = {family: _flat(_config(family)) for family in FAMILIES}
    stated = {name for family in FAMILIES for name in _flat(_plain(family))}
    names = [name for name in columns["emoji"] if name in stated]
    lines = [
        f"| setting | {' | '.join(f'`{family}`' for family in FAMILIES)} |",
        "|---" * (len(FAMILIES) + 1) + "|",
    ]
    for name in names:
        cells = " | ".join(_cell(columns[family][name]) for family in FAMILIES)
        lines.append(f"| `{name}` | {cells} |")
    return "\n".join(lines)


def _plain(family: str) -> dict[str, Any]:
    return {name: value for name, value in read_builtin(family).items() if name != "algorithms"}


def _config(family: str) -> dict[str, Any]:
    values = _plain(family)
    return config_from_dict({**values, "dtype": "float32"}).to_dict() | {"dtype": values["dtype"]}


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[above + name] = value
    return flat


def _cell(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def with_table(text: str) -> str:
    """The text with a new table between the markers."""
    return BLOCK.sub(lambda found: f"{found[1]}{table()}\n{found[2]}", text)


if __name__ == "__main__":
    write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8")))
