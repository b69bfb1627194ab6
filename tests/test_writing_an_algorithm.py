"""The page is true: its algorithm trains by the page's commands, its tests pass."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "writing-an-algorithm.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files."""
    for source in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / source.splitlines()[0].removeprefix("# ")).write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_commands_run(folder: Path, ddpo: Run) -> None:
    assert len(COMMANDS) == 2
    for command in COMMANDS:
        code, _, error = ddpo(*shlex.split(command)[1:])
        assert code == 0, error
    lines = [
        json.loads(line)
        for line in (folder / "runs" / "cispo" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["ratio_first_deviation"] for line in lines] == [0.0, 0.0, 0.0]
    assert all(line["ratio_mean_deviation"] > 0 for line in lines)
    assert (
        json.loads((folder / "runs" / "cispo" / "config.json").read_text())["optim"]["clip_range"]
        == 5e-3
    )


def test_the_tests_of_the_page_pass_and_there_are_some(folder: Path) -> None:
    tests = importlib.import_module("test_my_cispo")
    names = [name for name in vars(tests) if name.startswith("test_")]
    assert len(names) == 2
    for name in names:
        getattr(tests, name)()
    for name in ("test_my_cispo", "my_cispo"):
        del sys.modules[name]


def test_the_entry_points_have_the_groups_of_the_test_package() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    project = (ROOT / "tests" / "plugin_package" / "pyproject.toml").read_text()
    groups = re.findall(r"^\[.*\]$", block, re.MULTILINE)
    assert len(groups) == 2
    assert all(group in project for group in groups)
