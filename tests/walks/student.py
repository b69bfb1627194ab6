"""A student who comes from ddpo-pytorch trains on a built-in reward, then on one of their own.

The pages in order: README.md, docs/bring-your-reward.md, docs/training.md, docs/evaluation.md.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file

from tests.walks.walk import Walk

SIZES: Final = {
    "ddpo train --resume": "--iterations 3",
    "ddpo train": "--iterations 2 --set sample.samples=4 --set sample.per_prompt=2 "
    "--set sample.batch=4 --set sample.steps=2 --set optim.timesteps=1 --set optim.updates=1 "
    "--set optim.skip_last=1",
    "ddpo eval": "--limit 2 --per-prompt 2 --best-of 0 --history 0",
    "ddpo sample": "--per-prompt 1",
}
WORDS: Final = {
    "runs/my-run": "runs/demo",
    "RUN": "runs/demo",
    "./mine.py:Mine": "./mine.py:ddpo_pytorch",
}
BRING: Final = "docs/bring-your-reward.md"
TRAINING: Final = "docs/training.md"


def walk(newcomer: Walk) -> None:
    """The commands of the pages, and a look at what they leave."""
    train, judge = newcomer.section("README.md", "Train, then evaluate")
    assert "Next: ddpo eval --checkpoint runs/demo" in train.stdout
    _look_at_the_report(newcomer.folder, judge.stdout)
    _write_a_reward(newcomer)
    _bring_a_reward(newcomer)
    _resume(newcomer)
    newcomer.said(TRAINING, "ddpo export RUN --out my-lora")
    weights = load_file(newcomer.folder / "my-lora/pytorch_lora_weights.safetensors")
    assert any(np.abs(matrix).max() > 0 for name, matrix in weights.items() if "lora_B" in name)
    newcomer.said("docs/evaluation.md", 'ddpo sample --checkpoint runs/my-run "a cat" "a teapot"')
    rows = (newcomer.folder / "samples/metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["prompt"] for row in rows] == ["a cat", "a teapot"]


def _look_at_the_report(folder: Path, printed: str) -> None:
    """The page that the evaluation names has the printed answer, and images in itself."""
    page = folder / printed.rpartition("Report: ")[2].strip()
    text = html.unescape(page.read_text(encoding="utf-8"))
    report = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    answer = " ".join(printed.partition("\n\n")[2].partition("\n\n")[0].split())
    assert answer.endswith(".")
    assert answer in text
    assert "data:image/" in text
    splits = {gain["split"] for gain in report["gains"]}
    assert splits == {"seen_pairings", "unseen_pairings", "new_pairings", "objects"}


def _write_a_reward(newcomer: Walk) -> None:
    newcomer.section("README.md", "Write a reward")
    check = newcomer.said("README.md", "ddpo rewards check ./my_reward.py:redness")
    assert "./my_reward.py:redness conforms" in check.stdout
    train = newcomer.said("README.md", "ddpo train --reward ./my_reward.py:redness")
    (run,) = re.findall(r"^Run folder: (.+)$", train.stdout, re.MULTILINE)
    metrics = newcomer.folder / run / "metrics.jsonl"
    assert len(metrics.read_text(encoding="utf-8").splitlines()) == 2


def _bring_a_reward(newcomer: Walk) -> None:
    """A function `(images, prompts, metadata)` scores a folder of images, and is trained on."""
    (newcomer.folder / "images").mkdir()
    for red, name in ((100, "cat"), (200, "dog")):
        Image.new("RGB", (16, 16), (red, 0, 0)).save(newcomer.folder / f"images/{name}.png")
        (newcomer.folder / f"images/{name}.txt").write_text(f"a {name}", encoding="utf-8")
    torch.save(torch.tensor(2.0), newcomer.folder / "head.pt")
    plain, weighted, module, _ = newcomer.section(BRING, "Forms that are read")
    for done, expected in ((plain, (100, 200)), (weighted, (50, 100)), (module, (200, 400))):
        assert _scores(done.stdout) == {"cat.png": expected[0], "dog.png": expected[1]}
    newcomer.run("ddpo train --reward ./mine.py:ddpo_pytorch --out runs/mine")


def _scores(printed: str) -> Mapping[str, float]:
    """File name → score, from the lines of `ddpo rewards score`."""
    lines = [line.split() for line in printed.splitlines() if line.endswith(".png")]
    return {Path(words[1]).name: float(words[0]) for words in lines if len(words) == 2}


def _resume(newcomer: Walk) -> None:
    """Without the code's name the run is not resumed; with it, as the page says, it is."""
    refused = newcomer.run("ddpo train --resume runs/mine", code=2)
    assert re.search(r"--trust \S*mine\.py:ddpo_pytorch", refused.stderr), refused.stderr
    newcomer.said(TRAINING, "ddpo train --resume runs/mine --trust ./mine.py:Mine")
    rows = (newcomer.folder / "runs/mine/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["iteration"] for row in rows] == [1, 2, 3]
