"""Quality measures of the embedded model: `python -m pretraining.measure`.

Writes `measures.json` and a contact sheet per split to `--out`. The measures are size, autoencoder
PSNR and recognisability. Recognisability is the share of generated images whose noun a judge of
shape names (`pretraining.judge`), beside its accuracy on new renderings and reconstructions.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpo.images import contact_sheet, save_png, to_pil
from ddpo.policies import model_folder
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_images
from ddpo.policies.stable_diffusion import StableDiffusionPolicy
from ddpo.rewards.scenes.world import NOUNS, OBJECTS, SEEN_ANIMALS, UNSEEN_ANIMALS, with_article
from ddpo.types import Prompt
from pretraining.judge import Judge, blur, draw_batch, train_judge, without_color
from pretraining.render import Renderer

SPLITS = {"animals": SEEN_ANIMALS, "unseen_animals": UNSEEN_ANIMALS, "objects": OBJECTS}


def say(line: str) -> None:
    """Prints one line of progress."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@torch.no_grad()
def reconstruct(policy: StableDiffusionPolicy, pixels: Tensor) -> Tensor:
    """The autoencoder's deterministic reconstructions, `[batch, 3, 64, 64]` in [0, 1]."""
    scale = policy.vae.config["scaling_factor"]
    means = [policy.vae.encode(part * 2 - 1).latent_dist.mean for part in pixels.split(64)]
    return torch.cat([policy.decode(mean * scale) for mean in means])


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, from the mean squared error over all 8-bit images."""
    error = float(((a * 255).round() - (b * 255).round()).square().mean())
    return 10 * math.log10(255**2 / error)


def accuracy(judge: Judge, pixels: Tensor, labels: Tensor) -> float:
    """The top-1 accuracy of the judge."""
    return float((judge.name(pixels) == labels.numpy()).mean())


def generate(
    policy: StableDiffusionPolicy,
    nouns: Sequence[str],
    each: int,
    settings: SamplerSettings,
    seed: int,
) -> Tensor:
    """Images of "a noun", `each` for every noun, grouped by noun."""
    keys = [SampleKey(Prompt(with_article(noun)), index) for noun in nouns for index in range(each)]
    return torch.cat([batch.pixels for batch in sample_images(policy, keys, settings, seed)])


def measure(
    policy: StableDiffusionPolicy,
    judge: Judge,
    renderer: Renderer,
    each: int,
    settings: SamplerSettings,
    out: Path,
) -> dict[str, Any]:
    """All measures by name; also writes the contact sheets."""
    drawn, labels = draw_batch(renderer, np.random.default_rng([2024, 1]), 1024)
    grey = without_color(drawn, np.random.default_rng([2024, 2]))
    rebuilt = reconstruct(policy, drawn)
    names = list(NOUNS)
    recognised: dict[str, float] = {}
    right_by_noun: dict[str, float] = {}
    start = time.perf_counter()
    for split, nouns in SPLITS.items():
        images = generate(policy, list(nouns), each, settings, seed=12345)
        named = judge.name(images).reshape(len(nouns), each)
        for row, noun in enumerate(nouns):
            right_by_noun[noun] = float((named[row] == names.index(noun)).mean())
        recognised[split] = float(np.mean([right_by_noun[noun] for noun in nouns]))
        first = to_pil(images.reshape(len(nouns), each, *images.shape[1:])[:, 0])
        sheet = contact_sheet([image.resize((128, 128)) for image in first], columns=10)
        save_png(sheet, out / f"sheet-{split}.png")
        say(f"{split}: {recognised[split]:.1%} of {images.shape[0]} images named")
    seconds = time.perf_counter() - start
    folder = model_folder(policy.model)
    return {
        "megabytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6,
        "psnr_db": psnr(drawn, rebuilt),
        "judge_on_renderings": accuracy(judge, drawn, labels),
        "judge_on_grey_or_hue_shuffled_renderings": accuracy(judge, grey, labels),
        "judge_on_reconstructions": accuracy(judge, rebuilt, labels),
        "judge_on_renderings_blurred_by_3_pixels": accuracy(judge, blur(drawn, 3.0), labels),
        "judge_on_renderings_blurred_by_6_pixels": accuracy(judge, blur(drawn, 6.0), labels),
        "recognised": float(np.mean([right_by_noun[noun] for noun in NOUNS])),
        "recognised_by_split": recognised,
        "nouns_named_in_most_pictures": sum(share > 0.5 for share in right_by_noun.values()),
        "recognised_by_noun": right_by_noun,
        "pictures_each": each,
        "sampler": {"steps": settings.steps, "guidance": settings.guidance, "eta": settings.eta},
        "seconds_per_picture": seconds / (each * len(NOUNS)),
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="emoji", help="'emoji' or a folder in the same format")
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-measures"))
    parser.add_argument("--each", type=int, default=10, help="images per noun")
    parser.add_argument("--judge-steps", type=int, default=600)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--font", type=Path, default=None)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    renderer = Renderer(arguments.font)
    judge = Judge()
    for step, right, judge in train_judge(  # noqa: B007  # the last one measures
        renderer, arguments.judge_steps, 0, arguments.out / "judge.safetensors"
    ):
        if step % 100 == 0:
            say(f"judge: step {step}/{arguments.judge_steps}, {right:.0%} of the batch")
    settings = SamplerSettings(
        steps=arguments.steps, guidance=arguments.guidance, eta=arguments.eta, batch=50
    )
    policy = StableDiffusionPolicy(arguments.model)
    figures = measure(policy, judge, renderer, arguments.each, settings, arguments.out)
    (arguments.out / "measures.json").write_text(json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        if isinstance(value, int | float):
            say(f"{name}: {value:.4g}")
    say(f"sheets and measures.json in {arguments.out}")


if __name__ == "__main__":
    main()
