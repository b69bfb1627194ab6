"""The snippets and commands of docs/coming-from.md run, and its settings exist."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpo.prompts import load_prompts
from ddpo.trainer.config import TrainConfig
from tests.conftest import Run

PAGE = (Path(__file__).parents[1] / "docs" / "coming-from.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]
SMALL = ["sample.per_prompt=2", "sample.steps=2", "optim.updates=1", "optim.timesteps=1"]
QUICK = [word for setting in SMALL for word in ("--set", setting)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory with the page's files."""
    monkeypatch.chdir(tmp_path)
    for code in PYTHON:
        if found := re.match(r"# (\w+\.py)\n", code):
            Path(found[1]).write_text(code)
    return tmp_path


@pytest.mark.slow
def test_the_commands_run_in_their_order(folder: Path, ddpo: Run) -> None:
    for place in ("base_images", "tuned_images"):
        Path(place).mkdir()
        for name in ("cat", "dog"):
            level = 100 if place == "base_images" else 50
            Image.fromarray(np.full((16, 16, 3), level, np.uint8)).save(f"{place}/{name}.png")
            Path(f"{place}/{name}.txt").write_text(f"a {name}")
    assert [line.split()[:2] for line in COMMANDS] == [
        ["python", "prompts.py"],
        ["ddpo", "rewards"],
        ["ddpo", "train"],
        ["ddpo", "eval"],
        ["ddpo", "eval"],
    ]
    for line in COMMANDS:
        program, *words = shlex.split(line)
        if program == "python":
            subprocess.run([sys.executable, *words], check=True)
            continue
        quick = QUICK if words[0] == "train" else []
        quick = (
            ["--steps", "2", "--best-of", "0"] if words[:2] == ["eval", "--checkpoint"] else quick
        )
        code, output, error = ddpo(*words, *quick)
        assert code == 0, (line, output, error)
    rows = [json.loads(line) for line in Path("prompts.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    prompts = {
        prompt.text: dict(prompt.metadata) for prompt in load_prompts("prompts.jsonl").prompts
    }
    assert prompts == {f"a {animal}": {"animal": animal} for animal in ("cat", "dog", "fox")}
    metrics = Path("runs/mine/metrics.jsonl").read_text().splitlines()
    assert len(metrics) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./rewards.py:reward", [0.2, 0.4]),
        ("./theirs.py:flow_factory", [51.0, 102.0]),
        ("./theirs.py:alignprop", [51.0, 102.0]),
        ("./theirs.py:flow_factory:0.5 + darkness:0.5", [25.5 - 0.1, 51.0 - 0.2]),
    ],
)
def test_the_rewards_score(folder: Path, name: str, expected: list[float]) -> None:
    import ddpo

    images = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (51, 102)])
    table = ddpo.score(name, images, ["a cat", "a dog"])
    assert table.iloc[:, 2].tolist() == pytest.approx(expected)


def test_the_line_for_tensors_gives_what_their_code_expects() -> None:
    (code,) = [code for code in PYTHON if "# the line" in code]
    names: dict[str, object] = {}
    exec(code, names)
    images = names["images"]
    assert tuple(images.shape) == (2, 3, 64, 64)  # type: ignore[attr-defined]
    assert str(images.dtype) == "torch.float32"  # type: ignore[attr-defined]


def settings() -> set[str]:
    """The names of all settings."""
    found = set()
    for name, value in TrainConfig(reward="darkness").to_dict().items():
        found |= {f"{name}.{inner}" for inner in value} if isinstance(value, dict) else {name}
    return found


def test_the_settings_exist() -> None:
    rows = re.findall(r"^\| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    ours = " ".join(cell for _, cell in rows)
    named = set(re.findall(r"`((?:sample|optim|advantage|adapt)\.\w+|checkpoint_\w+|dtype)", ours))
    assert len(named) > 18
    assert named - settings() == set()
    values = re.findall(r"`(advantage\.kind)=(\w+)", ours)
    assert {value for _, value in values} == {"per_prompt", "batch", "group"}
