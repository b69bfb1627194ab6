"""A moving average of the trained weights, which checkpoints, scores and image grids use.

Source: yifan123/flow_grpo, flow_grpo/ema.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor

from ddpo.errors import CheckpointError
from ddpo.policies.policy import Policy

__all__ = ["WeightAverage"]

PREFIX: Final = "average."
STEPS: Final = "average_steps"


class WeightAverage:
    """An exponential moving average of the weights, updated every few optimizer steps.

    After s steps the decay is min((1 + s) / (10 + s), decay), so that it forgets the start soon.

    Args:
        policy: an adapted policy, whose weights are the first average.
        decay: highest decay.
        every: optimizer steps between two updates.
    """

    def __init__(self, policy: Policy, decay: float, every: int) -> None:
        self.policy = policy
        self.decay = decay
        self.every = every
        self.steps = 0
        self.values = {
            name: parameter.detach().clone() for name, parameter in policy.trainable_parameters()
        }

    @torch.no_grad()
    def step(self, *_: Any) -> None:
        """Counts an optimizer step, and updates the average if it is due."""
        self.steps += 1
        if self.steps % self.every:
            return
        done = self.steps - 1
        decay = min((1 + done) / (10 + done), self.decay)
        for name, parameter in self.policy.trainable_parameters():
            self.values[name].lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the policy has the averaged weights; afterwards its own, to the bit."""
        own = {}
        with torch.no_grad():
            for name, parameter in self.policy.trainable_parameters():
                own[name] = parameter.detach().clone()
                parameter.copy_(self.values[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.policy.trainable_parameters():
                    parameter.copy_(own[name])

    def tensors(self) -> dict[str, Tensor]:
        """The average and its number of steps, for the state of a run."""
        count = torch.tensor(self.steps, dtype=torch.int64)
        return {PREFIX + name: value for name, value in self.values.items()} | {STEPS: count}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], place: str) -> None:
        """Restores what `tensors` returned.

        Args:
            tensors: the state of a run.
            place: file of the state, for messages.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        count = tensors.get(STEPS)
        if count is None or count.ndim or count < 0:
            raise CheckpointError(f"{place} does not fit the run: {STEPS} is missing or damaged")
        for name, value in self.values.items():
            saved = tensors.get(PREFIX + name)
            if saved is None or saved.shape != value.shape:
                raise CheckpointError(
                    f"{place} does not fit the run: {PREFIX}{name} is missing or of another shape"
                )
        self.steps = int(count)
        for name, value in self.values.items():
            value.copy_(tensors[PREFIX + name])
