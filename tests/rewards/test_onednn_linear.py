"""Linear layers through oneDNN against torch's own, and encoders of them: bits, batches, types."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpo.rewards.models import onednn_linear as linear
from ddpo.rewards.models.onednn_linear import PackedLinear, SelfAttention, pack_linears

needs_packing = pytest.mark.skipif(
    not linear._can_pack(nn.Linear(2, 2).eval()),
    reason="this build of torch has no oneDNN linear layers",
)
ROWS = torch.randn(50, 96, generator=torch.Generator().manual_seed(0))


def plain_act(rows: Tensor, act: str) -> Tensor:
    """The activations' definitions."""
    if act == "gelu":
        return rows * 0.5 * (1 + torch.erf(rows / 2**0.5))
    return rows * torch.sigmoid(1.702 * rows) if act == "quick_gelu" else rows


@needs_packing
@pytest.mark.parametrize("act", ["none", "gelu", "quick_gelu"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_is_the_layer(act: str, bias: bool) -> None:
    layer = nn.Linear(96, 130, bias=bias)
    due = plain_act(layer.double()(ROWS.double()), act)
    packed = PackedLinear(layer.float(), act)
    with torch.no_grad():
        assert (packed(ROWS) - due).abs().max() <= 2e-6
        assert (packed(ROWS.view(5, 10, 96)) - due.view(5, 10, 130)).abs().max() <= 2e-6


@pytest.mark.parametrize("supported", [False, True])
def test_a_model_in_bfloat16_works_on_every_processor(
    supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processors without AVX-512 have no packed layers in bfloat16; `nn.Linear` works on all."""
    if supported:
        if not linear._can_pack(nn.Linear(2, 2).bfloat16().eval()):
            pytest.skip("oneDNN has no bfloat16 on this processor")
    else:
        monkeypatch.setattr(linear, "_is_fast", lambda dtype: dtype == torch.float32)
    model = nn.Sequential(nn.Linear(96, 130)).eval()
    due = model(ROWS)
    model.bfloat16()
    pack_linears(model)
    assert (type(model[0]) is PackedLinear) == supported
    with torch.no_grad():
        half = model(ROWS.bfloat16())
    assert half.dtype == torch.bfloat16
    assert 1e-6 < (half - due).abs().max() < 3e-2


@needs_packing
def test_the_bits_of_a_row_do_not_depend_on_the_other_rows() -> None:
    packed = PackedLinear(nn.Linear(96, 130))
    with torch.no_grad():
        due = packed(ROWS)
        for count in (2, 3, 17):
            assert torch.equal(packed(ROWS[:count]), due[:count])


def towers() -> dict[str, Any]:
    """A small network of each kind that is packed, in eval mode, and its input."""
    from transformers import (
        BlipTextConfig,
        BlipTextModel,
        BlipVisionConfig,
        BlipVisionModel,
        CLIPVisionConfig,
        CLIPVisionModel,
    )

    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    images = torch.randn(3, 3, 56, 56)
    made: dict[str, Any] = {
        act: (
            CLIPVisionModel(
                CLIPVisionConfig(**small, image_size=56, patch_size=28, hidden_act=act)
            ),
            {"pixel_values": images},
        )
        for act in ("quick_gelu", "gelu", "gelu_new")
    }
    made["blip"] = (
        BlipVisionModel(BlipVisionConfig(**small, image_size=56, patch_size=28)),
        {"pixel_values": images},
    )
    text = BlipTextConfig(
        **small,
        vocab_size=40,
        encoder_hidden_size=32,
        bos_token_id=1,
        eos_token_id=2,
        sep_token_id=2,
        pad_token_id=0,
    )
    reader = BlipTextModel(text, add_pooling_layer=False)
    seen = ROWS[:15, :32].view(3, 5, 32)
    made["text"] = reader, {"input_ids": torch.arange(12).view(3, 4), "encoder_hidden_states": seen}
    return made


@needs_packing
@pytest.mark.parametrize("name", ["quick_gelu", "gelu", "gelu_new", "blip", "text"])
def test_a_packed_network_gives_what_it_gave(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = towers()[name]
    model.eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn(parameter.shape)
    due = model(**inputs).last_hidden_state
    pack_linears(model)
    assert not [part for part in model.modules() if type(part) is nn.Linear]
    assert (model(**inputs).last_hidden_state - due).abs().max() <= 1e-5
    acts = {part._act for part in model.modules() if isinstance(part, PackedLinear)}
    assert acts == {
        "none",
        *({"blip": {"gelu"}, "quick_gelu": {"quick_gelu"}, "gelu": {"gelu"}}.get(name, set())),
    }


def test_self_attention_equals_torchs() -> None:
    torch.manual_seed(0)
    original = nn.MultiheadAttention(32, 4, batch_first=True).eval().requires_grad_(False)
    assert original.in_proj_bias is not None
    original.in_proj_bias += torch.randn(96)
    rows = torch.randn(3, 7, 32)
    mask = torch.full((7, 7), -torch.inf).triu(1)
    for given in (None, mask):
        due, _ = original(rows, rows, rows, need_weights=False, attn_mask=given)
        mine = SelfAttention(original)
        found, _ = mine(rows, rows, rows, need_weights=False, attn_mask=given)
        assert (found - due).abs().max() <= 1e-6
        pack_linears(mine.eval())
        packed, _ = mine(rows, rows, rows, attn_mask=given)
        assert (packed - due).abs().max() <= 1e-6


def test_what_is_trained_or_cannot_be_packed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = nn.Sequential(nn.Linear(2, 2))
    pack_linears(layers.train())
    assert type(layers[0]) is nn.Linear
    monkeypatch.setattr(linear, "_can_pack", lambda model: False)
    pack_linears(layers.eval())
    assert type(layers[0]) is nn.Linear
