"""The tutorial is true: its code scores as it says, its commands run."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpo.cli.main import main
from ddpo.rewards.scaffold import write_package
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "writing-a-reward.md").read_text(encoding="utf-8")
OWN = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("ddpo") and "./my_" in line
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files, and two images."""
    for source in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / source.splitlines()[0].removeprefix("# ")).write_text(source)
    (tmp_path / "images").mkdir()
    random = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(
            tmp_path / "images" / f"{name}.png"
        )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_code_scores_as_by_hand(folder: Path) -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[0, ..., 2] = 255  # blue: minus half
    images[1, :2] = 255  # the upper half white
    batch = ImageBatch.of_uint8(images, [Prompt(""), Prompt("")])
    assert make_reward("./my_reward.py:redness")(batch).values.tolist() == [-0.5, 0.0]
    assert make_reward("./my_reward.py:redness:floor=-0.25")(batch).values.tolist() == [-0.25, 0.0]
    assert make_reward("./my_contrast.py:Contrast")(batch).values.tolist() == pytest.approx(
        [0.0, 0.25]
    )


@pytest.mark.parametrize(
    "command", OWN, ids=lambda command: command.removeprefix("ddpo rewards ").replace("/", "")
)
def test_the_commands_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setattr(sys, "argv", shlex.split(command, comments=True))
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code, capsys.readouterr().err


def test_the_page_has_such_commands() -> None:
    assert {line.split()[2] for line in OWN} == {"score", "show", "bench", "check"}


def test_the_entry_point_is_that_of_the_package_that_new_writes(tmp_path: Path) -> None:
    project = (
        write_package("mylab/contrast", "class", tmp_path / "made") / "pyproject.toml"
    ).read_text()
    lines = [
        line.strip()
        for line in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0].strip().splitlines()
    ]
    assert "\n".join(lines) in project
