"""Models of random weights: published numbers of parameters and operations, equal weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ddpo.doctor import random_policies
from ddpo.doctor.denoiser import denoiser_cost, matmul_tflops
from ddpo.doctor.random_policies import SD15, SDXL, TINY, PolicySize, write_model
from ddpo.doctor.workload import TINY as WORK
from ddpo.doctor.workload import run_config
from ddpo.policies import load_policy
from ddpo.policies.conditioning import Conditioning
from ddpo.trainer.adapted import adapted_policy


def parameters(build: Any) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


@pytest.mark.parametrize(("size", "count"), [(SD15, 859_520_964), (SDXL, 2_567_463_684)])
def test_the_unet_has_the_published_number_of_parameters(size: PolicySize, count: int) -> None:
    """Source: the safetensors headers of stable-diffusion-v1-5 and stable-diffusion-xl-base-1.0."""
    assert parameters(lambda: UNet2DConditionModel(**size.unet)) == count


def test_the_other_components_have_the_published_numbers_of_parameters() -> None:
    """Source: as above."""
    assert (
        parameters(lambda: AutoencoderKL(**SD15.vae))
        == parameters(lambda: AutoencoderKL(**SDXL.vae))
        == 83_653_863
    )
    first, second = (CLIPTextConfig(vocab_size=49408, **text) for text in SDXL.text)
    assert parameters(lambda: CLIPTextModel(first)) == 123_060_480
    assert parameters(lambda: CLIPTextModelWithProjection(second)) == 694_659_840


def test_sd15_needs_the_published_operations() -> None:
    """339 billion multiply-accumulates a call, without the products within attention.

    Source: Kim et al., arXiv 2305.15798, table 1.
    """
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15.unet)
        counter = FlopCounterMode(display=False)
        with counter:
            unet(
                torch.zeros(1, 4, 64, 64),
                torch.zeros(1, dtype=torch.long),
                encoder_hidden_states=torch.zeros(1, 77, 768),
            )
    counts: Mapping[Any, int] = counter.get_flop_counts()["Global"]
    assert (counter.get_total_flops() - counts[torch.ops.aten.bmm]) / 2 == pytest.approx(
        339e9, rel=0.005
    )


@pytest.mark.parametrize("name", ["tiny", "tiny_xl"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_weights_every_time_and_finite_images(name: str, dtype: str) -> None:
    first, second = (
        load_policy(f"ddpo.doctor.random_policies:{name}", dtype=dtype) for _ in range(2)
    )
    states = [policy.unet.state_dict() for policy in (first, second)]  # type: ignore[attr-defined]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    latents = torch.randn(2, *first.latent_shape, generator=torch.Generator().manual_seed(0))
    conditioning = first.encode(["a cat", "a dog on a red background"])
    with torch.no_grad():
        output = first.predict(latents, torch.tensor([10, 900]), conditioning)
    assert 0.01 < float(output.std()) < 10
    hidden = (
        conditioning.parts["hidden"] if isinstance(conditioning, Conditioning) else conditioning
    )
    assert not torch.equal(hidden[0], hidden[1])
    pixels = first.decode(latents)
    assert pixels.shape == (2, 3, 16, 16)
    assert bool(torch.isfinite(pixels).all())


def test_a_written_model_is_loaded_as_any_other(tmp_path: Path) -> None:
    write_model(TINY, tmp_path, torch.float16)
    read = load_policy(str(tmp_path))
    made = random_policies.tiny("cpu", torch.float16)
    weights = read.unet.state_dict()  # type: ignore[attr-defined]
    assert all(
        torch.equal(weights[key], value.float()) for key, value in made.unet.state_dict().items()
    )


@pytest.mark.parametrize(
    ("side", "seconds", "due"), [(1000, 1.0, 0.002), (1000, 0.5, 0.004), (10_000, 2.0, 1.0)]
)
def test_the_speed_of_a_product(
    side: int, seconds: float, due: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 n³ operations: 2 · 10⁹ for n = 1,000."""
    monkeypatch.setattr("ddpo.doctor.denoiser.seconds_per_call", lambda *_, **__: seconds)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: torch.zeros(1))
    assert matmul_tflops(torch.device("cpu"), torch.float32, side) == pytest.approx(due)


def test_the_operations_of_a_call_grow_with_its_items_and_count_attention() -> None:
    policy = adapted_policy(
        run_config("ddpo.doctor.random_policies:tiny", "cpu", "float32", WORK, 2)
    )
    two, four = (denoiser_cost(policy, items) for items in (2, 4))
    assert four.forward_flops == 2 * two.forward_flops
    assert four.training_flops == 2 * two.training_flops
    assert (
        1.5 < two.training_flops / two.forward_flops < 3
    )  # frozen weights need no gradient of their own
    with torch.device("meta"):
        unet = UNet2DConditionModel(**TINY.unet)
        counter = FlopCounterMode(display=False)
        with counter:
            unet(
                torch.zeros(1, 4, 8, 8),
                torch.zeros(1, dtype=torch.long),
                encoder_hidden_states=torch.zeros(1, 16, 16),
            )
    assert 1 < two.forward_flops / (2 * counter.get_total_flops()) < 1.1  # the adapters come on top
