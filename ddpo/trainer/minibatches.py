"""Which (picture, step) items each optimizer step of an iteration is made of. Depends on the seed, the iteration and the weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ddpo.trainer.advantages import SampleWeights
from ddpo.trainer.config import TrainConfig

__all__ = ["Minibatch", "plan_updates"]

STREAM: Final = 1  # of the random numbers keyed by (seed, stream, iteration); 0 draws prompts

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Minibatch:
    """The items of one optimizer step; `total` also counts those left out for having weight 0."""

    pictures: Integers  # [items]
    steps: Integers  # [items], index of the denoising step, or noise level of the denoising loss
    draws: Integers  # [items], which of its picture's items in this iteration it is: the key of fresh noise
    total: int

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, part: slice) -> Minibatch:
        return Minibatch(self.pictures[part], self.steps[part], self.draws[part], self.total)

    def among(self, pictures: range) -> Minibatch:
        """The items of these pictures; `total` stays."""
        own = (self.pictures >= pictures.start) & (self.pictures < pictures.stop)
        return Minibatch(self.pictures[own], self.steps[own], self.draws[own], self.total)

    def batches(self, size: int) -> list[Minibatch]:
        """The items, in order, in parts of up to `size`."""
        return [self[start : start + size] for start in range(0, len(self), size)]


def plan_updates(
    weights: SampleWeights, config: TrainConfig, iteration: int, noise_levels: int | None = None
) -> list[Minibatch]:
    """Cuts the pictures at random into `optim.updates` parts, `optim.epochs` times, and draws `optim.timesteps` steps for each picture.

    Pictures with weight 0 (unscorable, or without spread) are left out before their forward pass; an update that has none left is
    left out whole.

    Args:
        weights: of the pictures.
        config: how many updates, epochs and steps.
        iteration: keys the random numbers.
        noise_levels: None: steps are denoising steps of the trajectory, each at most once per picture and epoch, without the first
            `optim.skip_first` and the last `optim.skip_last`. A number: steps are noise levels below it, drawn evenly.
    """
    rng = np.random.default_rng([config.seed, STREAM, iteration])
    count = config.steps_per_picture
    counted = np.flatnonzero(weights.counted)
    plan = []
    for epoch in range(config.optim.epochs):
        for part in np.array_split(rng.permutation(counted), config.optim.updates):
            if not len(part):
                continue
            if noise_levels is None:
                steps = config.optim.skip_first + np.stack(
                    [rng.permutation(config.trained_steps)[:count] for _ in part]
                )
            else:
                steps = rng.integers(0, noise_levels, (len(part), count))
            draws = np.broadcast_to(epoch * count + np.arange(count), steps.shape)
            useful = weights.values[part] != 0
            if useful.any():
                pictures = np.repeat(part[useful], count).astype(np.int64)
                plan.append(
                    Minibatch(
                        pictures, _flat(steps[useful]), _flat(draws[useful]), len(part) * count
                    )
                )
    return plan


def _flat(values: NDArray[np.int64]) -> Integers:
    return values.reshape(-1).astype(np.int64)
