"""The optimizer steps of one iteration over a rollout.

Many (image, step) items share one call of the denoiser, which always has the sampler's batch shape.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ddpo.devices import moved
from ddpo.distributed import ALONE, World
from ddpo.errors import TrainingDiverged
from ddpo.policies.policy import Policy
from ddpo.trainer.advantages import SampleWeights
from ddpo.trainer.algorithms import AnyAlgorithm
from ddpo.trainer.algorithms.contract import outside_range, sample_losses
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.grad_scaler import GradScaler
from ddpo.trainer.items import Items
from ddpo.trainer.likelihoods import Likelihood
from ddpo.trainer.minibatches import Minibatch, plan_updates
from ddpo.trainer.monitoring.events import Progress, StepStats
from ddpo.trainer.sharding import whole

__all__ = ["UpdateStats", "update"]

ON_POLICY_TOLERANCE: Final = 1e-5
"""Largest |ratio - 1| before the first update that a GPU's order of summation explains.

On a CPU it is 0.
"""


@dataclass(slots=True)
class UpdateStats:
    """Means over the items of an iteration; None where the method has no such number.

    `grad_norm` is a mean over the optimizer steps, and `seconds` is the time that they took.
    """

    loss: float = 0.0
    ratio_first_deviation: float | None = None
    ratio_mean_deviation: float | None = None
    clip_fraction: float | None = None
    approx_kl: float | None = None
    reference_kl: float | None = None
    by_step: list[StepStats] = field(default_factory=list)
    grad_norm: float = 0.0
    updates: int = 0
    seconds: float = 0.0


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    algorithm: AnyAlgorithm,
    likelihood: Likelihood,
    weights: SampleWeights,
    config: TrainConfig,
    iteration: int,
    world: World = ALONE,
    scaler: GradScaler | None = None,
) -> Generator[Progress, None, UpdateStats]:
    """Takes the optimizer steps of one iteration; yields progress, returns the statistics.

    Each process trains on its own images of every update. Gradients and statistics are those of
    all processes.

    Args:
        policy: the policy whose parameters are trained.
        optimizer: the optimizer over these parameters.
        algorithm: the method, whose loss is minimised.
        likelihood: log-likelihoods of this process's items.
        weights: weights of all images of the iteration.
        config: settings of the run.
        iteration: 1-based iteration number.
        world: the processes of the run.
        scaler: factor that keeps float16 gradients from vanishing. An update whose gradients
            overflow under it is left out.

    Raises:
        TrainingDiverged: the ratio is not 1 before the first update, or a loss or gradient is not
            finite (nothing is applied).
    """
    scaler = scaler or GradScaler(needed=False)
    places = likelihood.places(len(weights.values))
    plan = plan_updates(
        weights, config, iteration, likelihood.noise_levels, likelihood.windows, places
    )
    own = [minibatch.among(likelihood.images) for minibatch in plan]
    _prepare(likelihood, own, config, world)
    by_image = torch.from_numpy(weights.values).float().to(policy.device)
    gradients = _Gradients(algorithm, likelihood, by_image, config, world, scaler)
    parameters = [parameter for _, parameter in policy.trainable_parameters()]
    norms = []
    done = 0
    total = sum(len(minibatch) for minibatch in own)
    for number, minibatch in enumerate(own):
        optimizer.zero_grad(set_to_none=True)
        for count in gradients.accumulate(minibatch, first=number == 0):
            done += count
            yield Progress("training", done, total)
        _check(gradients.sums, iteration, number, world)
        scaler.unscale(parameters)
        norm = float(whole(torch.nn.utils.clip_grad_norm_(parameters, config.optim.max_grad_norm)))
        if not scaler.adjust(math.isfinite(norm)):
            raise _not_finite(iteration)
        if math.isfinite(norm):
            optimizer.step()
            norms.append(norm)
    stats = gradients.sums.stats(sum(len(minibatch) for minibatch in plan), world)
    if norms:
        stats.grad_norm = float(np.mean(norms))
        stats.updates = len(norms)
    return stats


class _Gradients:
    """Backward passes over minibatches, whose gradients accumulate in the parameters.

    Args:
        algorithm: the method, whose loss is differentiated.
        likelihood: log-likelihoods of this process's items.
        weights: weights of all images of the iteration, float32 `[images]`, on the device.
        config: settings of the run.
        world: the processes of the run.
        scaler: factor of the losses.
    """

    def __init__(
        self,
        algorithm: AnyAlgorithm,
        likelihood: Likelihood,
        weights: Tensor,
        config: TrainConfig,
        world: World,
        scaler: GradScaler,
    ) -> None:
        self.algorithm = algorithm
        self.likelihood = likelihood
        self.weights = weights
        self.config = config
        self.world = world
        self.scaler = scaler
        self.sums = _Sums(algorithm, config)

    def accumulate(self, minibatch: Minibatch, first: bool) -> Iterator[int]:
        """Adds the gradients of one optimizer step; yields the number of items of each call.

        Args:
            minibatch: this process's items of the step.
            first: True for the first step of the iteration, where every ratio must be 1.
        """
        parts = self.likelihood.calls(minibatch)
        idle = self.world.collective_calls(len(parts)) - len(parts)
        for part in parts:
            with self.world.sync_gradients(part is parts[-1]):
                found = self.likelihood.of(part)
                losses = self._losses(found, part)
                # times the processes, over which gradients are averaged
                mean = losses.sum() * self.world.world_size / minibatch.total
                (mean * self.scaler.value).backward()
            self.sums.add(losses, found, part, first)
            yield len(part)
        for _ in range(idle):
            _join_with_zeros(self.likelihood, self.config)

    def _losses(self, found: Items, items: Minibatch) -> Tensor:
        """One loss per item, with the KL penalty if there is one, `[items]`."""
        weights = self.weights[moved(torch.from_numpy(items.images), self.weights.device)]
        losses = sample_losses(self.algorithm, found, weights, self.config)
        return losses if found.kl is None else losses + self.config.optim.kl * found.kl


def _prepare(
    likelihood: Likelihood, plan: list[Minibatch], config: TrainConfig, world: World
) -> None:
    """Prepares the likelihood, with as many calls of a sharded denoiser as other processes."""
    own = sum(len(likelihood.calls(minibatch)) for minibatch in plan)
    idle = world.collective_calls(own) - own
    likelihood.prepare(plan)
    for _ in range(idle):
        likelihood.prepare([_one_item(likelihood, config)])


def _join_with_zeros(likelihood: Likelihood, config: TrainConfig) -> None:
    """Joins an all-reduce of gradients, or a call of a sharded denoiser, with zero gradients."""
    found = likelihood.of(_one_item(likelihood, config))
    (found.new_log_probs.sum() * 0).backward()


def _one_item(likelihood: Likelihood, config: TrainConfig) -> Minibatch:
    """A minibatch of one item of this process, which one does not matter."""
    image = np.array([likelihood.images.start])
    step = np.array([config.optim.skip_first])
    return Minibatch(image, step, np.array([0]), 0)


def _check(sums: _Sums, iteration: int, number: int, world: World) -> None:
    """Raises `TrainingDiverged` on all processes if one of them has diverged.

    Args:
        sums: statistics of this process's items so far.
        iteration: 1-based iteration number.
        number: 0-based number of the update in the iteration.
        world: the processes of the run.

    Raises:
        TrainingDiverged: a ratio is not 1 before the first update, or a loss is not finite.
    """
    first, broken = world.all_reduce_max(sums.first, float(not sums.finite()))
    sums.first = first
    if number == 0 and not first <= ON_POLICY_TOLERANCE:
        raise TrainingDiverged(
            f"|ratio - 1| is {first:.2g} before the first update of iteration {iteration}; "
            "it must be 0"
        )
    if broken:
        raise _not_finite(iteration)


def _not_finite(iteration: int) -> TrainingDiverged:
    return TrainingDiverged(
        f"the loss or gradient of iteration {iteration} is not finite; no step was taken. "
        "A lower optim.lr may help"
    )


class _Sums:
    """Sums over items, one row per denoising step. Batches stay on the device until `collect`.

    Sums are float64, which not every device has, and are therefore computed on the CPU.
    """

    ROWS = ("items", "deviation", "outside", "squared", "kl")

    def __init__(self, algorithm: AnyAlgorithm, config: TrainConfig) -> None:
        self.algorithm = algorithm
        self.config = config
        self.first = 0.0  # largest |ratio - 1| of the first update
        self.loss = torch.zeros((), dtype=torch.float64)
        self.table = torch.zeros(config.sample.steps, len(self.ROWS), dtype=torch.float64)
        self.ratios = False
        self.kl = False
        self._losses: list[Tensor] = []
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._largest: list[Tensor] = []

    def add(self, losses: Tensor, found: Items, items: Minibatch, first: bool) -> None:
        """Adds the losses and likelihoods of some items."""
        self._losses.append(losses.detach())
        if found.old_log_probs is None:
            return
        log_ratio = (found.new_log_probs - found.old_log_probs).detach()
        deviation = (log_ratio.exp() - 1).abs()
        if first:
            self._largest.append(deviation.max())
        outside = outside_range(self.algorithm, found, self.config).float()
        squared = 0.5 * log_ratio**2
        kl = torch.zeros_like(log_ratio) if found.kl is None else found.kl.detach()
        columns = [torch.ones_like(deviation), deviation, outside, squared, kl]
        self._rows.append((torch.from_numpy(items.steps), torch.stack(columns, 1)))
        self.ratios = True
        self.kl = found.kl is not None

    def collect(self) -> None:
        """Adds up what the device still holds, in one copy of each kind."""
        if self._losses:
            sizes = [len(losses) for losses in self._losses]
            for losses in torch.cat(self._losses).cpu().double().split(sizes):
                self.loss += losses.sum()
        if self._rows:
            steps, rows = zip(*self._rows, strict=True)
            self.table.index_add_(0, torch.cat(steps), torch.cat(rows).cpu().double())
        if self._largest:
            self.first = max(self.first, float(torch.stack(self._largest).max()))
        self._losses.clear()
        self._rows.clear()
        self._largest.clear()

    def finite(self) -> bool:
        """True if all sums are finite so far."""
        self.collect()
        return bool(torch.isfinite(self.loss)) and bool(torch.isfinite(self.table).all())

    def stats(self, items: int, world: World) -> UpdateStats:
        """Means over the items of all processes.

        Args:
            items: number of these items.
            world: the processes of the run.
        """
        self.collect()
        stats = UpdateStats()
        if not items:
            return stats
        table = world.all_reduce_sum(self.table)
        stats.loss = float(world.all_reduce_sum(self.loss)) / items
        ratios, kl_known = world.all_reduce_max(self.ratios, self.kl)  # one may have had no items
        if ratios:
            _, deviation, outside, squared, kl = (table.sum(0) / items).tolist()
            stats.ratio_mean_deviation = deviation
            stats.clip_fraction = outside
            stats.approx_kl = squared
            stats.ratio_first_deviation = self.first
            stats.reference_kl = kl if kl_known else None
            stats.by_step = [
                StepStats(step, row[1] / row[0], row[2] / row[0])
                for step, row in enumerate(table.tolist())
                if row[0]
            ]
        return stats
