"""The SDXL policy on a tiny random model: images and files as in diffusers, exact ratios."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from safetensors.torch import save_file

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.images import to_uint8
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.policies.sampler import (
    SampleKey,
    SamplerSettings,
    guided,
    sample_images,
    sample_noise,
    sample_trajectory,
)
from ddpo.policies.sdxl import StableDiffusionXLPolicy
from ddpo.policies.transition import ddim_mean, gaussian_log_prob
from ddpo.types import Prompt

KEYS = [SampleKey(Prompt("a cat"), 0), SampleKey(Prompt("a dog"), 0), SampleKey(Prompt("a cat"), 1)]
Run = Callable[..., tuple[int, str, str]]


@torch.no_grad()
def disturb(policy: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    for _, parameter in policy.trainable_parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def pipeline_of(folder: Path) -> Any:
    """Diffusers' own, with DDIM in place of Euler."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_deterministic_sampling_gives_the_images_of_the_diffusers_pipeline(
    tiny_xl: Path, tmp_path: Path, guidance: float, zeros: bool
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_xl, model)
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(
        json.dumps(index | {"force_zeros_for_empty_prompt": zeros})
    )
    policy = load_policy(str(model))
    pipeline = pipeline_of(model)
    assert isinstance(policy, StableDiffusionXLPolicy)
    noise = sample_noise(KEYS[0], 0, 5, policy.latent_shape)[:1]
    expected = pipeline(
        "a cat",
        latents=noise,
        num_inference_steps=5,
        guidance_scale=guidance,
        eta=0.0,
        output_type="pt",
    ).images
    (found,) = sample_images(
        policy, KEYS[:1], SamplerSettings(steps=5, guidance=guidance, eta=0.0, batch=1), seed=0
    )
    torch.testing.assert_close(found.pixels, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_stored_paths_have_ratio_one_to_the_bit(tiny_xl: Path, kind: Any, dtype: str) -> None:
    policy = load_policy(str(tiny_xl), dtype=dtype)
    policy.adapt(kind)
    disturb(policy)
    path = sample_trajectory(policy, KEYS, SamplerSettings(steps=4, guidance=3.0, batch=4), seed=3)
    coefficients = policy.schedule.coefficients(4, 1.0)
    images = torch.tensor([2, 0, 2, 1])
    steps = torch.tensor([3, 0, 1, 3])
    conditioning = policy.encode([KEYS[i].prompt.text for i in images])
    x_t = path.latents[images, steps]
    x_prev = path.latents[images, steps + 1]
    output = guided(
        policy, x_t, coefficients.timesteps[steps], conditioning, policy.encode([""]), 3.0
    )
    found = gaussian_log_prob(
        x_prev,
        ddim_mean(output, x_t, steps, coefficients, policy.schedule.prediction),
        coefficients.std[steps],
    )
    assert torch.equal(found, path.log_probs[images, steps])
    assert found.requires_grad


def test_in_float16_the_autoencoder_that_asks_for_it_decodes_in_float32(tiny_xl: Path) -> None:
    policy = load_policy(str(tiny_xl), dtype="float16")
    assert policy.vae.dtype == torch.float32  # type: ignore[attr-defined]
    assert (
        policy.decode(torch.zeros(1, *policy.latent_shape, dtype=torch.float16)).dtype
        == torch.float32
    )
    halved = load_policy(str(tiny_xl), dtype="bfloat16")
    assert halved.vae.dtype == torch.bfloat16  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_is_trained_sampled_exported_and_the_same_in_plain_diffusers(
    ddpo: Run, tiny_xl: Path, tmp_path: Path, kind: str
) -> None:
    sets = [
        "sample.samples=8",
        "sample.per_prompt=4",
        "sample.steps=3",
        "sample.batch=4",
        "sample.guidance=2.0",
        "optim.updates=1",
    ]
    sets += ["optim.timesteps=2", "optim.lr=3e-2", "iterations=1", f"adapt.kind={kind}"]
    chosen = [word for one in sets for word in ("--set", one)]
    code, _, errors = ddpo(
        "train", "--model", tiny_xl, "--reward", "darkness", "--out", tmp_path / "run", *chosen
    )
    assert code == 0, errors
    (line,) = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert line["ratio_first_deviation"] == 0
    assert line["grad_norm"] > 0
    code, _, errors = ddpo("export", tmp_path / "run", "--out", tmp_path / "out")
    assert code == 0, errors
    if kind == "lora":
        pipeline = pipeline_of(tiny_xl)
        pipeline.load_lora_weights(tmp_path / "out")
    else:
        pipeline = pipeline_of(tmp_path / "out")
    tuned = load_policy(str(tiny_xl), tmp_path / "run")
    settings = SamplerSettings(steps=3, guidance=2.0, batch=2)
    theirs = StableDiffusionXLPolicy(str(tiny_xl))
    for name in (*theirs.BESIDE, "unet", "vae"):
        setattr(theirs, name, getattr(pipeline, name))
    policies = (theirs, tuned, load_policy(str(tiny_xl)))
    found, expected, before = (
        next(sample_images(policy, KEYS[:2], settings, 0)) for policy in policies
    )
    assert torch.equal(found.pixels, expected.pixels)
    assert not (to_uint8(before.pixels) == to_uint8(expected.pixels)).all(), (
        "the training changed nothing that can be seen"
    )


def test_a_lora_of_kohya_with_the_names_of_the_original_code(tiny_xl: Path, tmp_path: Path) -> None:
    """The second down block's first layer is input block 3 (0 convolution, 1 layer, 2 sampler)."""
    where = "lora_unet_input_blocks_3_1_transformer_blocks_{}_attn1_to_q"
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for layer in (0, 1):
        name = where.format(layer)
        tensors |= {
            f"{name}.lora_down.weight": torch.randn(2, 32, generator=generator),
            f"{name}.alpha": torch.tensor(1.0),
        }
        tensors[f"{name}.lora_up.weight"] = torch.randn(32, 2, generator=generator)
    save_file(tensors, tmp_path / "style.safetensors")
    policy = load_policy(str(tiny_xl), find_checkpoint(tmp_path, str(tiny_xl)))
    pipeline = pipeline_of(tiny_xl)
    changed = {name.partition(".lora_")[0] for name, _ in policy.trainable_parameters()}
    assert changed == {
        f"down_blocks.1.attentions.0.transformer_blocks.{layer}.attn1.to_q" for layer in (0, 1)
    }
    pipeline.load_lora_weights(tmp_path)
    theirs = StableDiffusionXLPolicy(str(tiny_xl))
    before = StableDiffusionXLPolicy(str(tiny_xl))
    theirs.unet = pipeline.unet
    latents = torch.randn(2, *policy.latent_shape, generator=generator)
    steps = torch.tensor([10, 700])
    conditioning = policy.encode(["a", "b"])
    with torch.no_grad():
        one, other, base = (
            p.predict(latents, steps, conditioning) for p in (policy, theirs, before)
        )
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(one, base, atol=1e-3)


def test_a_pipeline_that_ddpo_does_not_know_is_named(tiny_xl: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_xl, tmp_path / "model")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    (tmp_path / "model" / "model_index.json").write_text(
        json.dumps(index | {"_class_name": "KandinskyPipeline"})
    )
    with pytest.raises(
        ConfigError,
        match="is a KandinskyPipeline; ddpo can train StableDiffusionPipeline, StableDiffusionXL",
    ):
        load_policy(str(tmp_path / "model"))


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_index_is_reported_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(
        MissingResourceError, match=r"cannot be loaded: .*model_index\.json is damaged: "
    ) as caught:
        load_policy(str(tmp_path))
    assert "\n" not in str(caught.value)
