"""The embedded flow model: files match the manifest, and images those of the plain pipeline."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpo.policies import load_policy
from ddpo.policies.family import chosen_sampler, family_of
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_images, sample_noise
from ddpo.recipes import read_builtin
from ddpo.rewards.scenes.grammar import SHAPES
from ddpo.rewards.scenes.world import NOUNS
from ddpo.types import Prompt
from pretraining.worlds import WORLDS

WEIGHTS = Path(str(files("ddpo.policies") / "emoji_flow" / "weights"))


def test_the_weights_are_those_of_the_manifest_and_small() -> None:
    facts = json.loads((WEIGHTS / "manifest.json").read_text())["files"]
    present = {str(p.relative_to(WEIGHTS)) for p in WEIGHTS.rglob("*") if p.is_file()}
    assert present - {"manifest.json", "README.md"} == set(facts)
    for name, fact in facts.items():
        assert hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest() == fact["sha256"], name
    assert sum(fact["bytes"] for fact in facts.values()) <= 10e6


def test_the_words_that_the_warning_knows_are_those_of_the_training_captions() -> None:
    taught = json.loads((files("ddpo.policies.emoji_flow") / "words.json").read_text("utf-8"))
    assert taught == {"nouns": [*NOUNS, *SHAPES], "words": WORLDS["emoji-scenes"].words()}


@pytest.mark.parametrize("kind", ["none", "full", "lora"])
def test_images_are_those_of_the_plain_pipeline_with_all_its_zeros(kind: Any) -> None:
    from diffusers import StableDiffusion3Pipeline

    policy: Any = load_policy("emoji-flow", device="cpu")
    pipeline: Any = StableDiffusion3Pipeline.from_pretrained(
        WEIGHTS, text_encoder_3=None, tokenizer_3=None, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    if kind != "none":
        policy.adapt(kind)  # starts as the base model
    key = SampleKey(Prompt("two red stars"), 0)
    noise = sample_noise(key, 0, 4, policy.latent_shape)[:1]
    for guidance in (1.0, 3.0):
        expected = pipeline(
            "two red stars",
            latents=noise,
            num_inference_steps=4,
            guidance_scale=guidance,
            output_type="pt",
        ).images
        settings = SamplerSettings(
            steps=4, guidance=guidance, eta=0.0, batch=1, grid="diffusers", transition="flow_sde"
        )
        (found,) = sample_images(policy, [key], settings, seed=0)
        assert float((found.pixels - expected).abs().max()) <= 1e-4
        with policy.reference():
            (base,) = sample_images(policy, [key], settings, seed=0)
        assert torch.equal(base.pixels, found.pixels)


def test_its_family_has_a_recipe_of_a_flow() -> None:
    assert family_of("emoji-flow") == "emoji_flow"
    sampler = chosen_sampler("emoji-flow", {}, {})
    assert sampler == {name: read_builtin("emoji_flow")["sample"][name] for name in sampler}
    assert sampler["transition"] == "flow_sde"


def test_images_depend_on_the_prompt() -> None:
    """A banana is yellower (red and green above blue) than a whale, averaged over backgrounds."""
    policy = load_policy("emoji-flow", device="cpu")
    settings = SamplerSettings(batch=16, **chosen_sampler("emoji-flow", {}, {"guidance": 3.0}))
    yellow = {}
    for text in ("a banana", "a whale"):
        keys = [SampleKey(Prompt(text), index) for index in range(16)]
        pixels = torch.cat(
            [batch.pixels for batch in sample_images(policy, keys, settings, seed=0)]
        )
        center = pixels[:, :, 20:44, 20:44].mean((0, 2, 3))
        yellow[text] = float(center[0] + center[1] - 2 * center[2])
    assert yellow["a banana"] > yellow["a whale"] + 0.2
