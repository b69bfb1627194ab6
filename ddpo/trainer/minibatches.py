"""The (image, step) items of each optimizer step, from seed, iteration and weights alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ddpo.trainer.advantages import SampleWeights
from ddpo.trainer.config import TrainConfig

__all__ = ["Minibatch", "call_count", "plan_updates"]

STREAM: Final = 1  # of the random numbers keyed by (seed, stream, iteration); 0 samples prompts

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Minibatch:
    """The items of one optimizer step; `total` also counts those left out for their weight 0."""

    images: Integers  # [items], index of the image in the iteration
    steps: Integers  # [items], index of the denoising step, or noise level of the denoising loss
    draws: Integers  # [items], number of the item among those of its image: the key of fresh noise
    total: int
    places: Integers | None = (
        None  # [items], place of each in a call; None: in order, from the first
    )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> Minibatch:
        return Minibatch(self.images[part], self.steps[part], self.draws[part], self.total)

    def among(self, images: range) -> Minibatch:
        """The items of these images; `total` stays."""
        own = (self.images >= images.start) & (self.images < images.stop)
        return Minibatch(self.images[own], self.steps[own], self.draws[own], self.total)

    def batches(self, size: int) -> list[Minibatch]:
        """The items, in order, in parts of up to `size`."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    def calls(self, places: Integers) -> list[Minibatch]:
        """The items in as few parts as give each item its place.

        Args:
            places: place of each item in a call, `[items]`.
        """
        turns = _turns(places)
        parts = [np.flatnonzero(turns == turn) for turn in range(int(turns.max(initial=-1)) + 1)]
        return [
            Minibatch(
                self.images[part], self.steps[part], self.draws[part], self.total, places[part]
            )
            for part in parts
        ]


def plan_updates(
    weights: SampleWeights,
    config: TrainConfig,
    iteration: int,
    noise_levels: int | None = None,
    windows: Integers | None = None,
    places: Integers | None = None,
) -> list[Minibatch]:
    """The items of every optimizer step of an iteration, in order.

    In each of `optim.epochs` passes the images are split at random into `optim.updates` parts, and
    `optim.timesteps` steps are sampled for each image. Images with weight 0 (unscorable, or without
    spread) are left out before their forward pass. An update without any image left is left out.

    Args:
        weights: weights of the images.
        config: settings of the run.
        iteration: 1-based iteration number, which keys the random numbers.
        noise_levels: number of noise levels that steps are sampled from, evenly. None: steps are
            denoising steps of the trajectory, each at most once per image and epoch, without the
            first `optim.skip_first` and the last `optim.skip_last`.
        windows: steps of each image that are trained, `[images, steps]`; None: all may be.
        places: place of each image in a call, `[images]`, which the images of a part share evenly;
            None: any image may have any place.
    """
    rng = np.random.default_rng([config.seed, STREAM, iteration])
    count = config.steps_per_image
    counted = np.flatnonzero(weights.counted)
    plan = []
    for epoch in range(config.optim.epochs):
        order = rng.permutation(counted)
        if places is not None:
            order = order[np.argsort(_turns(places[order]), kind="stable")]
        for part in np.array_split(order, config.optim.updates):
            if not len(part):
                continue
            if windows is not None:
                steps = windows[part]
            elif noise_levels is None:
                steps = config.optim.skip_first + np.stack(
                    [rng.permutation(config.trained_steps)[:count] for _ in part]
                )
            else:
                steps = rng.integers(0, noise_levels, (len(part), count))
            draws = np.broadcast_to(epoch * count + np.arange(count), steps.shape)
            useful = weights.values[part] != 0
            if useful.any():
                images = np.repeat(part[useful], count).astype(np.int64)
                items = len(part) * count
                plan.append(Minibatch(images, _flat(steps[useful]), _flat(draws[useful]), items))
    return plan


def call_count(images: int, steps: int, batch: int, by_place: bool) -> int:
    """The calls of an update of some images, with `steps` items each.

    Args:
        images: number of images.
        steps: items of each image.
        batch: places of a call.
        by_place: True if each image has a place, and the places share the images evenly.
    """
    return math.ceil(images / batch) * steps if by_place else math.ceil(images * steps / batch)


def _turns(places: Integers) -> Integers:
    """Number of earlier items with the same place, for each item."""
    order = np.argsort(places, kind="stable")
    _, firsts, counts = np.unique(places[order], return_index=True, return_counts=True)
    turns = np.empty_like(places)
    turns[order] = np.arange(len(places)) - np.repeat(firsts, counts)
    return turns


def _flat(values: NDArray[np.int64]) -> Integers:
    return values.reshape(-1).astype(np.int64)
