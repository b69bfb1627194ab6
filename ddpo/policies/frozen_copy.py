"""A frozen copy of a denoiser."""

from __future__ import annotations

from typing import Any

__all__ = ["frozen_copy"]


def frozen_copy(denoiser: Any) -> Any:
    """A frozen copy of a denoiser on the CPU, each of its tensors in the same type."""
    copy = type(denoiser).from_config(denoiser.config)
    state = {name: tensor.to("cpu", copy=True) for name, tensor in denoiser.state_dict().items()}
    copy.load_state_dict(state, assign=True)
    own = dict(copy.named_buffers())
    for name, buffer in denoiser.named_buffers():  # those that no state dict holds too
        own[name].data = buffer.to("cpu", copy=True)
    return copy.requires_grad_(False).eval()
