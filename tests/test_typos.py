"""A mistyped argument is one line with exit code 2, in little CPU time, before torch is loaded."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ddpo.rewards.zoo import rewards

CPU_SECONDS = 0.75  # 0.5 s is promised; a loaded machine gets half as much again
WEIGHTS_SECONDS = 2.0

TYPOS = [
    "nonsense",
    "rewards nonsense",
    "rewards list --family nonsense",
    "rewards show nonsense",
    "rewards download nonsense",
    "rewards doctor nonsense",
    "rewards bench nonsense",
    "rewards bench darkness nowhere.png",
    "rewards bench darkness --device nonsense",
    "rewards bench darkness --batch-sizes 0",
    "rewards score nonsense a.png",
    "rewards score darkness nowhere.png",
    "rewards score darkness:nonsense=1 a.png",
    "rewards score darkness a.png --device nonsense",
    "rewards score darkness a.png --prompts nowhere.txt",
    "rewards score darkness a.png --out x.pdf",
    "rewards score darkness a.png --contact-sheet x.pdf",
    "rewards serve nonsense",
    "rewards serve darkness --device nonsense",
    "rewards compare nonsense darkness a.png",
    "rewards compare darkness contrast nowhere.png",
    "rewards compare darkness contrast a.png --prompts nowhere.txt",
    "rewards compare darkness contrast a.png --out x.pdf",
    "rewards calibrate nonsense a.png --out x.json",
    "rewards calibrate darkness nowhere.png --out x.json",
    "rewards calibrate darkness a.png --out x.json --device nonsense",
    "rewards validate nonsense --preferences pairs.csv",
    "rewards validate darkness --preferences nowhere.csv",
    "rewards check nonsense",
    "rewards check darkness --device nonsense",
    "train --reward nonsense",
    "train --reward darkness:nonsense=1",
    "train --held-out nonsense",
    "train --recipe nonsense",
    "train --prompts nonsense",
    "train --model nonsense",
    "train --model ./nowhere/model",
    "train --model full",
    "train --algorithm nonsense",
    "train --device nonsense",
    "train --set nonsense=1",
    "train --set optim.lr=x",
    "train --set sample.samples=7",
    "train --track nonsense",
    "train --resume nowhere",
    "train --out full",
    "sample x --checkpoint nowhere",
    "sample x --model nonsense",
    "sample x --device nonsense",
    "sample --prompts nonsense",
    "sample x --out full",
    "eval",
    "eval --checkpoint nowhere",
    "eval --checkpoint full",
    "eval --images base=nowhere --reward darkness",
    "eval --format nonsense",
    "eval --leaks nonsense",
    "compare nowhere nothere",
    "export nowhere --to x",
    "doctor --out x.pdf",
    "doctor --gpu --device nonsense",
    "recipes show nonsense",
    "cache export x.pdf",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with an image and a folder that is not empty."""
    found = tmp_path_factory.mktemp("typos")
    Image.new("RGB", (8, 8), (200, 10, 10)).save(found / "a.png")
    (found / "full").mkdir()
    (found / "full" / "x").write_text("x", encoding="utf-8")
    (found / "pairs.csv").write_text("image_a,image_b,label,prompt\n", encoding="utf-8")
    return found


def run(folder: Path, *arguments: str, **variables: str) -> tuple[int, str, float]:
    """Exit code, standard error and CPU seconds of `ddpo ARGUMENTS`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "ddpo", *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "500", **variables},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return done.returncode, done.stderr, seconds


@pytest.mark.parametrize("line", TYPOS)
def test_a_typo_answers_at_once(line: str, folder: Path) -> None:
    code, errors, seconds = run(folder, *shlex.split(line))
    if seconds > CPU_SECONDS:  # other work on the machine only adds to it
        code, errors, seconds = run(folder, *shlex.split(line))
    assert code == 2, errors
    assert "Traceback" not in errors
    assert errors.strip()
    assert seconds <= CPU_SECONDS


WEIGHTED = sorted(
    name
    for name, card in rewards.available()[0].items()
    if any(not weight.source.startswith("package:") for weight in card.weights)
)
"""The rewards with weights to download; those of `ocr` are shipped inside a package."""


def test_the_zoo_has_rewards_with_weights() -> None:
    assert {"aesthetic", "pickscore", "hpsv3"} <= set(WEIGHTED)


@pytest.mark.parametrize("name", WEIGHTED)
def test_missing_weights_offline_have_one_remedy(name: str, folder: Path) -> None:
    empty = str(folder / "no-cache")
    code, errors, seconds = run(
        folder,
        *("rewards", "score", name, "a.png", "--prompt", "a cat"),
        DDPO_CACHE=empty,
        HF_HUB_CACHE=empty,
        HF_HUB_OFFLINE="1",
    )
    assert code == 2, errors
    assert len(errors.strip().splitlines()) == 1
    assert f"`ddpo rewards download {name}`" in errors
    assert seconds <= WEIGHTS_SECONDS


def test_nothing_scored_is_a_failure(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    code, errors, _ = run(folder, "rewards", "score", "darkness", "broken.png")
    assert code == 1
    assert "no image could be scored" in errors
