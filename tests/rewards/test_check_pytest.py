"""The kit in pytest: one line in a test file, and the plug-in's option; and the command `ddpo rewards check`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ddpo.rewards.check.run import all_checks
from ddpo.rewards.check.table import render_checks_markdown

ROOT = Path(__file__).parents[2]
CHECKS = all_checks()
PLUGIN = "ddpo.rewards.check.pytest_plugin"
SOUND = "def bright(images):\n    return images.mean((1, 2, 3))\n"
COUPLED = "def coupled(images):\n    means = images.mean((1, 2, 3))\n    return means - means.mean() if len(means) else means\n"


def pytest_session(folder: Path, *arguments: str) -> tuple[int, str]:
    """Runs pytest as a user of an installed ddpo does: the plug-in is there, by its entry point or, without an installation, by name."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "",
        "COLUMNS": "300",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        PLUGIN,
        "-p",
        "no:cacheprovider",
        "-rA",
        "--tb=short",
        *arguments,
    ]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_entry_point_is_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"ddpo": PLUGIN}


def test_one_line_in_a_test_file_makes_one_test_per_check(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(COUPLED)
    (tmp_path / "test_mine.py").write_text(
        "from ddpo.rewards.check import conformance_tests\n"
        "test_coupled = conformance_tests('./mine.py:coupled')\n"
        "test_known = conformance_tests('./mine.py:coupled', expected_failures="
        "{'batch-invariance': 'by design', 'batch-sizes': 'by design', 'order': 'not so'})\n"
    )
    code, out = pytest_session(tmp_path)
    assert code == 1
    failed = re.findall(r"^FAILED test_mine.py::(\S+) - (.*)$", out, re.MULTILINE)
    assert [item for item, _ in failed] == [
        "test_coupled[batch-invariance]",
        "test_coupled[batch-sizes]",
        "test_known[order]",
    ]
    assert re.search(
        r"batch-invariance: black alone instead of with the others: 0 instead of -\d+", out
    )
    assert "order: it passes; expected to fail: not so" in out
    assert re.search(
        r"^XFAIL test_mine.py::test_known\[batch-invariance\] - .*by design", out, re.MULTILINE
    )
    summary = out.strip().splitlines()[-1]
    assert "3 failed" in summary
    assert "2 xfailed" in summary
    assert sum(
        int(count) for count in re.findall(r"(\d+) (?:failed|passed|skipped|xfailed)", summary)
    ) == 2 * len(CHECKS)


def test_the_option_checks_a_reward_without_a_test_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SOUND + COUPLED)
    specs = ["--ddpo-reward", "./mine.py:bright", "--ddpo-reward", "./mine.py:coupled"]
    code, out = pytest_session(
        tmp_path,
        *specs,
        "--ddpo-expect",
        "batch-invariance=by design",
        "-k",
        "batch-invariance or order",
    )
    assert code == 1
    assert "PASSED ./mine.py:bright::order" in out
    assert "PASSED ./mine.py:coupled::order" in out
    assert re.search(
        r"FAILED ./mine.py:bright::batch-invariance - .*it passes; expected to fail: by design", out
    )
    assert re.search(r"XFAIL ./mine.py:coupled::batch-invariance - .*by design \(black alone", out)
    assert re.search(r"1 failed, 2 passed, \d+ deselected, 1 xfailed", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ddpo-reward", "darknes"], "did you mean 'darkness'?"),
        (["--ddpo-reward", "darkness", "--ddpo-expect", "order"], "given as check=reason"),
    ],
)
def test_mistakes_in_the_options_are_one_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, out = pytest_session(tmp_path, *arguments)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert message in out
    assert "Traceback" not in out


def test_the_plugin_loads_nothing_heavy_when_it_is_not_used(tmp_path: Path) -> None:
    heavy = ("torch", "numpy", "PIL", "pandas", "transformers", "rich", "typer")
    (tmp_path / "test_light.py").write_text(
        f"import sys\ndef test_light():\n    assert [name for name in {heavy!r} if name in sys.modules] == []\n"
        f"    assert {PLUGIN!r} in sys.modules\n"
    )
    code, out = pytest_session(tmp_path)
    assert code == 0, out


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(ddpo: Run) -> Run:
    return partial(ddpo, "rewards", "check")


def test_the_command_prints_a_table_and_exits_with_1_on_a_failure(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SOUND + COUPLED)
    code, out, _ = run(f"{tmp_path}/mine.py:bright")
    assert code == 0
    assert all(name in out for name in CHECKS)
    assert f"{tmp_path}/mine.py:bright conforms: " in out
    code, out, _ = run(
        f"{tmp_path}/mine.py:coupled", "--only", "batch-invariance", "--only", "order"
    )
    assert code == 1
    assert re.search(r"batch-invariance\s+failed\s+black alone instead of with the others", out)
    assert "does not conform: 1 passed, 1 failed" in out
    code, out, _ = run(
        f"{tmp_path}/mine.py:coupled",
        "--only",
        "batch-invariance",
        "--expect",
        "batch-invariance=by [design]",
    )
    assert code == 0
    assert re.search(r"expected to fail\s+by \[design\] \(black alone", out)


def test_the_command_prints_json(run: Run) -> None:
    code, out, _ = run("darkness", "--only", "golden-scores", "--only", "rounding", "--json")
    assert code == 0
    results = {result.pop("name"): result for result in json.loads(out)}
    assert {name: result["outcome"] for name, result in results.items()} == {
        "golden-scores": "passed",
        "rounding": "skipped",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["darknes"], "did you mean 'darkness'?"),
        (["darkness", "--only", "ordr"], "unknown check 'ordr'; did you mean 'order'?"),
        (["darkness", "--expect", "order"], "given as check=reason"),
        (["darkness", "--expect", "oder=why"], "did you mean 'order'?"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(
    run: Run, arguments: list[str], message: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_the_table_in_the_documentation_is_fresh() -> None:
    text = (ROOT / "docs" / "checking-a-reward.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- checks:begin -->\n(.*?)\n<!-- checks:end -->", text, re.DOTALL)
    assert found, "the markers of the table are missing"
    assert found[1] == render_checks_markdown().strip(), "run: python tools/checks_table.py"
    for check in CHECKS.values():
        assert check.demand.endswith("."), check.name
        assert check.name == check.probe.__name__.replace("_", "-")
