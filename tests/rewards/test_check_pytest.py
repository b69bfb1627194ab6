"""The conformance kit in pytest, by one line in a test file, and as `ddpo rewards check`."""

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

from ddpo.rewards.check.run import all_checks, render_checks_markdown

ROOT = Path(__file__).parents[2]
CHECKS = all_checks()
SOUND = "def bright(images):\n    return images.mean((1, 2, 3))\n"
COUPLED = """
def coupled(images):
    means = images.mean((1, 2, 3))
    return means - means.mean() if len(means) else means
"""


def pytest_session(folder: Path, *arguments: str) -> tuple[int, str]:
    """Runs pytest in a user's folder, with no plug-in of this environment."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "",
        "COLUMNS": "300",
    }
    options = ["-p", "no:cacheprovider", "-rA", "--tb=short", *arguments]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_no_pytest_session_loads_ddpo_by_itself() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "pytest11" not in project.get("entry-points", {})


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
    detail = r"batch-invariance: black alone instead of with the others: 0 instead of -\d+"
    assert re.search(detail, out)
    assert "order: it passes; expected to fail: not so" in out
    expected = r"^XFAIL test_mine.py::test_known\[batch-invariance\] - .*by design"
    assert re.search(expected, out, re.MULTILINE)
    summary = out.strip().splitlines()[-1]
    assert "3 failed" in summary
    assert "2 xfailed" in summary
    counts = re.findall(r"(\d+) (?:failed|passed|skipped|xfailed)", summary)
    assert sum(map(int, counts)) == 2 * len(CHECKS)


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
    coupled = f"{tmp_path}/mine.py:coupled"
    code, out, _ = run(coupled, "--only", "batch-invariance", "--only", "order")
    assert code == 1
    assert re.search(r"batch-invariance\s+failed\s+black alone instead of with the others", out)
    assert "does not conform: 1 passed, 1 failed" in out
    expected = "batch-invariance=by [design]"
    code, out, _ = run(coupled, "--only", "batch-invariance", "--expect", expected)
    assert code == 0
    assert re.search(r"expected to fail\s+by \[design\] \(black alone", out)


def test_the_command_prints_json(run: Run) -> None:
    code, out, _ = run("darkness", "--only", "golden-scores", "--only", "rounding", "--json")
    assert code == 0
    outcomes = {result["name"]: result["outcome"] for result in json.loads(out)}
    assert outcomes == {"golden-scores": "passed", "rounding": "skipped"}


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
    text = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- checks:begin -->\n(.*?)\n<!-- checks:end -->", text, re.DOTALL)
    assert found, "the markers of the table are missing"
    assert found[1] == render_checks_markdown().strip(), "run: python tools/checks_table.py"
    for check in CHECKS.values():
        assert check.demand.endswith("."), check.name
        assert check.name == check.probe.__name__.replace("_", "-")
