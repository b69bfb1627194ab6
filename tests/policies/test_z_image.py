"""Tiny random Z-Image models: the images of diffusers' own pipeline, exact ratios, training."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ZImagePipeline

from ddpo.errors import ConfigError, UnknownNameError
from ddpo.io.tensors import load_tensors
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.policies.family import family_of
from ddpo.policies.policy import LoraSettings
from ddpo.policies.prompt_reader import PromptReader
from ddpo.policies.sampler import (
    SampleKey,
    SamplerSettings,
    guided,
    sample_images,
    sample_noise,
    sample_trajectory,
)
from ddpo.policies.transition import gaussian_log_prob
from ddpo.trainer import TrainConfig, config_from_dict, resume, train
from ddpo.trainer.monitoring.findings import distilled_model
from ddpo.trainer.run.model_card import model_card
from ddpo.trainer.settings import config_for
from ddpo.types import Prompt
from tests.tiny_flow_models import write_tiny_z_image

LONG = "a very long dog that is much longer than thirty-two bytes of text"
KEYS = [SampleKey(Prompt("a cat"), 0), SampleKey(Prompt(LONG), 0), SampleKey(Prompt("a cat"), 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_z_image(tmp_path_factory.mktemp("z-image"))


def pipeline_of(model: Path) -> Any:
    pipeline = ZImagePipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def disturb(policy: Any) -> None:
    """Moves the trained weights away from the start, as training would."""
    generator = torch.Generator().manual_seed(5)
    for _, parameter in policy.trainable_parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_images_without_noise_are_those_of_the_pipeline(
    tmp_path: Path, side: int, guidance: float
) -> None:
    model = write_tiny_z_image(tmp_path, side)
    policy = load_policy(str(model))
    keys = KEYS[:2]
    noise = torch.stack([sample_noise(key, 0, 4, policy.latent_shape)[0] for key in keys])
    expected = pipeline_of(model)(
        [key.prompt.text for key in keys],
        latents=noise,
        height=side,
        width=side,
        num_inference_steps=4,
        guidance_scale=guidance - 1,
        output_type="pt",
    ).images
    settings = SamplerSettings(steps=4, guidance=guidance, eta=0.0, batch=2)
    (found,) = sample_images(policy, keys, settings, seed=0)
    torch.testing.assert_close(found.pixels, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("shift", "steps"), [(6.0, 4), (6.0, 50), (3.0, 8)])
def test_the_noise_levels_are_those_of_the_pipeline(
    tmp_path: Path, shift: float, steps: int
) -> None:
    model = write_tiny_z_image(tmp_path, shift=shift)
    pipeline = pipeline_of(model)
    pipeline(
        LONG, height=64, width=64, num_inference_steps=steps, guidance_scale=0, output_type="pt"
    )
    ours = load_policy(str(model)).schedule.coefficients(steps, 0.7).timesteps
    torch.testing.assert_close(ours, pipeline.scheduler.timesteps / 1000, rtol=0, atol=2e-7)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_stored_paths_have_ratio_one_to_the_bit(folder: Path, kind: Any, dtype: str) -> None:
    """Items of one call come from other images than in the rollout, with texts of other lengths."""
    policy = load_policy(str(folder), dtype=dtype)
    policy.adapt(kind, LoraSettings(rank=2, alpha=4))
    disturb(policy)
    settings = SamplerSettings(steps=4, guidance=3.5, eta=0.7, batch=4)
    path = sample_trajectory(policy, KEYS, settings, seed=3)
    assert bool(path.latents.isfinite().all())
    coefficients = policy.schedule.coefficients_on(policy.device, 4, 0.7)
    images = torch.tensor([2, 0, 2, 0])
    steps = torch.tensor([3, 0, 1, 2])
    texts = policy.encode(["a cat", LONG])
    x_t = path.latents[images, steps]
    times = coefficients.timesteps[steps]
    conditioning = texts[torch.tensor([0, 1, 0])[images]]
    output = guided(policy, x_t, times, conditioning, policy.encode([""]), 3.5)
    mean = policy.schedule.mean(output, x_t, steps, coefficients)
    found = gaussian_log_prob(path.latents[images, steps + 1], mean, coefficients.std[steps])
    assert torch.equal(found, path.log_probs[images, steps])
    assert found.requires_grad


def config_of(model: Path, kind: str, iterations: int) -> TrainConfig:
    values: dict[str, Any] = {
        "model": str(model),
        "reward": "darkness",
        "iterations": iterations,
        "checkpoint_every": 1,
        "sample": {"samples": 4, "per_prompt": 2, "steps": 3, "batch": 2, "eta": 0.7},
        "optim": {"updates": 2, "timesteps": 2, "lr": 1e-2},
        "advantage": {"kind": "per_prompt", "min_count": 2},
        "adapt": {"kind": kind},
    }
    return config_from_dict(values)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_trains_and_is_resumed_to_the_same_weights(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    list(train(config_of(folder, kind, 2), tmp_path / "straight"))
    list(train(config_of(folder, kind, 1), tmp_path / "resumed"))
    list(resume(tmp_path / "resumed", 2))
    lines = [
        json.loads(line)
        for line in (tmp_path / "straight" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["ratio_first_deviation"] for line in lines] == [0.0, 0.0]
    states = []
    for run in ("straight", "resumed"):
        files = sorted((tmp_path / run).rglob("*.safetensors"))
        states.append(
            {str(file.relative_to(tmp_path / run)): load_tensors(file)[0] for file in files}
        )
    assert states[0].keys() == states[1].keys()
    assert states[0]
    for name, tensors in states[0].items():
        assert all(torch.equal(value, states[1][name][key]) for key, value in tensors.items())
    trained_with = config_of(folder, kind, 2).sample.guidance
    card = model_card(find_checkpoint(tmp_path / "straight"), whole=kind == "full")
    (scale,) = re.findall(r"guidance_scale=([\d.]+)", card)
    assert float(scale) == trained_with - 1  # of the pipeline, whose 0 is 1 here


def test_plain_diffusers_loads_the_lora(folder: Path, tmp_path: Path) -> None:
    policy: Any = load_policy(str(folder))
    policy.adapt("lora", LoraSettings(rank=3, alpha=6))
    disturb(policy)
    policy.save(tmp_path, iteration=1)
    pipeline = pipeline_of(folder)
    pipeline.load_lora_weights(tmp_path)
    latents = torch.randn(2, *policy.latent_shape, generator=torch.Generator().manual_seed(1))
    times = torch.tensor([0.25, 0.875])
    conditioning = policy.encode(["a cat", LONG])
    with torch.no_grad():
        theirs = [
            pipeline.transformer([image[:, None]], 1 - time[None], [hidden], return_dict=False)[0][
                0
            ]
            for image, time, hidden in zip(
                latents, times, conditioning.parts["hidden"], strict=True
            )
        ]
        ours = policy.predict(latents, times, conditioning)
        with policy.reference():
            before = policy.predict(latents, times, conditioning)
    torch.testing.assert_close(ours, -torch.stack(theirs).squeeze(2), rtol=0, atol=1e-5)
    assert float((ours - before).abs().max()) > 1e-2
    again = load_policy(str(folder), tmp_path)
    with torch.no_grad():
        assert torch.equal(ours, again.predict(latents, times, again.encode(["a cat", LONG])))


@pytest.mark.parametrize(("shift", "word"), [(6.0, ""), (3.0, "turbo")])
def test_a_model_of_few_steps_is_known_by_its_shift(
    tmp_path: Path, shift: float, word: str
) -> None:
    policy: Any = load_policy(str(write_tiny_z_image(tmp_path, shift=shift)))
    assert policy.distilled == word
    assert family_of(policy.model) == (None if word else "z_image")
    warning = distilled_model(policy)
    assert (warning is not None) == bool(word)
    assert word in str(warning)


def change(model: Path, name: str, values: dict[str, Any]) -> str:
    path = model / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return str(model)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        (
            "vae/config.json",
            {"sample_size": 72},
            "sample_size = 72.* multiple of 16 into vae/config",
        ),
        (
            "vae/config.json",
            {"sample_size": 144},
            r"axes_lens = \[1024, 8, 8\]: .* need \[514, 9, 9\]",
        ),
        ("vae/config.json", {"latent_channels": 16}, "in_channels = 4, and its VAE 16 latent"),
        ("transformer/config.json", {"axes_lens": [512, 8, 8]}, "need .514, 4, 4"),
        (
            "transformer/config.json",
            {"siglip_feat_dim": 8},
            "siglip_feat_dim = 8.*does not support",
        ),
        (
            "transformer/config.json",
            {"cap_feat_dim": 32},
            "cap_feat_dim = 32.*text encoder writes 24",
        ),
        ("transformer/config.json", {"all_patch_size": [4]}, "the pipeline uses 2 with 1"),
        ("model_index.json", {"cfg_normalization": True}, "cfg_normalization = True"),
        ("scheduler/scheduler_config.json", {"use_dynamic_shifting": True}, "use_dynamic_shifting"),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "DDIMScheduler"},
            "is a DDIMScheduler, and its denoiser is that of a flow model",
        ),
    ],
)
def test_a_folder_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, name: str, values: dict[str, Any], words: str
) -> None:
    word = change(write_tiny_z_image(tmp_path), name, values)
    with pytest.raises(ConfigError, match=words) as caught:
        load_policy(word)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("", "leaves out the prompt"),
        ("{{ 1 / 0 }}", "no chat template that works: .*division"),
        ("{% if %}", "no chat template that works"),
        ("hello", "leaves out the prompt"),
    ],
)
def test_a_chat_template_that_fails_is_refused_in_one_line(
    tmp_path: Path, template: str, words: str
) -> None:
    model = write_tiny_z_image(tmp_path)
    (model / "tokenizer" / "chat_template.jinja").write_text(template)
    with pytest.raises(ConfigError, match=words) as caught:
        load_policy(str(model))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["cfg_normalization", "cfg_truncation"])
def test_other_forms_of_guidance_are_unknown_settings(setting: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=setting):
        config_for({"sample": {setting: 1.0}})


def test_a_prompt_is_read_inside_the_chat(folder: Path) -> None:
    policy: Any = load_policy(str(folder))
    reader: PromptReader = policy.reader
    assert (reader.length, reader.kept) == (512, 512 - len("*user\n"))  # * is <|im_start|>
    assert reader.unread("x" * reader.kept) == ""
    assert reader.unread("x" * reader.kept + "yz") == "yz"
    rows = policy.encode(["x" * 600, "x" * 600 + "y", "x"]).parts["hidden"]
    assert torch.equal(rows[0], rows[1])
    assert [len(row) for row in rows] == [512, 512, len("user\nx\nassistant\n") + 3]
