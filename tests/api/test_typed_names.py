"""An editor completes the built-in names, and every other name stays legal."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from ddpo.api import names
from ddpo.api.rewards import RewardLike
from ddpo.rewards.cards import CARDS

ROOT = Path(__file__).parents[2]
SNIPPET = """
import ddpo

def mine(images: object) -> list[float]:
    return []

name: str = input()
for reward in ("aesthetic", "./mine.py:f", "acme_sharp", name):
    ddpo.load_reward(reward)
ddpo.load_reward(mine)("cat.png")
ddpo.load_reward("sharpness")
ddpo.list_rewards("pixels")
ddpo.list_rewards(name)
ddpo.score(["sharpness", mine, name], "images")
run = ddpo.train(
    name, prompts="animals", model=name, algorithm="rwr", held_out="colorfulness", recipe=name
)
ddpo.evaluate(run, "runs/b", rewards=["sharpness", name, mine], prompts=["near", name])
"""


def test_the_names_are_those_of_the_registries() -> None:
    source = runpy.run_path(str(ROOT / "tools" / "api_names.py"))["source"]
    text = (ROOT / "ddpo" / "api" / "names.py").read_text(encoding="utf-8")
    assert text == source(), "run: python tools/api_names.py"


def test_each_kind_of_name_has_some() -> None:
    assert set(get_args(names.RewardName)) == set(CARDS)
    assert {"pixels", "clip"} <= {*get_args(names.Family)}
    assert {"animals", "objects"} <= {*get_args(names.PromptList)}
    lists = {path.stem for path in (ROOT / "ddpo/prompts/lists").iterdir()} - {"README", "kinds"}
    assert {*get_args(names.PromptList)} == lists
    own = {"ddpo_is", "ddpo_sf", "rwr", "rwr_sparse", "flow_dppo", "tempflow_grpo"}
    own |= {"awm", "grpo", "grpo_fast", "mix_grpo", "grpo_guard"}
    assert {*get_args(names.AlgorithmName)} == own
    assert get_args(names.ModelName) == ("emoji", "emoji-flow", "emoji-scenes")
    recipes = {path.stem for path in (ROOT / "ddpo/recipes").glob("*.toml")}
    assert {*get_args(names.RecipeName)} == recipes


def test_any_other_text_and_a_function_are_rewards() -> None:
    assert str in get_args(RewardLike)
    assert names.RewardName in get_args(RewardLike)


@pytest.mark.slow
def test_a_type_checker_takes_known_and_other_names(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(SNIPPET)
    (tmp_path / "wrong.py").write_text(SNIPPET.replace('rewards=["sharpness", name', "rewards=[3"))
    config = ["--config-file", str(ROOT / "pyproject.toml")]
    files = [str(tmp_path / name) for name in ("use.py", "wrong.py")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *config, *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "wrong.py:18: error: List item 0" in done.stdout
    assert "use.py" not in done.stdout
    assert "Found 1 error in 1 file (checked 2 source files)" in done.stdout
