"""The table of docs/reliability.md names trials that exist, with the promise of each."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import reliability_table

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def blocks() -> dict[str, tuple[str, list[list[str]]]]:
    """Trial → the promise above its table, and the cells of the table's rows."""
    text = PAGE.split(reliability_table.START)[1].split(reliability_table.END)[0]
    found = {}
    for block in text.split("\n**"):
        head, _, rest = block.strip().partition("\n\n")
        line = re.fullmatch(r"(?:\*\*)?(.+)\*\* \(`python tools/torture (\w+)`\)", head)
        assert line, head
        cells = [
            [cell.strip() for cell in row.strip("|").split("|")] for row in rest.splitlines()[2:]
        ]
        found[line[2]] = (line[1], cells)
    return found


def test_every_row_is_of_a_trial_that_is_there() -> None:
    for trial, (promise, rows) in blocks().items():
        module = ROOT / "tools" / "torture" / f"{trial}.py"
        assert "def run(" in module.read_text(encoding="utf-8")
        assert promise == reliability_table.promise(trial)
        assert rows
        for tried, tries, lost in rows:
            assert tried
            assert int(tries.replace(",", "")) > 0
            assert int(lost.replace(",", "")) <= int(tries.replace(",", ""))


def test_the_trials_of_this_page_are_in_the_table() -> None:
    assert {"kills", "pairs", "power_cuts"} <= set(blocks())


def test_rows_from_outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert importlib.util.find_spec("kills")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{reliability_table.START}old\n{reliability_table.END}after\n")
    monkeypatch.setattr(reliability_table, "PAGE", page)
    outcomes = [
        {"trial": "kills", "what": "kills of training", "tries": 1234, "faults": ["one", "two"]},
        {"trial": "power_cuts", "what": "power cuts", "tries": 5, "faults": []},
    ]
    (tmp_path / "one.json").write_text(json.dumps(outcomes[:1]))
    (tmp_path / "two.json").write_text(json.dumps(outcomes[1:]))
    reliability_table.main([str(tmp_path / "one.json"), str(tmp_path / "two.json")])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "with the same bytes** (`python tools/torture kills`)" in text
    assert "| kills of training | 1,234 | 2 |" in text
    assert "| power cuts | 5 | 0 |" in text
