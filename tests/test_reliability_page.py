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


def rows() -> list[list[str]]:
    block = PAGE.split(reliability_table.START)[1].split(reliability_table.END)[0]
    lines = [line for line in block.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_row_is_of_a_trial_that_is_there() -> None:
    assert rows()
    for promise, tried, tries, lost, command in rows():
        found = re.fullmatch(r"`python tools/torture (\w+)`", command)
        assert found, command
        module = ROOT / "tools" / "torture" / f"{found[1]}.py"
        assert "def run(" in module.read_text(encoding="utf-8")
        assert promise == reliability_table.promise(found[1])
        assert tried
        assert int(tries.replace(",", "")) > 0
        assert int(lost) <= int(tries.replace(",", ""))


def test_the_trials_of_this_page_are_in_the_table() -> None:
    assert {"kills", "pairs", "power_cuts"} <= {row[4].split()[-1].strip("`") for row in rows()}


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
    assert "| kills of training | 1,234 | 2 | `python tools/torture kills` |" in text
    assert "| power cuts | 5 | 0 | `python tools/torture power_cuts` |" in text
