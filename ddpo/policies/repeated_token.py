"""Attention to many equal text tokens, computed from one of them.

Without T5, the pipeline of Stable Diffusion 3 appends 256 tokens of zeros to the text. The joint
transformer has no positions of text tokens, so these tokens stay equal in every layer. One token
whose attention logits are raised by log 256 gives the same output, in exact arithmetic. For small
images, most of the cost is that of the other 255.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

__all__ = ["T5_TOKENS", "RepeatedLastToken"]

T5_TOKENS: Final = 256
"""Tokens of zeros in place of T5 in diffusers' pipeline."""


class RepeatedLastToken:
    """An attention processor of the joint transformer whose last text token counts several times.

    Layers without text tokens are not supported (`dual_attention_layers` of the transformer).

    Args:
        count: Number of tokens that the last one stands for.
    """

    def __init__(self, count: int = T5_TOKENS) -> None:
        self.logit = math.log(count)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The attention outputs of image tokens `[batch, n, width]` and text tokens."""
        image = _heads(attn, hidden_states, ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"))
        text = _heads(
            attn,
            encoder_hidden_states,
            ("add_q_proj", "add_k_proj", "add_v_proj"),
            ("norm_added_q", "norm_added_k"),
        )
        query, key, value = (torch.cat(pair, 2) for pair in zip(image, text, strict=True))
        logits = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        found = (logits + self._bias(logits)).softmax(-1).to(value.dtype) @ value
        joined = found.transpose(1, 2).flatten(2)
        count = hidden_states.shape[1]
        out = attn.to_out[1](attn.to_out[0](joined[:, :count]))
        rest = joined[:, count:]
        return out, rest if attn.context_pre_only else attn.to_add_out(rest)

    def _bias(self, logits: torch.Tensor) -> torch.Tensor:
        """The addition to the logits of each token, float32 `[tokens]`."""
        bias = torch.zeros(logits.shape[-1], device=logits.device)
        bias[-1] = self.logit
        return bias


def _heads(
    attn: Any, states: torch.Tensor, projections: tuple[str, ...], norms: tuple[str, ...]
) -> list[torch.Tensor]:
    """Query, key and value of tokens, `[batch, heads, tokens, head width]`."""
    found = []
    for name in projections:
        projected = getattr(attn, name)(states)
        found.append(projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2))
    for index, name in enumerate(norms):
        norm = getattr(attn, name)
        found[index] = found[index] if norm is None else norm(found[index])
    return found
