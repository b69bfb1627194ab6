"""The promise that gradient checkpointing changes no result."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.policies.policy import TrainablePolicy
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped

__all__ = ["memory"]

TOLERANCE: Final = 1e-4  # of the largest gradient


def memory(tested: ModelUnderTest) -> str | None:
    """`save_memory`, where there is one, changes no prediction and no gradient."""
    if not hasattr(tested.policy, "save_memory"):
        raise CheckSkipped("the model has no save_memory: adapt.checkpointing is refused")
    for kind in tested.kinds:
        policy = tested.adapted(kind)
        output, slopes = _trained(tested, policy)
        policy.save_memory()  # type: ignore[attr-defined]
        found, others = _trained(tested, policy)
        if not torch.equal(found, output):
            away = float((found - output).abs().max())
            raise CheckFailed(f"with {kind} save_memory changes the prediction by {away:.2g}")
        size = max(float(slope.abs().max()) for slope in slopes)
        away = max(
            float((one - other).abs().max()) for one, other in zip(slopes, others, strict=True)
        )
        if not away <= TOLERANCE * size:
            raise CheckFailed(f"with {kind} save_memory changes a gradient by {away:.2g}")
    return None


def _trained(tested: ModelUnderTest, policy: TrainablePolicy) -> tuple[Tensor, list[Tensor]]:
    """The prediction, and the gradients of its mean square."""
    variables = [parameter for _, parameter in policy.trainable_parameters()]
    with torch.enable_grad():
        output = policy.predict(*tested.inputs(policy))
        found = torch.autograd.grad(output.square().mean(), variables, allow_unused=True)
    return output.detach(), [slope for slope in found if slope is not None]
