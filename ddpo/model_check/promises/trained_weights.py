"""The promise that exactly the adapted weights are trained, in float32."""

from __future__ import annotations

import torch

from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.rewards.check.definition import CheckFailed

__all__ = ["trained_weights"]


def trained_weights(tested: ModelUnderTest) -> str | None:
    """No weight is trained before `adapt`; afterwards some are, in float32 in every precision."""
    if early := [name for name, _ in tested.policy.trainable_parameters()]:
        raise CheckFailed(f"{early[0]} is trainable before adapt")
    counts = []
    for kind in tested.kinds:
        policy = tested.fresh("bfloat16")
        policy.adapt(kind)
        found = dict(policy.trainable_parameters())
        if not found:
            raise CheckFailed(f"adapt({kind!r}) makes no weight trainable")
        for name, parameter in found.items():
            if parameter.dtype != torch.float32:
                raise CheckFailed(f"{name} is trained in {parameter.dtype}, not in float32")
            if not parameter.requires_grad:
                raise CheckFailed(f"{name} is listed as trainable and has requires_grad = False")
        counts.append(f"{kind}: {sum(one.numel() for one in found.values()):,}")
    return ", ".join(counts)
