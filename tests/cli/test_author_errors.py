"""An author's exception is one line with the file and line of their code."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.warm_start import run_ddpo

CODE = """\
import helper


def direct(images):
    return [1 / 0 for _ in images]


def through_helper(images):
    return helper.scores(images)


def leaves(images):
    raise SystemExit(3)


def too_few(images):
    return [0.0]


class Made:
    def __init__(self):
        raise KeyError("weights")

    def __call__(self, images):
        return [0.0] * len(images)
"""
HELPER = "def scores(images):\n    raise ValueError('no face')\n"


def ddpo(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_ddpo(*words, cwd=folder, env=os.environ | environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_reward.py").write_text(CODE)
    (tmp_path / "helper.py").write_text(HELPER)
    for name in ("one", "two"):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("direct", "my_reward.py:5: ZeroDivisionError: "),
        ("through_helper", "helper.py:2: ValueError: no face"),
        ("leaves", "my_reward.py:13: SystemExit: 3"),
        ("too_few", "my_reward.py:16: the function returned 1 scores for 2 images"),
        ("Made", "my_reward.py:22: KeyError: 'weights'"),
    ],
)
def test_a_reward_that_fails_names_its_line(folder: Path, name: str, line: str) -> None:
    words = ("rewards", "score", f"./my_reward.py:{name}", "one.png", "two.png")
    found = ddpo(folder, *words)
    assert found.returncode in (1, 2)
    assert line in found.stdout + found.stderr
    assert "Traceback" not in found.stderr


def test_a_file_that_cannot_be_imported_names_the_line_of_its_helper(folder: Path) -> None:
    (folder / "helper.py").write_text("x = 1\ny = x.z\n")
    found = ddpo(folder, "rewards", "score", "./my_reward.py:direct", "one.png")
    assert found.returncode == 2
    assert "my_reward.py:1: helper.py:2: AttributeError" in found.stderr
    (folder / "helper.py").write_text("x = 1\ndef\n")
    found = ddpo(folder, "rewards", "score", "./my_reward.py:direct", "one.png")
    assert "helper.py:2: SyntaxError: " in found.stderr
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("way", ["before", "after", "environment"])
def test_traceback_shows_all(folder: Path, way: str) -> None:
    words = ["rewards", "score", "./my_reward.py:through_helper", "one.png"]
    if way != "environment":
        words.insert(0 if way == "before" else len(words), "--traceback")
    found = ddpo(folder, *words, DDPO_TRACEBACK="1" if way == "environment" else "0")
    assert found.stderr.count("Traceback (most recent call last)") == 1
    assert "return helper.scores(images)" in found.stderr


def test_an_algorithm_that_fails_names_its_line_and_leaves_the_folder_free(folder: Path) -> None:
    code = (
        "from ddpo.trainer.algorithms.ddpo_sf import DdpoSf\n"
        "class Mine(DdpoSf):\n"
        "    def loss(self, new, old, weights, config):\n"
        "        {}return super(Mine, self).loss(new, old, weights, config)\n"
    )
    words = ["train", "--reward", "darkness", "--algorithm", "./algo.py:Mine", "--out", "run"]
    words += ["--iterations", "1"]
    small = ("sample.samples=8", "sample.per_prompt=2", "sample.steps=2")
    for setting in (*small, "optim.updates=1", "optim.timesteps=1"):
        words += ["--set", setting]
    (folder / "algo.py").write_text(code.format("raise KeyError('x'); "))
    found = ddpo(folder, *words)
    assert found.returncode == 1
    assert "failed: algo.py:4: KeyError: 'x' — no iteration was finished; " in found.stderr
    (folder / "algo.py").write_text(code.format(""))
    again = ddpo(folder, *words)
    assert again.returncode == 0, again.stderr
    refused = ddpo(folder, *words)
    assert refused.returncode == 2
    assert "already holds a run" in refused.stderr
