"""FLUX.1 and FLUX.2 klein on tiny random models: images, noise levels and files as in diffusers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpo.images import to_uint8
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.policies.flux import FluxPolicy
from ddpo.policies.flux_2_klein import Flux2KleinPolicy
from ddpo.policies.flux_2_schedule import flux_2_shift
from ddpo.policies.packed_policy import pack, unpack
from ddpo.policies.sampler import (
    SampleKey,
    SamplerSettings,
    guided,
    sample_images,
    sample_noise,
    sample_trajectory,
)
from ddpo.policies.transition import gaussian_log_prob
from ddpo.types import Prompt
from tests.tiny_flux_models import write_sample_size, write_tiny_flux, write_tiny_klein

KEYS = [SampleKey(Prompt("a cat"), 0), SampleKey(Prompt("a dog"), 0), SampleKey(Prompt("a cat"), 1)]
POLICIES = {"flux": FluxPolicy, "klein": Flux2KleinPolicy}
FAMILIES = pytest.mark.parametrize("family", list(POLICIES))
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind: those that are trained, and those that were distilled."""
    place = tmp_path_factory.mktemp("flux")
    return {
        "flux": write_tiny_flux(place / "flux"),
        "schnell": write_tiny_flux(place / "without", guidance_embeds=False),
        "klein": write_tiny_klein(place / "klein"),
        "klein distilled": write_tiny_klein(place / "fast", is_distilled=True),
    }


def pipeline_of(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def images_of(policy: Any, guidance: float, steps: int = 4) -> Tensor:
    """The image of the first key, without noise in the steps."""
    settings = SamplerSettings(steps=steps, guidance=guidance, eta=0.0, batch=1, transition="ode")
    (found,) = sample_images(policy, KEYS[:1], settings, seed=0)
    return found.pixels


def theirs(pipeline: Any, policy: Any, guidance: float, steps: int = 4) -> Tensor:
    """The image of diffusers' pipeline from the same noise."""
    noise = sample_noise(KEYS[0], 0, steps, policy.latent_shape)[:1]
    if isinstance(policy, Flux2KleinPolicy):  # its pipeline packs the latents that it is given
        noise = noise.mT.reshape(1, -1, policy.rows, policy.columns)
    drawn: Tensor = pipeline(
        prompt="a cat",
        latents=noise,
        height=16 * policy.rows,
        width=16 * policy.columns,
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="pt",
    ).images
    return drawn


@pytest.mark.parametrize(
    ("name", "guidance"),
    [
        ("flux", 1.0),
        ("flux", 3.5),
        ("schnell", 3.5),
        ("klein", 1.0),
        ("klein", 4.0),
        ("klein distilled", 4.0),
    ],
)
def test_images_and_noise_levels_of_the_diffusers_pipeline(
    models: dict[str, Path], tmp_path: Path, name: str, guidance: float
) -> None:
    pipeline = pipeline_of(models[name])
    for side, shape in ((64, (64, 64)), ([64, 96], (64, 96))):
        model = shutil.copytree(models[name], tmp_path / str(shape))
        policy = load_policy(str(write_sample_size(model, side)), device="cpu")
        expected = theirs(pipeline, policy, guidance)
        assert expected.shape == (1, 3, *shape)
        assert expected.std() > 0.05
        torch.testing.assert_close(images_of(policy, guidance), expected, atol=1e-5, rtol=0)
        schedule: Any = policy.schedule
        torch.testing.assert_close(
            schedule.sigmas(4), pipeline.scheduler.sigmas.double(), atol=1e-6, rtol=0
        )


@pytest.mark.parametrize(
    ("name", "acts"),
    [("flux", True), ("schnell", False), ("klein", True), ("klein distilled", False)],
)
def test_guidance_acts_where_the_model_has_some(
    models: dict[str, Path], name: str, acts: bool
) -> None:
    policy = load_policy(str(models[name]), device="cpu")
    difference = images_of(policy, 1.0) - images_of(policy, 5.0)
    assert (float(difference.abs().max()) > 1e-3) is acts
    assert (not policy.distilled) is acts  # type: ignore[attr-defined]


def test_the_scale_is_a_float32_input_and_one_call(models: dict[str, Path]) -> None:
    policy: Any = load_policy(str(models["flux"]), device="cpu", dtype="bfloat16")
    seen: list[dict[str, Any]] = []
    policy.denoiser.register_forward_pre_hook(
        lambda module, given, named: seen.append(named), with_kwargs=True
    )
    images_of(policy, 3.5, steps=2)
    assert [call["guidance"].tolist() for call in seen] == [[3.5], [3.5]]
    assert {call["guidance"].dtype for call in seen} == {torch.float32}
    assert {call["timestep"].dtype for call in seen} == {torch.float32}


def test_packing_is_that_of_both_pipelines() -> None:
    from diffusers import Flux2KleinPipeline, FluxPipeline

    latents = torch.randn(2, 4, 6, 10)
    tokens = pack(latents)
    assert torch.equal(tokens, FluxPipeline._pack_latents(latents, 2, 4, 6, 10))
    patched = Flux2KleinPipeline._patchify_latents(latents)
    assert torch.equal(tokens, Flux2KleinPipeline._pack_latents(patched))
    assert torch.equal(unpack(tokens, 3, 5), latents)


@pytest.mark.parametrize("tokens", [16, 256, 1024, 4096, 4300, 4301, 8100])
@pytest.mark.parametrize("steps", [1, 4, 10, 50, 200])
def test_the_shift_of_flux_2_is_that_of_the_installed_pipeline(tokens: int, steps: int) -> None:
    from math import exp

    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    assert flux_2_shift(tokens, steps) == pytest.approx(
        exp(compute_empirical_mu(tokens, steps)), rel=1e-12
    )


def test_the_noise_levels_of_klein_follow_the_steps(models: dict[str, Path]) -> None:
    import numpy as np
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    policy: Any = load_policy(str(models["klein"]), device="cpu")
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(models["klein"] / "scheduler")
    for steps in (1, 8, 50):
        mu = compute_empirical_mu(16, steps)
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=mu)
        for schedule in (policy.schedule, policy.schedule.sampled_by("cps", "auto")):
            torch.testing.assert_close(
                schedule.sigmas(steps), scheduler.sigmas.double(), atol=1e-6, rtol=0
            )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["lora", "full"])
