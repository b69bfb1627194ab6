"""One pass of updates over a rollout: many (picture, step) items in one call of the denoiser, always in the sampler's batch shape."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpo.errors import TrainingDiverged
from ddpo.policies.policy import Policy
from ddpo.policies.sample import step_log_probs
from ddpo.policies.transition import StepCoefficients
from ddpo.trainer.advantages import Advantages
from ddpo.trainer.algorithms import Algorithm
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.events import Progress
from ddpo.types import Rollout

__all__ = ["Items", "UpdateStats", "plan_updates", "update"]

ON_POLICY_TOLERANCE = 1e-5
"""Largest |ratio - 1| before the first update that is put down to a GPU's order of summation; on a CPU it is 0."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Items:
    """The (picture, denoising step) pairs of one optimizer step; `total` also counts those left out for having no advantage."""

    pictures: Integers  # [items]
    steps: Integers  # [items]
    total: int


@dataclass(slots=True)
class UpdateStats:
    """Means over the items of an iteration, and over its optimizer steps for the gradient norm."""

    loss: float = 0.0
    ratio_mean_deviation: float = 0.0
    ratio_first_deviation: float = 0.0
    clip_fraction: float = 0.0
    approx_kl: float = 0.0
    grad_norm: float = 0.0
    updates: int = 0


def plan_updates(advantages: Advantages, config: TrainConfig, iteration: int) -> list[Items]:
    """Cuts the pictures at random into `optim.updates` parts and draws `optim.timesteps` denoising steps for each
    picture, never of the last `optim.skip_last`.

    Pictures without advantage (unscorable, or without spread) are left out before their forward pass; an update that has none
    left is left out whole.
    """
    rng = np.random.default_rng([config.seed, 1, iteration])
    count = config.steps_per_picture
    plan = []
    for part in np.array_split(rng.permutation(len(advantages.values)), config.optim.updates):
        steps = np.stack([rng.permutation(config.trained_steps)[:count] for _ in part])
        useful = advantages.values[part] != 0
        if useful.any():
            pictures = np.repeat(part[useful], count).astype(np.int64)
            plan.append(Items(pictures, steps[useful].reshape(-1).astype(np.int64), int(advantages.scored[part].sum()) * count))
    return plan


def update(
    policy: Policy, optimizer: torch.optim.Optimizer, algorithm: Algorithm, rollout: Rollout, advantages: Advantages,
    coefficients: StepCoefficients, config: TrainConfig, iteration: int,
) -> Generator[Progress, None, UpdateStats]:  # fmt: skip
    """Takes the optimizer steps of one iteration; yields progress, returns the statistics.

    Raises:
        TrainingDiverged: the ratio is not 1 before the first update, or a loss or gradient is not finite (nothing is applied).
    """
    plan = plan_updates(advantages, config, iteration)
    tables = _Tables.of(policy, rollout, advantages)
    parameters = [parameter for _, parameter in policy.trainable_parameters()]
    sums = torch.zeros(4, dtype=torch.float64, device=policy.device)
    norms, done, every = [], 0, sum(len(items.pictures) for items in plan)
    stats = UpdateStats()
    for number, items in enumerate(plan):
        optimizer.zero_grad(set_to_none=True)
        for start in range(0, len(items.pictures), config.sample.batch):
            part = slice(start, start + config.sample.batch)
            loss, log_ratio = _losses(policy, algorithm, tables, items.pictures[part], items.steps[part], coefficients, config)
            (loss.sum() / items.total).backward()
            ratio = log_ratio.exp()
            if number == 0:
                stats.ratio_first_deviation = max(stats.ratio_first_deviation, float((ratio - 1).abs().max()))
            outside = ((ratio - 1).abs() > config.optim.clip_range).float()
            sums += torch.stack([v.double().sum() for v in (loss.detach(), (ratio - 1).abs(), outside, 0.5 * log_ratio**2)])
            done += len(log_ratio)
            yield Progress("training", done, every)
        if number == 0 and not stats.ratio_first_deviation <= ON_POLICY_TOLERANCE:
            raise TrainingDiverged(
                f"|ratio - 1| is {stats.ratio_first_deviation:.2g} before the first update of iteration {iteration}; it must be 0"
            )
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.optim.max_grad_norm)
        if not bool(torch.isfinite(norm)) or not bool(torch.isfinite(sums).all()):
            raise TrainingDiverged(
                f"the loss or gradient of iteration {iteration} is not finite; no step was taken. A lower optim.lr may help"
            )
        optimizer.step()
        norms.append(float(norm))
    if plan:
        stats.loss, stats.ratio_mean_deviation, stats.clip_fraction, stats.approx_kl = (sums / every).tolist()
        stats.grad_norm, stats.updates = float(np.mean(norms)), len(plan)
    return stats


@dataclass(frozen=True, slots=True)
class _Tables:
    """What the items index into, by picture."""

    latents: Tensor
    log_probs: Tensor
    advantages: Tensor
    conditioning: Tensor
    unconditional: Tensor

    @classmethod
    def of(cls, policy: Policy, rollout: Rollout, advantages: Advantages) -> _Tables:
        values = torch.from_numpy(advantages.values).float().to(policy.device)
        conditioning = policy.encode([prompt.text for prompt in rollout.images.prompts])
        return cls(rollout.trajectory.latents, rollout.trajectory.log_probs, values, conditioning, policy.encode([""]))


def _losses(
    policy: Policy, algorithm: Algorithm, tables: _Tables, pictures: Integers, steps: Integers, coefficients: StepCoefficients,
    config: TrainConfig,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Losses and detached log-ratios of up to `batch` items; the call is padded to the sampler's batch and the padding dropped."""
    kept = len(pictures)
    missing = config.sample.batch - kept
    index = torch.from_numpy(np.concatenate([pictures, np.repeat(pictures[-1:], missing)])).to(policy.device)
    step = torch.from_numpy(np.concatenate([steps, np.repeat(steps[-1:], missing)])).to(policy.device)
    log_probs = step_log_probs(
        policy, tables.latents[index, step], tables.latents[index, step + 1], step, tables.conditioning[index], tables.unconditional,
        coefficients, config.sample.guidance,
    )  # fmt: skip
    log_probs, old = log_probs[:kept], tables.log_probs[index, step][:kept]
    return algorithm.loss(log_probs, old, tables.advantages[index][:kept], config), (log_probs - old).detach()
