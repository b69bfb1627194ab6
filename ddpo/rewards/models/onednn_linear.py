"""Linear layers of encoders on the CPU through oneDNN, with weights laid out for it once.

`torch.nn.Linear` hands float32 to MKL, which does not use the widest instructions of processors
that are not Intel's: on an AMD EPYC with AVX-512, oneDNN is 2.3 to 2.8 times as fast. It computes
the same float32 sums in another order, which does not depend on the number of rows. So the
embedding of an image does not depend on its batch mates.

The operators are those that torch's own compiler emits for a frozen linear layer. Where a build of
torch lacks them, or the processor has no bfloat16 for them, nothing is changed.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

__all__ = ["SelfAttention", "pack_linears"]

QUICK: Final = 1.702
"""Source: openai/CLIP, model.py, QuickGELU."""
ACTIVATIONS: Final = {
    "GELU": "gelu",
    "GELUActivation": "gelu",
    "QuickGELU": "quick_gelu",
    "QuickGELUActivation": "quick_gelu",
}
"""Class name in open_clip, torch or transformers → activation of `PackedLinear`.

`GELU` by tanh is not among them.
"""


class PackedLinear(nn.Module):
    """act(x · weightᵀ + bias), without gradient.

    Args:
        linear: layer whose weights are packed.
        act: activation, "none", "gelu" (exact) or "quick_gelu".
    """

    def __init__(self, linear: nn.Linear, act: str = "none") -> None:
        super().__init__()
        self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._act = act

    def forward(self, rows: Tensor) -> Tensor:
        """`[…, inputs]` → `[…, outputs]`."""
        fused = "gelu" if self._act == "gelu" else "none"
        made: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self._bias, fused, [], "none"
        )
        return made.mul_((made * QUICK).sigmoid_()) if self._act == "quick_gelu" else made


class SelfAttention(nn.Module):
    """Self-attention equal to `nn.MultiheadAttention`, with linear layers that can be packed.

    Args:
        original: module whose weights are taken over.
    """

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        self._heads = original.num_heads
        state = dict(original.named_parameters())
        self.inner = _linear(state["in_proj_weight"], state["in_proj_bias"])
        self.outer = _linear(state["out_proj.weight"], state["out_proj.bias"])

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> Any:
        """Attention of `query` `[batch, length, width]` to itself, same shape; without weights."""
        queries, keys, values = (
            self.inner(query).unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        )
        mixed = nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=attn_mask
        )
        return self.outer(mixed.transpose(1, 2).flatten(2)), None


def _linear(weight: nn.Parameter, bias: nn.Parameter) -> nn.Linear:
    layer = nn.Linear(1, 1)  # both tensors are replaced
    layer.weight = weight
    layer.bias = bias
    return layer


def pack_linears(model: nn.Module) -> None:
    """Replaces the linear layers of a model in eval mode on the CPU; leaves any other model alone.

    The model cannot be trained or saved afterwards.
    """
    if not _can_pack(model):
        return
    for module in model.modules():
        act = _fused(module)
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                first = name in ("fc1", "c_fc")
                setattr(module, name, PackedLinear(child, act if first else "none"))


def _fused(module: nn.Module) -> str:
    """The activation of a module with two linear layers, removed from it; "none" for any other."""
    for layer, name in (("fc1", "activation_fn"), ("c_fc", "gelu")):
        act = ACTIVATIONS.get(type(getattr(module, name, None)).__name__)
        if (
            act
            and getattr(getattr(module, name), "approximate", "none") == "none"
            and type(getattr(module, layer, None)) is nn.Linear
        ):
            setattr(module, name, nn.Identity())
            return act
    return "none"


def _can_pack(model: nn.Module) -> bool:
    wanted = ("_reorder_linear_weight", "_linear_pointwise")
    here = torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in wanted
    )
    some = next(model.parameters())
    return here and not model.training and some.device.type == "cpu" and _is_fast(some.dtype)


def _is_fast(dtype: torch.dtype) -> bool:
    """True if oneDNN has linear layers of this type on this processor."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32
