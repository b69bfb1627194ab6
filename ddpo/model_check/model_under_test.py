"""A model under test, with the texts, latents and changed weights that the checks share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.policies import load_policy
from ddpo.policies.conditioning import Conditioning
from ddpo.policies.policy import LoraSettings, TrainablePolicy
from ddpo.policies.sampler import SampleKey, SamplerSettings
from ddpo.policies.schedule import StepCoefficients
from ddpo.rewards.check.definition import CheckFailed
from ddpo.types import Prompt

__all__ = ["BATCH", "ETA", "STEPS", "TEXTS", "Kind", "ModelUnderTest", "parts_of", "same"]

Kind = Literal["lora", "full"]

TEXTS: Final = (
    "a cat",
    "two red apples and a green pear on a wooden table, seen from above",
    "",
)
"""Texts of different lengths, one of them empty."""
STEPS: Final = 4
ETA: Final = 0.7  # noise level that every family of samplers allows
BATCH: Final = 4
CHANGE: Final = 0.05  # share by which the trained weights are changed
OF_ZERO: Final = 0.1  # size that stands in for that of weights which are all 0


class ModelUnderTest:
    """A model that the checks load as often as they need a fresh one.

    Args:
        word: Name, folder, hub id or factory, as of `--model`.
        device: Torch device.
    """

    def __init__(self, word: str, device: str) -> None:
        self.word = word
        self.device = device

    @cached_property
    def policy(self) -> TrainablePolicy:
        """The model in float32, as it was loaded; no check changes it."""
        return self.fresh()

    def fresh(self, dtype: str = "float32", checkpoint: Path | None = None) -> TrainablePolicy:
        """The model, loaded once more; raises as `load_policy`."""
        return load_policy(self.word, checkpoint, self.device, dtype)

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of training that the model knows.

        Raises:
            CheckFailed: It knows none.
        """
        refusals: dict[Kind, str] = {}
        for kind in get_args(Kind):
            try:
                self.fresh().adapt(kind)
            except ConfigError as error:
                refusals[kind] = str(error)
        if len(refusals) == len(get_args(Kind)):
            raise CheckFailed(f"the model cannot be trained: {refusals['full']}")
        return tuple(kind for kind in get_args(Kind) if kind not in refusals)

    def adapted(self, kind: Kind, dtype: str = "float32") -> TrainablePolicy:
        """A fresh model with trained weights that were moved from their start."""
        policy = self.fresh(dtype)
        lora = LoraSettings(2, 4, policy.lora.targets) if hasattr(policy, "lora") else None
        policy.adapt(kind, lora if kind == "lora" else None)
        disturb(policy)
        return policy

    def settings(self, guidance: float = 3.0, eta: float = ETA) -> SamplerSettings:
        """The settings of a short sampler run."""
        return SamplerSettings(steps=STEPS, guidance=guidance, eta=eta, batch=BATCH)

    def keys(self) -> list[SampleKey]:
        """The identities of one image of each text, but for the empty one, and of a second."""
        first, second, _ = TEXTS
        return [SampleKey(Prompt(text), index) for text, index in ((first, 0), (second, 0))] + [
            SampleKey(Prompt(first), 1)
        ]

    def coefficients(self, policy: TrainablePolicy) -> StepCoefficients:
        """The coefficients of `settings`."""
        return policy.schedule.coefficients_on(policy.device, STEPS, ETA)

    def inputs(self, policy: TrainablePolicy) -> tuple[Tensor, Tensor, Any]:
        """Latents, timesteps and conditioning of one item for each text."""
        latents = random_latents(policy, len(TEXTS), seed=1)
        times = self.coefficients(policy).timesteps[: len(TEXTS)]
        return latents, times, policy.encode(list(TEXTS))


def random_latents(policy: TrainablePolicy, items: int, seed: int) -> Tensor:
    """Normal latents `[items, …]` in the type and on the device of a policy."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn((items, *policy.latent_shape), generator=generator)
    return latents.to(policy.device, policy.storage_dtype)


@torch.no_grad()
def disturb(policy: TrainablePolicy) -> None:
    """Moves the trained weights from their start, as training would."""
    generator = torch.Generator().manual_seed(5)
    for _, parameter in policy.trainable_parameters():
        size = float(parameter.float().square().mean().sqrt()) or OF_ZERO
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.add_(CHANGE * size * noise.to(parameter))


def parts_of(conditioning: Any) -> Iterator[Tensor]:
    """All tensors of a conditioning."""
    if isinstance(conditioning, Conditioning):
        for _, part in sorted(conditioning.parts.items()):
            yield from parts_of(part)
    elif isinstance(conditioning, tuple):
        for part in conditioning:
            yield from parts_of(part)
    else:
        yield conditioning


def same(one: Any, other: Any) -> bool:
    """True for two conditionings with equal tensors."""
    left = list(parts_of(one))
    right = list(parts_of(other))
    return len(left) == len(right) and all(map(torch.equal, left, right))
