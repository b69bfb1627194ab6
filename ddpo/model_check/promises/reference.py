"""The promise that the reference is the model before training."""

from __future__ import annotations

import torch

from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.rewards.check.definition import CheckFailed

__all__ = ["reference"]


@torch.no_grad()
def reference(tested: ModelUnderTest) -> str | None:
    """Inside `reference()` the bits are those before training, and afterwards those of now."""
    base = tested.policy.predict(*tested.inputs(tested.policy))
    for kind in tested.kinds:
        policy = tested.adapted(kind)
        inputs = tested.inputs(policy)
        tuned = policy.predict(*inputs)
        if torch.equal(tuned, base):
            raise CheckFailed(f"with {kind} other weights give the same prediction")
        with policy.reference():
            found = policy.predict(*inputs)
        if not torch.equal(found, base):
            away = float((found - base).abs().max())
            raise CheckFailed(f"with {kind} the reference differs by {away:.2g} from the model")
        if not torch.equal(policy.predict(*inputs), tuned):
            raise CheckFailed(f"with {kind} the reference stays on after its context")
    return None
