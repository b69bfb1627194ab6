"""Tables on a narrow terminal: every label stays whole, and nothing is cut with an ellipsis."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpo.doctor.reward_states import reward_states
from ddpo.policies.pipelines import PIPELINES
from ddpo.recipes import recipe_names
from ddpo.rewards.cards import CARDS
from ddpo.trainer.algorithms import algorithms
from tests.conftest import Run

MINE = "def a_reward_with_a_long_name(images):\n    return [float(i.mean()) for i in images]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with images, pairs and a reward."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    Path("images").mkdir()
    for number in range(4):
        pixels = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"images/{number}.png")
    Path("mine.py").write_text(MINE, encoding="utf-8")
    Path("pairs.csv").write_text(
        "prompt,image_a,image_b,label\n"
        + "".join(f"p{n},images/{n % 3}.png,images/{n % 3 + 1}.png,a\n" for n in range(6)),
        encoding="utf-8",
    )
    return tmp_path


MISSING = [state.reward for state in reward_states() if state.state != "ready"]
EDITS = ["JPEG quality 90", "shift 1 px", "noise sd 1/255"]


@pytest.mark.parametrize("columns", [60, 40])
@pytest.mark.parametrize(
    ("line", "labels"),
    [
        ("rewards list", list(CARDS)),
        ("recipes list", recipe_names()),
        ("algorithms list", list(algorithms.names())),
        ("models list", list(PIPELINES)),
        ("doctor", ["Python", "processor", *MISSING]),
        ("rewards score darkness sharpness images --no-cache", ["darkness", "sharpness"]),
        ("rewards score ./mine.py:a_reward_with_a_long_name images", ["a_reward_with_a_long_name"]),
        ("rewards compare darkness sharpness images", ["darkness, sharpness", "noise floor"]),
        ("rewards validate darkness --preferences pairs.csv", ["imagereward", "pickapic"]),
        ("rewards calibrate darkness images -o d.json", ["mean"]),
        ("rewards bench darkness --per-round 4 --size 16 --batch-sizes 1,4", ["images/s"]),
        ("rewards check darkness --only card-round-trip", ["card-round-trip"]),
        ("rewards doctor darkness", ["darkness"]),
    ],
)
def test_labels_stay_whole(
    line: str, labels: list[str], columns: int, folder: Path, ddpo: Run
) -> None:
    code, text, error = ddpo(*line.split(), columns=columns)
    assert code == 0, error
    assert labels
    lines = text.splitlines()
    for label in labels:
        assert any(label in one for one in lines), (label, text)
    table = [one.rstrip() for one in lines if one.startswith(("  ", " ─"))]
    assert table
    assert not re.search(r"\w…", text), "a word is cut"


def test_a_stored_score_keeps_its_reward(folder: Path, ddpo: Run) -> None:
    reward = "./mine.py:a_reward_with_a_long_name"
    assert ddpo("rewards", "score", reward, "images", "--cache")[0] == 0
    for columns in (60, 40):
        _, text, _ = ddpo("cache", "stats", columns=columns)
        assert "a_reward_with_a_long_name" in text


def test_a_wide_terminal_has_one_line_per_reward(ddpo: Run) -> None:
    _, text, _ = ddpo("rewards", "list", columns=400)
    lines = [one for one in text.splitlines() if one.strip().startswith("darkness ")]
    assert len(lines) == 1
    assert " ready " in lines[0]


def test_the_list_and_the_doctor_use_the_same_words(ddpo: Run) -> None:
    import json

    listed = {one["id"]: one["state"] for one in json.loads(ddpo("rewards", "list", "--json")[1])}
    report = json.loads(ddpo("doctor", "--json")[1])
    told = {one["reward"]: one["state"] for one in report["rewards"]}
    assert listed == told
    assert listed["darkness"] == "ready"
    assert listed["aesthetic"] == "weights missing"


def test_four_states_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from ddpo.doctor import reward_states as room

    darkness = CARDS["darkness"]
    large = replace(CARDS["vqa_score"], memory_mb=10**9)
    small = replace(CARDS["vqa_score"], memory_mb=1)
    monkeypatch.setattr(room, "has_gpu_files", lambda kind: False)
    assert room.reward_state("a", darkness, "ddpo").state == "ready"
    assert room.reward_state("a", large, "ddpo").state == "needs a server"
    assert "vlm=http://" in room.reward_state("a", large, "ddpo").remedy
    assert room.reward_state("a", small, "ddpo").state == "weights missing"
    monkeypatch.setattr(room, "has_gpu_files", lambda kind: True)
    assert room.reward_state("a", large, "ddpo").state == "weights missing"
    extra = replace(darkness, extra="nothing-has-this")
    assert room.reward_state("a", extra, "ddpo").state == "ready"
