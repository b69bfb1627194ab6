"""One iteration's updates over a rollout: many (picture, step) items in one call of the denoiser, always in the sampler's batch shape."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ddpo.devices import moved
from ddpo.errors import TrainingDiverged
from ddpo.policies.policy import Policy
from ddpo.trainer.advantages import SampleWeights
from ddpo.trainer.algorithms import Algorithm
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.grad_scaler import GradScaler
from ddpo.trainer.likelihoods import ItemLikelihoods, Likelihood
from ddpo.trainer.minibatches import Minibatch, plan_updates
from ddpo.trainer.monitoring.events import Progress, StepStats
from ddpo.trainer.processes import ALONE, World
from ddpo.trainer.sharding import whole

__all__ = ["UpdateStats", "update"]

ON_POLICY_TOLERANCE: Final = 1e-5
"""Largest |ratio - 1| before the first update that is put down to a GPU's order of summation; on a CPU it is 0."""


@dataclass(slots=True)
class UpdateStats:
    """Means over the items of an iteration, and over its optimizer steps for the gradient norm; None: the method has no such thing."""

    loss: float = 0.0
    ratio_first_deviation: float | None = None
    ratio_mean_deviation: float | None = None
    clip_fraction: float | None = None
    approx_kl: float | None = None
    reference_kl: float | None = None
    by_step: list[StepStats] = field(default_factory=list)
    grad_norm: float = 0.0
    updates: int = 0


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    algorithm: Algorithm,
    likelihood: Likelihood,
    weights: SampleWeights,
    config: TrainConfig,
    iteration: int,
    processes: World = ALONE,
    scale: GradScaler | None = None,
) -> Generator[Progress, None, UpdateStats]:
    """Takes the optimizer steps of one iteration; yields progress, returns the statistics.

    Of several processes each trains on its own pictures of every update; gradients and statistics are those of all. `scale` keeps float16
    gradients from vanishing; an update whose gradients overflow under it is left out.

    Raises:
        TrainingDiverged: the ratio is not 1 before the first update, or a loss or gradient is not finite (nothing is applied).
    """
    updates = plan_updates(weights, config, iteration, likelihood.noise_levels)
    plan = [items.among(likelihood.pictures) for items in updates]
    scale = scale or GradScaler(needed=False)
    _prepare(likelihood, plan, config, processes)
    by_picture = torch.from_numpy(weights.values).float().to(policy.device)
    parameters = [parameter for _, parameter in policy.trainable_parameters()]
    sums = _Sums(config)
    norms, done, every = [], 0, sum(len(items) for items in plan)
    for number, items in enumerate(plan):
        optimizer.zero_grad(set_to_none=True)
        parts = items.batches(config.sample.batch)
        idle = processes.calls(len(parts)) - len(parts)
        for part in parts:
            with processes.synchronised(part is parts[-1]):
                found = likelihood.of(part)
                losses = _losses(
                    algorithm,
                    found,
                    by_picture[moved(torch.from_numpy(part.pictures), policy.device)],
                    config,
                )
                (
                    losses.sum() * processes.count / items.total * scale.value
                ).backward()  # times the processes, as their mean is taken
            sums.add(losses, found, part, first=number == 0)
            done += len(part)
            yield Progress("training", done, every)
        for _ in range(idle):
            _take_part(likelihood, config)
        _check(sums, iteration, number, processes)
        scale.unscale(parameters)
        norm = float(whole(torch.nn.utils.clip_grad_norm_(parameters, config.optim.max_grad_norm)))
        if not scale.judge(math.isfinite(norm)):
            raise _not_finite(iteration)
        if math.isfinite(norm):
            optimizer.step()
            norms.append(norm)
    stats = sums.stats(sum(len(items) for items in updates), processes)
    if norms:
        stats.grad_norm, stats.updates = float(np.mean(norms)), len(norms)
    return stats


def _losses(
    algorithm: Algorithm, found: ItemLikelihoods, weights: Tensor, config: TrainConfig
) -> Tensor:
    losses = algorithm.loss(
        found.now, found.now.detach() if found.old is None else found.old, weights, config
    )
    return losses if found.kl is None else losses + config.optim.kl * found.kl


