"""Policies with one planted fault each: what training sees is not what sampling saw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddpo.doctor import random_policies


def _with_predict(device: str, dtype: torch.dtype, change: Any) -> Any:
    policy: Any = random_policies.tiny(device, dtype)
    predict = policy.predict
    policy.predict = lambda latents, timesteps, conditioning: change(
        predict(latents, timesteps, conditioning)
    )
    return policy


def sound(device: str, dtype: torch.dtype) -> Any:
    """No fault: the control."""
    return _with_predict(device, dtype, lambda output: output)


def differs_with_gradient(device: str, dtype: torch.dtype) -> Any:
    """Another kernel in training than in sampling."""
    return _with_predict(
        device, dtype, lambda output: output * 1.001 if torch.is_grad_enabled() else output
    )


def feels_batch_mates(device: str, dtype: torch.dtype) -> Any:
    """An output that depends on what else is in the batch."""
    return _with_predict(device, dtype, lambda output: output + 0.1 * output.mean())


def drops_out(device: str, dtype: torch.dtype) -> Any:
    """Dropout that was left on."""
    return _with_predict(
        device, dtype, lambda output: torch.nn.functional.dropout(output, 0.01, training=True)
    )


def rounds_in_training(device: str, dtype: torch.dtype) -> Any:
    """A lower precision in training than in sampling."""

    def rounded(output: Tensor) -> Tensor:
        return output.bfloat16().float() if torch.is_grad_enabled() else output

    return _with_predict(device, dtype, rounded)
