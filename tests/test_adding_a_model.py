"""The page is true: its model trains by the page's commands, and its tests pass."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from ddpo.model_check import model_tests
from ddpo.policies.policy import TrainablePolicy
from tests.conftest import Run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-a-model.md").read_text(encoding="utf-8")
MODEL, TESTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ddpo: Run) -> None:
    (tmp_path / "my_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        code, text, error = ddpo(*shlex.split(command)[1:])
        assert code == 0, (text, error)
    (line,) = (tmp_path / "runs" / "mine" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["ratio_first_deviation"] == 0.0
    assert json.loads(line)["ratio_mean_deviation"] > 0


def test_the_tests_of_the_page_are_those_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_my_model.py").write_text(TESTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("test_my_model")
    assert module.test_conforms.__qualname__ == model_tests("mylab/tiny").__qualname__
    del sys.modules["test_my_model"]


def test_the_page_names_every_member_of_the_contract() -> None:
    members = {name for name in dir(TrainablePolicy) if not name.startswith("_")}
    members |= set(TrainablePolicy.__annotations__)
    assert {"adapt", "save", "load", "latent_shape"} <= members
    assert [name for name in members if f"`{name}" not in PAGE] == []


def test_the_entry_point_has_the_group_of_the_test_package() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (group,) = re.findall(r"^\[.*\]$", block, re.MULTILINE)
    assert group in (ROOT / "tests" / "plugin_package" / "pyproject.toml").read_text()
