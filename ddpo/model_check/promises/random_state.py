"""The promise that global generators and settings stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ddpo.model_check.model_under_test import ModelUnderTest, random_latents
from ddpo.rewards.check.definition import CheckFailed
from ddpo.rewards.check.global_state import random_states, settings
from ddpo.text import listed

__all__ = ["random_state"]


@torch.no_grad()
def random_state(tested: ModelUnderTest) -> str | None:
    """`encode`, `predict`, `decode` and `reference` leave random generators and settings alone."""
    policy = tested.fresh()  # whose texts are not known yet
    latents = random_latents(policy, 1, seed=8)
    times = tested.coefficients(policy).timesteps[:1]

    def in_reference() -> None:
        with policy.reference():
            pass

    calls: dict[str, Callable[[], Any]] = {
        "encode": lambda: policy.encode(["a text that is new"]),
        "predict": lambda: policy.predict(latents, times, policy.encode(["a text that is new"])),
        "decode": lambda: policy.decode(latents),
        "reference": in_reference,
    }
    for name, call in calls.items():
        states = random_states()
        before = settings()
        call()
        changed = [
            f"the generator of {one}"
            for one, state in random_states().items()
            if state != states[one]
        ]
        changed += [one for one, value in settings().items() if value != before[one]]
        if changed:
            raise CheckFailed(f"{name} changes {listed(changed)}; use a torch.Generator of its own")
    return None
