"""A moving average of the trained weights, which checkpoints, scores and image grids use.

Source: yifan123/flow_grpo, flow_grpo/ema.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from ddpo.errors import CheckpointError
from ddpo.policies.kept_weights import KeptWeights
from ddpo.policies.policy import Policy

__all__ = ["WeightAverage"]

STEPS: Final = "average_steps"


class WeightAverage(KeptWeights):
    """An exponential moving average of the weights, updated every few optimizer steps.

    After s steps the decay is min((1 + s) / (10 + s), decay), so that it forgets the start soon.

    Args:
        policy: an adapted policy, whose weights are the first average.
        decay: highest decay.
        every: optimizer steps between two updates.
    """

    def __init__(self, policy: Policy, decay: float, every: int) -> None:
        super().__init__(policy, "average.")
        self.decay = decay
        self.every = every
        self.steps = 0

    @torch.no_grad()
    def step(self, *_: Any) -> None:
        """Counts an optimizer step, and updates the average if it is due."""
        self.steps += 1
        if self.steps % self.every:
            return
        done = self.steps - 1
        decay = min((1 + done) / (10 + done), self.decay)
        for name, parameter in self.parameters.items():
            self.values[name].lerp_(parameter.detach(), 1 - decay)

    def tensors(self) -> dict[str, Tensor]:
        """The average and its number of steps, for the state of a run."""
        count = torch.tensor(self.steps, dtype=torch.int64)
        return super().tensors() | {STEPS: count}

    def load(self, tensors: Mapping[str, Tensor], place: str) -> None:
        """Restores what `tensors` returned.

        Args:
            tensors: the state of a run.
            place: file of the state, for messages.

        Raises:
            CheckpointError: the number of steps or a tensor is missing or of another shape.
        """
        count = tensors.get(STEPS)
        if count is None or count.ndim or count < 0:
            raise CheckpointError(f"{place} does not fit the run: {STEPS} is missing or damaged")
        super().load(tensors, place)
        self.steps = int(count)
