"""Measures of an embedded model of scenes: `python -m pretraining.measure_scenes --judge FOLDER`.

The captioner reads each generated image. An image is right if the scene that it reads is one of the
prompt (`ddpo.rewards.scenes.grammar.holds`). Writes `scenes.json` with the share of right images by
kind of prompt and split, and a contact sheet per kind.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from ddpo.images import contact_sheet, save_png, to_pil
from ddpo.io.atomic import write_json
from ddpo.policies import load_policy
from ddpo.policies.family import chosen_sampler
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_images
from ddpo.rewards.scenes.grammar import KINDS, Scene, caption, holds, scene_of
from ddpo.types import Prompt
from pretraining.captioner import QUESTIONS
from pretraining.judge_training import say
from pretraining.scene_sampling import activity_scenes, random_scene

KEY: Final = 98
NEW_TOKENS: Final = 24
BATCH: Final = 50


class Reader:
    """The captioner of a folder, which reads scenes from images."""

    def __init__(self, folder: Path) -> None:
        from transformers import LlavaForConditionalGeneration, LlavaProcessor

        self.processor: Any = LlavaProcessor.from_pretrained(folder)
        model: Any = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self.model = model.eval()

    @torch.no_grad()
    def read(self, images: Sequence[Image.Image]) -> list[str]:
        """The descriptions of images, batch by batch with one question."""
        content = [{"type": "image"}, {"type": "text", "text": QUESTIONS[0]}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        found: list[str] = []
        for start in range(0, len(images), BATCH):
            some = list(images[start : start + BATCH])
            inputs = self.processor(images=some, text=[text] * len(some), return_tensors="pt")
            ids = self.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
            answers = ids[:, inputs.input_ids.shape[1] :]
            found += self.processor.batch_decode(answers, skip_special_tokens=True)
        return found


def is_right(prompt: Scene, answer: str) -> bool:
    """True if the scene of an answer is one of the prompt; False outside the grammar."""
    try:
        return holds(prompt, scene_of(answer))
    except ValueError:
        return False


def prompts(count: int) -> Iterator[tuple[str, list[Scene]]]:
    """Name and scenes of each set: random scenes by kind, then the pairings of activities."""
    for kind in KINDS:
        rng = np.random.default_rng([KEY, KINDS.index(kind)])
        yield kind, [random_scene(rng, kind) for _ in range(count)]
    for split in ("seen", "held_out", "unseen"):
        yield f"activities, {split}", activity_scenes(split)


def measure(
    policy: Policy,
    reader: Reader,
    settings: SamplerSettings,
    count: int,
    out: Path,
    sets: Sequence[str] = (),
) -> Mapping[str, Mapping[str, Any]]:
    """By set: share of right images, and examples of answers; also writes the contact sheets.

    Args:
        policy: Model.
        reader: Captioner.
        settings: Settings of the sampler.
        count: Images of each kind.
        out: Folder of the contact sheets.
        sets: Names of the only sets; empty for all.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, scenes in prompts(count):
        if sets and name not in sets:
            continue
        keys = [SampleKey(Prompt(caption(scene)), index) for index, scene in enumerate(scenes)]
        pixels = [batch.pixels for batch in sample_images(policy, keys, settings, seed=12345)]
        images = to_pil(torch.cat(pixels))
        answers = reader.read(images)
        right = [is_right(*pair) for pair in zip(scenes, answers, strict=True)]
        share = float(np.mean(right))
        pairs = [[caption(s), a] for s, a in zip(scenes, answers, strict=True)]
        found[name] = {"images": len(images), "right": share, "examples": pairs[:8]}
        sheet = contact_sheet([image.resize((128, 128)) for image in images[:40]], columns=10)
        save_png(sheet, out / f"sheet-{name.replace(', ', '-').replace(' ', '-')}.png")
        say(f"{name}: {share:.1%} of {len(images)} images are right")
    return found


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="emoji-scenes", help="name or folder of the model")
    parser.add_argument("--judge", type=Path, required=True, help="folder of the captioner")
    parser.add_argument("--out", type=Path, default=Path("runs/scene-measures"))
    parser.add_argument("--count", type=int, default=100, help="images per kind")
    parser.add_argument(
        "--sets", nargs="*", default=[], help="names of the only sets; default: all"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--eta", type=float, default=None, help="default: that of the family")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    asked = {"steps": given.steps, "guidance": given.guidance, "eta": given.eta}
    sampler = chosen_sampler(given.model, {}, asked)
    settings = SamplerSettings(batch=BATCH, **sampler)
    policy = load_policy(given.model, device="cpu")
    figures = measure(policy, Reader(given.judge), settings, given.count, given.out, given.sets)
    write_json(given.out / "scenes.json", {"sampler": sampler, "sets": dict(figures)})


if __name__ == "__main__":
    main()
