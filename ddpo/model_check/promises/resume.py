"""The promise that a run which is resumed has the weights and gradients of one that was not."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.policies.policy import TrainablePolicy
from ddpo.rewards.check.definition import CheckFailed

__all__ = ["resume"]

ITERATION: Final = 7


def resume(tested: ModelUnderTest) -> str | None:
    """A saved checkpoint gives a fresh model the same trained weights and next gradient."""
    for kind in tested.kinds:
        policy = tested.adapted(kind)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            policy.save(folder, ITERATION)
            if (found := find_checkpoint(folder).iteration) != ITERATION:
                raise CheckFailed(f"with {kind} the checkpoint of iteration 7 says {found}")
            again = tested.fresh(checkpoint=folder)
        _compare_weights(kind, policy, again)
        before, after = (_gradients(tested, one) for one in (policy, again))
        for (name, _), one, other in zip(policy.trainable_parameters(), before, after, strict=True):
            if not torch.equal(one, other):
                raise CheckFailed(f"with {kind} {name} has another gradient after a resume")
    return " and ".join(tested.kinds)


def _compare_weights(kind: str, policy: TrainablePolicy, again: TrainablePolicy) -> None:
    """Raises unless both have the same trained weights."""
    expected = dict(policy.trainable_parameters())
    found = dict(again.trainable_parameters())
    if lost := sorted(expected.keys() ^ found.keys()):
        raise CheckFailed(f"with {kind} {lost[0]} is trained only before or only after a resume")
    for name, parameter in expected.items():
        if not torch.equal(parameter, found[name]):
            raise CheckFailed(f"with {kind} {name} has other values after a resume")


def _gradients(tested: ModelUnderTest, policy: TrainablePolicy) -> list[Tensor]:
    """The gradients of the mean squared prediction; zeros for weights without influence."""
    variables = [parameter for _, parameter in policy.trainable_parameters()]
    with torch.enable_grad():
        loss = policy.predict(*tested.inputs(policy)).square().mean()
    found = torch.autograd.grad(loss, variables, allow_unused=True)
    return [
        torch.zeros_like(one) if slope is None else slope
        for one, slope in zip(variables, found, strict=True)
    ]