def _prepare(
    likelihood: Likelihood,
    plan: list[Minibatch],
    config: TrainConfig,
    processes: World,
) -> None:
    """Prepares the likelihood, with as many calls of a sharded denoiser as other processes."""
    own = sum(len(items.batches(config.sample.batch)) for items in plan)
    idle = processes.calls(own) - own
    likelihood.prepare(plan)
    for _ in range(idle):
        likelihood.prepare([_idle(likelihood, config)])


def _take_part(likelihood: Likelihood, config: TrainConfig) -> None:
    """Joins in a sum of gradients, or in a call of a sharded denoiser, with zeros."""
    (likelihood.of(_idle(likelihood, config)).now.sum() * 0).backward()


def _idle(likelihood: Likelihood, config: TrainConfig) -> Minibatch:
    """One item of this process, whichever it is."""
    first, step, draw = likelihood.pictures.start, config.optim.skip_first, 0
    return Minibatch(np.array([first]), np.array([step]), np.array([draw]), 0)


def _check(sums: _Sums, iteration: int, update: int, processes: World) -> None:
    """Raises `TrainingDiverged`, on all processes, if on one of them the ratio is not what it must be or a loss is not finite."""
    first, broken = processes.largest(sums.first, float(not sums.finite()))
    sums.first = first
    if update == 0 and not first <= ON_POLICY_TOLERANCE:
        raise TrainingDiverged(
            f"|ratio - 1| is {first:.2g} before the first update of iteration {iteration}; it must be 0"
        )
    if broken:
        raise _not_finite(iteration)


def _not_finite(iteration: int) -> TrainingDiverged:
    return TrainingDiverged(
        f"the loss or gradient of iteration {iteration} is not finite; no step was taken. A lower optim.lr may help"
    )


class _Sums:
    """Sums over items, one row per denoising step. Batches stay on the device until the next `collect`.

    Sums are float64, which not every device has, and are therefore taken on the CPU.
    """

    ROWS = ("items", "deviation", "outside", "squared", "kl")

    def __init__(self, config: TrainConfig) -> None:
        self.clip_range = config.optim.clip_range
        self.first = 0.0  # largest |ratio - 1| of the first update
        self.loss = torch.zeros((), dtype=torch.float64)
        self.table = torch.zeros(config.sample.steps, len(self.ROWS), dtype=torch.float64)
        self.ratios = False
        self.kl = False
        self._losses: list[Tensor] = []
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._largest: list[Tensor] = []

    def add(self, losses: Tensor, found: ItemLikelihoods, items: Minibatch, first: bool) -> None:
        """Takes the losses and likelihoods of some items."""
        self._losses.append(losses.detach())
        if found.old is None:
            return
        log_ratio = (found.now - found.old).detach()
        deviation = (log_ratio.exp() - 1).abs()
        if first:
            self._largest.append(deviation.max())
        kl = torch.zeros_like(log_ratio) if found.kl is None else found.kl.detach()
        rows = torch.stack(
            [
                torch.ones_like(deviation),
                deviation,
                (deviation > self.clip_range).float(),
                0.5 * log_ratio**2,
                kl,
            ],
            1,
        )
        self._rows.append((torch.from_numpy(items.steps), rows))
        self.ratios, self.kl = True, found.kl is not None

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
        """Whether all is finite so far."""
        self.collect()
        return bool(torch.isfinite(self.loss)) and bool(torch.isfinite(self.table).all())

    def stats(self, items: int, processes: World) -> UpdateStats:
        """The means, over `items` of all processes."""
        self.collect()
        stats = UpdateStats()
        if not items:
            return stats
        table, stats.loss = processes.total(self.table), float(processes.total(self.loss)) / items
        ratios, kl_known = processes.largest(
            self.ratios, self.kl
        )  # a process may have had no items
        if ratios:
            _, stats.ratio_mean_deviation, stats.clip_fraction, stats.approx_kl, kl = (
                table.sum(0) / items
            ).tolist()
            stats.ratio_first_deviation = self.first
            stats.reference_kl = kl if kl_known else None
            rows = enumerate(table.tolist())
            stats.by_step = [
                StepStats(step, row[1] / row[0], row[2] / row[0]) for step, row in rows if row[0]
            ]
        return stats
