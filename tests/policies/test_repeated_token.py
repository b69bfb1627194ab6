"""One text token in place of 256 equal ones: output and gradients of diffusers' own attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel

from ddpo.policies.repeated_token import T5_TOKENS, RepeatedLastToken


def transformer(qk_norm: str | None) -> Any:
    torch.manual_seed(1)
    made = SD3Transformer2DModel(
        sample_size=4,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=24,
        caption_projection_dim=16,
        pooled_projection_dim=12,
        pos_embed_max_size=4,
        qk_norm=qk_norm,
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return made


def output_and_gradients(model: Any, zeros: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 4, 4, 4, generator=generator)
    text = torch.randn(2, 5, 24, generator=generator)
    pooled = torch.randn(2, 12, generator=generator)
    hidden = torch.cat([text, torch.zeros(2, zeros, 24)], 1)
    times = torch.tensor([200.0, 900.0])
    found = model(latents, hidden, pooled, times).sample
    gradients = torch.autograd.grad(found.square().sum(), list(model.parameters()))
    return found.detach(), [gradient.detach() for gradient in gradients]


@pytest.mark.parametrize("qk_norm", [None, "rms_norm"])
def test_one_token_stands_for_many_equal_ones(qk_norm: str | None) -> None:
    model = transformer(qk_norm)
    expected, expected_gradients = output_and_gradients(model, T5_TOKENS)
    fewer, _ = output_and_gradients(model, 1)
    assert float((fewer - expected).abs().max()) > 1e-2  # the number of zeros matters
    model.set_attn_processor(RepeatedLastToken())
    found, gradients = output_and_gradients(model, 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * float(other.abs().max()), rtol=1e-3)


def test_a_count_of_one_is_the_attention_of_diffusers() -> None:
    model = transformer("rms_norm")
    expected, _ = output_and_gradients(model, 7)
    model.set_attn_processor(RepeatedLastToken(1))
    found, _ = output_and_gradients(model, 7)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_with_autocast_and_without(dtype: torch.dtype) -> None:
    model = transformer("rms_norm")
    expected, _ = output_and_gradients(model, T5_TOKENS)
    model.set_attn_processor(RepeatedLastToken())
    with torch.autocast("cpu", dtype):
        under, _ = output_and_gradients(model, 1)
    scale = float(expected.abs().max())
    torch.testing.assert_close(under.float(), expected, atol=0.05 * scale, rtol=0)
