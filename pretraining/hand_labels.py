"""Agreement of the embedded judges with labels by hand: `python -m pretraining.hand_labels`.

`draw` samples 238 images of the embedded model of scenes and writes numbered sheets. A person
writes one label per image into `hand_labels.csv`: 1 where the image shows all that the prompt
states, 0.5 where it shows a part of it, and 0 else. `compare` scores the same images with the
judges, and prints the rank correlation with the labels and the images that fool each judge.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image, ImageDraw

import ddpo
from ddpo.images import contact_sheet, save_png, to_pil
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_images
from ddpo.policies.stable_diffusion import StableDiffusionPolicy
from ddpo.reward_quality.agreement import agreement
from ddpo.rewards.scenes.grammar import KINDS, caption
from ddpo.types import Prompt
from pretraining.judge_training import say
from pretraining.scene_sampling import activity_scenes, random_scene

LABELS: Final = Path(__file__).with_name("hand_labels.csv")
JUDGES: Final = (
    "alignment:model=emoji",
    "clip_score:model=emoji",
    "emoji_geneval",
    "emoji_detector",
)
SEED: Final = 777
STEPS: Final = 10
TILE: Final = 148  # pixels of an image in a sheet
LINE: Final = 12  # pixels of the line of text above it
COLUMNS: Final = 8
PER_SHEET: Final = 40
FOOLED: Final = 8  # images of each judge


def captions() -> list[str]:
    """The 238 prompts: 20 random scenes of each kind, and 78 pairings of activities."""
    scenes = []
    for number, kind in enumerate(KINDS):
        rng = np.random.default_rng([SEED, number])
        scenes += [random_scene(rng, kind) for _ in range(20)]
    for split, every in (("seen", 3), ("unseen", 3)):
        scenes += activity_scenes(split)[::every][:40]
    return [caption(scene) for scene in scenes]


def images_of(model: str, texts: Sequence[str]) -> list[Image.Image]:
    """One image of the model for each prompt, always the same."""
    policy = StableDiffusionPolicy(model)
    settings = SamplerSettings(steps=STEPS, guidance=1.0, eta=1.0, batch=PER_SHEET)
    keys = [SampleKey(Prompt(text), index) for index, text in enumerate(texts)]
    pixels = [batch.pixels for batch in sample_images(policy, keys, settings, seed=SEED)]
    return to_pil(torch.cat(pixels))


def titled(image: Image.Image, title: str) -> Image.Image:
    """An enlarged image below a line of text."""
    tile = Image.new("RGB", (TILE, TILE + LINE), "white")
    tile.paste(image.resize((TILE, TILE)), (0, LINE))
    ImageDraw.Draw(tile).text((1, 0), title, fill="black")
    return tile


def draw(model: str, out: Path) -> None:
    """Writes the sheets to label."""
    out.mkdir(parents=True, exist_ok=True)
    texts = captions()
    images = images_of(model, texts)
    tiles = [titled(*pair) for pair in zip(images, map(_numbered, enumerate(texts)), strict=True)]
    for start in range(0, len(tiles), PER_SHEET):
        sheet = contact_sheet(tiles[start : start + PER_SHEET], columns=COLUMNS)
        save_png(sheet, out / f"label-{start:03d}.png")


def _numbered(pair: tuple[int, str]) -> str:
    number, text = pair
    return f"{number} {text.removeprefix('a ').removeprefix('an ')}"


def read_labels(texts: Sequence[str]) -> list[float]:
    """The labels of the prompts, in their order.

    Raises:
        ValueError: The table was written for other prompts.
    """
    with LABELS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if [row["prompt"] for row in rows] != list(texts):
        raise ValueError(f"{LABELS.name} was written for other prompts")
    return [float(row["label"]) for row in rows]


def compare(model: str, out: Path) -> None:
    """Prints the rank correlation of each judge with the labels; writes sheets of fooled judges."""
    out.mkdir(parents=True, exist_ok=True)
    texts = captions()
    right = np.array(read_labels(texts))
    images = images_of(model, texts)
    table = ddpo.score(JUDGES, images, prompts=texts)
    for judge in JUDGES:
        name = judge.partition(":")[0]
        scores = np.asarray(table[name], dtype=np.float64)
        rho = agreement(scores, right, texts).spearman
        means = [scores[right == label].mean() for label in np.unique(right)]
        say(f"{judge}: rho {rho.value:.2f} ({rho.low:.2f} to {rho.high:.2f})")
        say("  mean scores by label: " + ", ".join(f"{mean:.3f}" for mean in means))
        fooled = [at for at in scores.argsort()[::-1] if right[at] < 1][:FOOLED]
        tiles = [titled(images[at], f"{scores[at]:.2f} {texts[at]}") for at in fooled]
        save_png(contact_sheet(tiles, columns=COLUMNS), out / f"fooled-{name}.png")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("draw", "compare"))
    parser.add_argument("--model", default="emoji-scenes", help="name or folder of the model")
    parser.add_argument("--out", type=Path, default=Path("runs/hand-labels"))
    given = parser.parse_args()
    {"draw": draw, "compare": compare}[given.command](given.model, given.out)


if __name__ == "__main__":
    main()
