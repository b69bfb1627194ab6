"""docs/environment.md names every environment variable of the code, and what it says is true."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpo.doctor.machine import VARIABLES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("<!-- variables:begin -->")[2].partition("<!-- variables:end -->")[0]
ROWS = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", TABLE, re.MULTILINE))
OWN = [name for name, of in ROWS.items() if of == "ddpo"]

OTHER_WORDS = {
    "GET",
    "HWC",
    "PIL",
    "SC_PAGE_SIZE",
    "SC_PHYS_PAGES",
    "TRANSFORMER_BASED_WRAP",
    "WARNING",
}
"""Capital letters in these modules that name no variable."""

TESTED_BY = {
    "DDPO_CACHE_LIMIT_MB": "tests/rewards/test_cache.py",
    "DDPO_REWARD_TOKEN": "tests/rewards/test_serve.py",
    "DDPO_TRACEBACK": "tests/cli/test_author_errors.py",
    "OPENAI_API_KEY": "tests/rewards/test_vlm_server.py",
    "HF_HUB_CACHE": "tests/rewards/test_availability.py",
    "HF_HUB_OFFLINE": "tests/doctor/test_machine.py",
    "WORLD_SIZE": "tests/test_distributed.py",
    "RANK": "tests/test_distributed.py",
    "LOCAL_RANK": "tests/test_distributed.py",
    "LOCAL_WORLD_SIZE": "tests/test_distributed.py",
    "MASTER_ADDR": "tests/test_distributed.py",
    "MASTER_PORT": "tests/test_distributed.py",
    "WANDB_MODE": "tests/trainer/test_tracking.py",
}
"""Variable → file with a test of its effect."""


def words_of(path: Path) -> set[str]:
    """The texts of a module that look like the name of an environment variable."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    public = {
        node
        for parent in ast.walk(tree)
        if isinstance(parent, ast.Assign) and ast.unparse(parent.targets[0]) == "__all__"
        for node in ast.walk(parent)
    }
    return {
        node.value
        for node in ast.walk(tree)
        if node not in public
        and isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|[A-Z]{3,}", node.value)
    }


def variables_of_the_code() -> set[str]:
    """The variables in modules that read the environment, or name a variable for those that do."""
    reading = [
        path
        for path in (ROOT / "ddpo").rglob("*.py")
        if re.search(r"\bos\.environ\b|\bgetenv\b|_VARIABLE\b", path.read_text(encoding="utf-8"))
    ]
    assert len(reading) > 12
    return set().union(*map(words_of, reading)) - OTHER_WORDS


def test_the_table_has_each_variable_of_the_code() -> None:
    assert variables_of_the_code() - set(ROWS) == set()
    assert set(VARIABLES) - set(ROWS) == set()
    assert {name for name in variables_of_the_code() if name.startswith("DDPO_")} == set(OWN)
    assert len(re.findall(r"^\| `", TABLE, re.MULTILINE)) == len(ROWS)


def test_the_doctor_prints_those_of_ddpo_that_are_no_secret() -> None:
    secrets = {name for name in ROWS if f"`{name}`" in TABLE and "secret: " in row_of(name)}
    assert {*OWN} - {*VARIABLES} == {"DDPO_REWARD_TOKEN"}
    assert secrets & {*VARIABLES} == set()


def row_of(name: str) -> str:
    """The row of a variable."""
    return next(line for line in TABLE.splitlines() if line.startswith(f"| `{name}` |"))


def test_the_tests_of_an_effect_are_there() -> None:
    silent = {
        name: file
        for name, file in TESTED_BY.items()
        if not (ROOT / file).is_file() or name not in (ROOT / file).read_text(encoding="utf-8")
    }
    assert silent == {}
    here = {"DDPO_CACHE", "DDPO_OFFLINE", "DDPO_PLUGINS"}
    assert here | {*TESTED_BY} >= {*OWN}


def program(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`ddpo ARGUMENTS` with these variables; "" removes one."""
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, "-m", "ddpo", *arguments],
        env={name: value for name, value in environment.items() if value},
        capture_output=True,
        encoding="utf-8",
    )


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one image."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Image.fromarray(np.full((8, 8, 3), 51, np.uint8)).save("images/cat.png")
    return tmp_path


@pytest.mark.parametrize("name", ["DDPO_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_pixels_are_scored_and_missing_weights_are_one_line(
    name: str, images: Path
) -> None:
    """The example of the page."""
    switches = {"DDPO_OFFLINE": "", "HF_HUB_OFFLINE": "", name: "yes"}
    empty = {"DDPO_CACHE": str(images / "none"), "HF_HUB_CACHE": str(images / "hub")}
    done = program("rewards", "score", "darkness", "images/", **switches, **empty)
    assert (done.returncode, "-0.2" in done.stdout) == (0, True), done.stderr
    refused = program("rewards", "score", "aesthetic", "images/", **switches, **empty)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "fetching is off" in refused.stderr


SCORE = ("rewards", "score", "./mine.py:mean", "images/", "--cache")


def test_the_cache_lies_where_the_variable_says(images: Path) -> None:
    Path("mine.py").write_text("def mean(images):\n    return images.mean((1, 2, 3))\n")
    done = program(*SCORE, DDPO_CACHE=str(images / "here"))
    assert done.returncode == 0, done.stderr
    assert (images / "here" / "scores.sqlite").is_file()
    home = images / "home"
    home.mkdir()
    done = program(*SCORE, DDPO_CACHE="", HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert (home / ".cache" / "ddpo" / "scores.sqlite").is_file()


def test_plugins_none_leaves_those_of_ddpo() -> None:
    done = program("rewards", "list", "--json", DDPO_PLUGINS="none")
    assert done.returncode == 0, done.stderr
    assert '"darkness"' in done.stdout
    from ddpo.rewards.cards import CARDS
    from ddpo.rewards.cards.embedded import EMBEDDED_REWARDS, embedded_name

    listed = {card["id"] for card in json.loads(done.stdout)}
    assert listed == {*CARDS, *map(embedded_name, EMBEDDED_REWARDS)}


def test_columns_and_colours_of_a_terminal() -> None:
    narrow = program("rewards", "list", COLUMNS="60").stdout
    wide = program("rewards", "list", COLUMNS="200").stdout
    assert max(map(len, narrow.splitlines())) <= 60 < max(map(len, wide.splitlines())) <= 200
    coloured = program("rewards", "list", FORCE_COLOR="1", NO_COLOR="").stdout
    plain = program("rewards", "list", FORCE_COLOR="1", NO_COLOR="1").stdout
    assert re.search(r"\x1b\[[\d;]*3\d", coloured) or "\x1b[" in coloured
    assert not re.search(r"\x1b\[(?:[\d;]*;)?(?:3[0-8]|9[0-7])m", plain)