@FAMILIES
def test_stored_paths_have_ratio_one_to_the_bit(
    models: dict[str, Path], family: str, kind: Any, dtype: str
) -> None:
    policy = load_policy(str(models[family]), dtype=dtype, device="cpu")
    policy.adapt(kind)
    with torch.no_grad():
        for _, parameter in policy.trainable_parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    settings = SamplerSettings(steps=4, guidance=3.0, eta=0.7, batch=4)
    path = sample_trajectory(policy, KEYS, settings, seed=3)
    coefficients = policy.schedule.coefficients_on(policy.device, 4, 0.7)
    images = torch.tensor([2, 0, 2, 1])
    steps = torch.tensor([3, 0, 1, 3])
    conditioning = policy.encode([KEYS[i].prompt.text for i in images])
    x_t = path.latents[images, steps]
    output = guided(
        policy, x_t, coefficients.timesteps[steps], conditioning, policy.encode([""]), 3.0
    )
    found = gaussian_log_prob(
        path.latents[images, steps + 1],
        policy.schedule.mean(output, x_t, steps, coefficients),
        coefficients.std[steps],
    )
    assert torch.isfinite(found).all()
    assert torch.equal(found, path.log_probs[images, steps])
    assert found.requires_grad


def settings_of(kind: str, **more: Any) -> list[str]:
    """The options of a short run."""
    values = {
        "sample.samples": 8,
        "sample.per_prompt": 4,
        "sample.steps": 3,
        "sample.batch": 4,
        "sample.guidance": 2.0,
        "optim.updates": 1,
        "optim.timesteps": 2,
        "optim.lr": 3e-2 if kind == "lora" else 1e-3,
        "adapt.kind": kind,
        "checkpoint_every": 1,
        "device": "cpu",
        "reward": "darkness",
        **more,
    }
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


@pytest.mark.parametrize(("family", "kind"), [("flux", "full"), ("klein", "lora")])
def test_a_run_is_trained_resumed_exactly_and_the_same_in_plain_diffusers(
    ddpo: Run, models: dict[str, Path], tmp_path: Path, family: str, kind: str
) -> None:
    model = models[family]
    chosen = settings_of(kind)
    runs = {"whole": 2, "resumed": 1}
    for name, iterations in runs.items():
        code, _, errors = ddpo(
            *("train", "--model", model, "--out", tmp_path / name),
            *("--iterations", iterations, *chosen),
        )
        assert code == 0, errors
    code, _, errors = ddpo("train", "--resume", tmp_path / "resumed", "--iterations", 2)
    assert code == 0, errors
    lines = [
        json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["ratio_first_deviation"] for line in lines] == [0, 0]
    assert all(line["grad_norm"] > 0 for line in lines)
    weights = [
        sorted((tmp_path / name / "checkpoints" / "iteration-000002").rglob("*.safetensors"))
        for name in runs
    ]
    assert len(weights[0]) == len(weights[1]) == 1
    for file, other in zip(*weights, strict=True):
        again = load_file(other)
        differs = [name for name, one in load_file(file).items() if not one.equal(again[name])]
        assert differs == []  # not the bytes: safetensors orders a header's metadata at random
    code, _, errors = ddpo("export", tmp_path / "whole", "--out", tmp_path / "out")
    assert code == 0, errors
    tuned = load_policy(str(model), tmp_path / "whole", device="cpu")
    pipeline = pipeline_of(model if kind == "lora" else tmp_path / "out")
    if kind == "lora":
        pipeline.load_lora_weights(tmp_path / "out")
    found = images_of(tuned, 2.0)
    torch.testing.assert_close(found, theirs(pipeline, tuned, 2.0), atol=1e-5, rtol=0)
    before = images_of(load_policy(str(model), device="cpu"), 2.0)
    assert not (to_uint8(before) == to_uint8(found)).all(), "the training changed nothing"


def test_a_lora_of_kohya_with_the_names_of_the_original_code(
    models: dict[str, Path], tmp_path: Path
) -> None:
    """The fused layer of the original code is three layers in diffusers."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for layer, width in (("img_attn_qkv", 96), ("txt_attn_proj", 32)):
        name = f"lora_unet_double_blocks_1_{layer}"
        tensors |= {
            f"{name}.lora_down.weight": torch.randn(2, 32, generator=generator),
            f"{name}.lora_up.weight": torch.randn(width, 2, generator=generator),
            f"{name}.alpha": torch.tensor(1.0),
        }
    save_file(tensors, tmp_path / "style.safetensors")
    model = models["flux"]
    tuned = load_policy(str(model), find_checkpoint(tmp_path, str(model)), device="cpu")
    changed = {name.partition(".lora_")[0] for name, _ in tuned.trainable_parameters()}
    layers = ("to_q", "to_k", "to_v", "to_add_out")
    assert changed == {f"transformer_blocks.1.attn.{layer}" for layer in layers}
    pipeline = pipeline_of(model)
    before = theirs(pipeline, tuned, 2.0)
    pipeline.load_lora_weights(tmp_path)
    expected = theirs(pipeline, tuned, 2.0)
    torch.testing.assert_close(images_of(tuned, 2.0), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(before, expected, atol=1e-2)
