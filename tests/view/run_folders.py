"""Run folders as a training writes them, without a training."""

import json
from pathlib import Path

from PIL import Image

from ddpo.images import contact_sheet

PROMPTS = ["a cat", "a dog", "<b>a horse</b>"]
COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250), (250, 0, 250)]


def line(iteration: int, reward: float, **values: object) -> str:
    record = {
        "iteration": iteration,
        "reward_queries": 8 * iteration,
        "reward_mean": reward,
        "reward_se": 0.1,
        "loss": 0.0,
        "grad_norm": 1.0,
    }
    return json.dumps(record | values) + "\n"


def make_run(path: Path, iterations: int = 3, planned: int = 3) -> Path:
    for name in ("samples", "checkpoints", "state"):
        (path / name).mkdir(parents=True)
    config = {
        "reward": "compressibility",
        "model": "emoji",
        "algorithm": "ddpo_is",
        "iterations": planned,
        "held_out": "colorfulness",
        "sample": {"samples": 8},
        "sources": {"reward": "--reward"},
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "manifest.json").write_text(json.dumps({"prompts": {"list": PROMPTS}}))
    lines = [line(at, float(at)) for at in range(1, iterations + 1)]
    (path / "metrics.jsonl").write_text("".join(lines))
    for at in (0, iterations):
        cells = [Image.new("RGB", (16, 16), colour) for colour in COLOURS]
        sheet = contact_sheet(cells, columns=len(PROMPTS))
        sheet.save(path / "samples" / f"iteration-{at:06d}.png")
    return path
