"""A copy of a policy's trained weights, which takes their place for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ddpo.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from ddpo.policies.policy import Policy

__all__ = ["KeptWeights"]


class KeptWeights:
    """The trained weights of a policy as they are now, kept beside the policy.

    Args:
        policy: An adapted policy.
        prefix: Start of the names of these weights in the state of a run.
    """

    def __init__(self, policy: Policy, prefix: str) -> None:
        self.prefix = prefix
        self.parameters = dict(policy.trainable_parameters())
        self.values = {name: one.detach().clone() for name, one in self.parameters.items()}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the policy has these weights; afterwards its own, to the bit.

        A graph that was recorded before stays valid.
        """
        own = {name: parameter.data for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            parameter.data = self.values[name]
        try:
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = own[name]

    def tensors(self) -> dict[str, Tensor]:
        """The weights, for the state of a run."""
        return {self.prefix + name: value for name, value in self.values.items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], place: str) -> None:
        """Restores what `tensors` returned.

        Args:
            tensors: State of a run.
            place: File of the state, for messages.

        Raises:
            CheckpointError: A tensor is missing or of another shape.
        """
        for name, value in self.values.items():
            saved = tensors.get(self.prefix + name)
            if saved is None or saved.shape != value.shape:
                raise CheckpointError(
                    f"{place} does not fit the run: {self.prefix}{name} is missing "
                    "or of another shape"
                )
        for name, value in self.values.items():
            value.copy_(tensors[self.prefix + name])
