"""The tables of docs/geneval.md from rows of an evaluation, by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ddpo.eval.generate.samples import Row

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    import geneval

    yield geneval
    for name in ("geneval", "generalisation", "gains_figure", "evidence"):
        sys.modules.pop(name, None)


def rows(model: str, right: dict[str, tuple[float, ...]], reward: str) -> list[Row]:
    return [
        Row(model, "test", id, id, index, "", "", reward, "", value, {"right": value})
        for id, values in right.items()
        for index, value in enumerate(values)
    ]


BASE = {"p": (0.0, 0.0), "q": (1.0, 0.0), "r": (1.0, 1.0)}
TUNED = {"p": (1.0, 0.0), "q": (1.0, 1.0), "r": (1.0, 1.0)}
TAGS = {"p": "counting", "q": "counting", "r": "colors"}


def found(tool: Any, tuned: tuple[str, ...]) -> Any:
    every = []
    for reward in ("emoji_geneval", "emoji_detector"):
        every += rows("base", BASE, reward)
        for model in tuned:
            every += rows(model, TUNED, reward)
    every += [Row("base", "test", "p", "p", 2, "", "", "emoji_geneval", "", float("nan"), {})]
    every += rows("base", {"of another list": (1.0,)}, "emoji_geneval")
    every += rows("base", {"p": (1.0,)}, "aesthetic")
    return tool.rights(every, TAGS)


def test_shares_and_gains_by_category(tool: Any) -> None:
    one = found(tool, ("run-0",))
    assert tool.share(one["base", "emoji_geneval", "counting"]) == 0.25
    assert tool.share(one["run-0", "emoji_geneval", "counting"]) == 0.75
    assert tool.share(one["base", "emoji_detector", "all"]) == 0.5
    gain = tool.changes(one, ["run-0"], "emoji_geneval", "all")
    assert gain.mean == pytest.approx(1 / 3)
    assert gain.clusters == 3  # prompts


def test_with_several_seeds_the_interval_is_the_wider_one(tool: Any) -> None:
    """Equal seeds leave the spread over prompts; seeds that differ more than prompts, their own."""
    models = ["run-0", "run-1"]
    equal = tool.changes(found(tool, ("run-0", "run-1")), models, "emoji_detector", "all")
    assert (equal.mean, equal.clusters) == (pytest.approx(1 / 3), 3)
    assert equal.high > equal.low
    both = {"p": (0.0, 0.0), "q": (0.0, 0.0)}
    every = rows("base", both, "emoji_geneval")
    every += rows("run-0", {"p": (1.0, 1.0), "q": (1.0, 1.0)}, "emoji_geneval")
    every += rows("run-1", both, "emoji_geneval")
    apart = tool.changes(tool.rights(every, TAGS), models, "emoji_geneval", "all")
    assert (apart.mean, apart.clusters) == (0.5, 2)
    assert apart.high - apart.low == pytest.approx(2 * 12.706 * 0.5, rel=1e-3), "t of two runs"


def test_the_table_has_a_row_per_category_and_one_for_all(tool: Any) -> None:
    lines = tool.shares_table(found(tool, ("run-0",)), ["run-0"]).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| counting", "| colors", "| all"]
    assert lines[2].startswith("| counting | 2 | 25\N{NO-BREAK SPACE}% | 75\N{NO-BREAK SPACE}% |")
    assert lines[3].split(" | ")[1:4] == ["1", "100\N{NO-BREAK SPACE}%", "100\N{NO-BREAK SPACE}%"]
