"""A tiny random Stable Diffusion: exact ratios, batch independence, files for plain diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from ddpo.errors import CheckpointError, ConfigError, MissingResourceError, UnknownNameError
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
from ddpo.policies.stable_diffusion import LoraSettings, StableDiffusionPolicy
from ddpo.policies.transition import ddim_mean, gaussian_log_prob
from ddpo.types import Prompt

KEYS = [SampleKey(Prompt("a cat"), 0), SampleKey(Prompt("a dog"), 0), SampleKey(Prompt("a cat"), 1)]
SETTINGS = SamplerSettings(steps=4, guidance=1.0, batch=4)


@torch.no_grad()
def disturb(policy: StableDiffusionPolicy) -> None:
    """Moves the trained weights away from the start, as training would."""
    generator = torch.Generator().manual_seed(5)
    for _, parameter in policy.trainable_parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def policy(tiny_model: Path) -> StableDiffusionPolicy:
    return load_policy(str(tiny_model))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_stored_paths_have_ratio_one_to_the_bit(
    tiny_model: Path, kind: str, guidance: float, dtype: str
) -> None:
    policy = load_policy(str(tiny_model), dtype=dtype)
    policy.adapt("lora" if kind == "lora" else "full")
    disturb(policy)
    settings = SamplerSettings(steps=4, guidance=guidance, batch=4)
    path = sample_trajectory(policy, KEYS, settings, seed=3)
    coefficients = policy.schedule.coefficients(4, 1.0)
    images = torch.tensor([2, 0, 2, 1])
    steps = torch.tensor([3, 0, 1, 3])
    conditioning = policy.encode([KEYS[i].prompt.text for i in images])
    x_t = path.latents[images, steps]
    x_prev = path.latents[images, steps + 1]
    output = guided(
        policy, x_t, coefficients.timesteps[steps], conditioning, policy.encode([""]), guidance
    )
    found = gaussian_log_prob(
        x_prev,
        ddim_mean(output, x_t, steps, coefficients, policy.schedule.prediction),
        coefficients.std[steps],
    )
    assert torch.equal(found, path.log_probs[images, steps])
    assert found.requires_grad


def test_a_image_does_not_depend_on_its_batch_mates(policy: StableDiffusionPolicy) -> None:
    together = sample_trajectory(policy, KEYS, SETTINGS, seed=0)
    alone = sample_trajectory(policy, KEYS[2:], SETTINGS, seed=0)
    assert torch.equal(together.latents[2:], alone.latents)
    assert torch.equal(together.log_probs[2:], alone.log_probs)


def test_noise_is_keyed_by_seed_prompt_and_index() -> None:
    first = sample_noise(KEYS[0], 0, 2, (4, 8, 8))
    assert torch.equal(first, sample_noise(SampleKey(Prompt("a cat"), 0), 0, 2, (4, 8, 8)))
    for other in (
        sample_noise(KEYS[1], 0, 2, (4, 8, 8)),
        sample_noise(KEYS[2], 0, 2, (4, 8, 8)),
        sample_noise(KEYS[0], 1, 2, (4, 8, 8)),
    ):
        assert not torch.equal(first, other)


def test_deterministic_sampling_gives_the_images_of_the_diffusers_pipeline(
    tiny_model: Path, policy: StableDiffusionPolicy
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    noise = sample_noise(KEYS[0], 0, 5, policy.latent_shape)[:1]
    expected = pipeline(
        "a cat", latents=noise, num_inference_steps=5, guidance_scale=3.0, eta=0.0, output_type="pt"
    ).images
    settings = SamplerSettings(steps=5, guidance=3.0, eta=0.0, batch=1)
    (found,) = sample_images(policy, KEYS[:1], settings, seed=0)
    torch.testing.assert_close(found.pixels, expected, atol=1e-4, rtol=1e-3)


def test_reference_is_the_model_before_training(policy: StableDiffusionPolicy) -> None:
    before = sample_trajectory(policy, KEYS, SETTINGS, seed=0)
    policy.adapt("lora")
    assert torch.equal(sample_trajectory(policy, KEYS, SETTINGS, seed=0).latents, before.latents)
    disturb(policy)
    assert not torch.equal(
        sample_trajectory(policy, KEYS, SETTINGS, seed=0).latents, before.latents
    )
    with policy.reference():
        assert torch.equal(
            sample_trajectory(policy, KEYS, SETTINGS, seed=0).latents, before.latents
        )


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_saved_checkpoint_samples_the_same(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    policy = load_policy(str(tiny_model))
    policy.adapt("lora" if kind == "lora" else "full", LoraSettings(rank=3, alpha=6))
    disturb(policy)
    policy.save(tmp_path, iteration=7)
    again = load_policy(str(tiny_model), tmp_path)
    assert find_checkpoint(tmp_path).iteration == 7
    assert torch.equal(
        sample_trajectory(policy, KEYS, SETTINGS, 0).latents,
        sample_trajectory(again, KEYS, SETTINGS, 0).latents,
    )
    with again.reference():
        base = sample_trajectory(load_policy(str(tiny_model)), KEYS, SETTINGS, 0)
        assert torch.equal(sample_trajectory(again, KEYS, SETTINGS, 0).latents, base.latents)


def test_plain_diffusers_loads_the_lora(tiny_model: Path, tmp_path: Path) -> None:
    policy = load_policy(str(tiny_model))
    policy.adapt("lora", LoraSettings(rank=3, alpha=6))
    disturb(policy)
    policy.save(tmp_path, iteration=1)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    pipeline.load_lora_weights(tmp_path)
    latents = torch.randn(2, 4, 8, 8)
    times = torch.tensor([10, 700])
    hidden = policy.encode(["a cat", "a dog"])
    with torch.no_grad():
        assert torch.equal(
            pipeline.unet(latents, times, hidden).sample, policy.predict(latents, times, hidden)
        )


def test_bad_models_and_checkpoints_are_reported_in_one_line(
    tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'emoji'"):
        load_policy("emojy")
    with pytest.raises(MissingResourceError, match=r"no model_index\.json"):
        load_policy(str(tmp_path))
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        find_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match="neither a checkpoint"):
        find_checkpoint(tmp_path)
    (tmp_path / "policy.json").write_text("{not json")
    with pytest.raises(CheckpointError, match="damaged"):
        find_checkpoint(tmp_path)
    (tmp_path / "policy.json").write_text(
        '{"schema": 1, "model": "x", "kind": "lora", "iteration": 1}'
    )
    with pytest.raises(CheckpointError, match="lacks pytorch_lora_weights"):
        find_checkpoint(tmp_path)
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"it has no adapter\.rank"):
        find_checkpoint(tmp_path)
    policy = load_policy(str(tiny_model))
    with pytest.raises(ConfigError, match="LoRA targets nothing_here"):
        policy.adapt("lora", LoraSettings(targets=("nothing_here",)))


def test_a_checkpoint_of_another_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    policy = load_policy(str(tiny_model))
    policy.adapt("lora")
    policy.model = "somebody/else"
    policy.save(tmp_path, iteration=1)
    with pytest.raises(CheckpointError, match="was trained from 'somebody/else'"):
        load_policy(str(tiny_model), tmp_path)


def test_only_the_denoiser_stays_on_the_device(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = StableDiffusionPolicy(str(tiny_model), device="cpu:0")  # main memory is "cpu"
    policy.adapt("full")
    places: list[tuple[str, str]] = []

    def watch(name: str) -> None:
        module = getattr(policy, name)
        move = getattr(policy, name).to

        def to(device: object) -> object:
            places.append((name, str(device)))
            return move(device)

        monkeypatch.setattr(module, "to", to)

    for name in ("text_encoder", "vae", "_reference"):
        watch(name)
    conditioning = policy.encode(["a cat", "a dog"])
    assert places == [("text_encoder", "cpu:0"), ("text_encoder", "cpu")]
    policy.encode(["a dog"])
    assert places[2:] == []  # known already
    latents = torch.zeros(2, *policy.latent_shape)
    step = torch.tensor([5, 5])
    policy.decode(latents)
    with torch.no_grad():
        policy.predict(latents, step, conditioning)
    assert places[2:] == [("vae", "cpu:0")]  # sampling again
    policy.predict(latents, step, conditioning)
    assert places[3:] == [("vae", "cpu")]  # training
    with policy.reference():
        policy.predict(latents, step, conditioning)
    assert ("_reference", "cpu:0") in places[4:]


def test_remembered_texts_are_bounded_and_the_latest_stay(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy: Any = load_policy(str(tiny_model))
    encoded: list[str] = []
    encode = policy._encode
    monkeypatch.setattr(policy, "_encode", lambda text: (encoded.append(text), encode(text))[1])
    alone = {text: encode(text) for text in "abcdef"}
    monkeypatch.setattr("ddpo.policies.conditioning_cache.MOST_BYTES", 3 * alone["a"].nbytes)
    for asked in ("abc", "a", "d", "abcdef", "fa", "b"):
        found = policy.encode(list(asked))
        assert torch.equal(found, torch.cat([alone[text] for text in asked]))
    assert encoded == list("abcdbefb")  # "abcdef" is more than fits: it is kept until the next call


def test_coefficients_are_made_once_per_device_and_setting(tiny_model: Path) -> None:
    schedule = load_policy(str(tiny_model)).schedule
    made = schedule.coefficients_on(torch.device("cpu"), 5, 1.0)
    assert schedule.coefficients_on(torch.device("cpu"), 5, 1.0) is made
    for steps, eta in ((4, 1.0), (5, 0.5), (20, 1.0)):
        other = schedule.coefficients_on(torch.device("cpu"), steps, eta)
        expected = schedule.coefficients(steps, eta)
        assert all(
            torch.equal(getattr(other, name), getattr(expected, name))
            for name in ("timesteps", "alpha", "alpha_prev", "std")
        )
