"""The checks before the first iteration: ratio, reward, memory, time and disk.

The first batch of the first iteration is sampled, scored and trained on once, without a step. The
run then uses it, so the check costs one forward and backward pass of the denoiser. It uses no
random number of the run and changes no statistics.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch

from ddpo.devices import synchronize
from ddpo.errors import TrainingDiverged
from ddpo.policies.policy import Policy
from ddpo.trainer.advantages import SampleWeights
from ddpo.trainer.algorithms import AnyAlgorithm, needs_of
from ddpo.trainer.algorithms.contract import sample_losses
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.likelihoods import Likelihood
from ddpo.trainer.low_memory import low_memory_finding, rewards_away
from ddpo.trainer.memory import Activations, frozen_tensors
from ddpo.trainer.minibatches import plan_updates
from ddpo.trainer.monitoring.estimates import (
    check_paths_fit,
    disk_finding,
    memory_finding,
    old_output_bytes,
    time_finding,
)
from ddpo.trainer.monitoring.events import Checked, Event, Finding, Progress
from ddpo.trainer.monitoring.findings import (
    average_finding,
    comparison_finding,
    distilled_model,
    places_finding,
    plan_findings,
    reward_findings,
    unknown_words,
    weights_of_distinct_rewards,
)
from ddpo.trainer.rollout import Collection
from ddpo.trainer.run.resume import warn
from ddpo.trainer.settings import settings_finding
from ddpo.trainer.training_setup import TrainingSetup
from ddpo.trainer.update import ON_POLICY_TOLERANCE
from ddpo.types import Rollout

__all__ = ["check_room", "preflight", "train_once"]


def check_room(setup: TrainingSetup, out: Path, done: int) -> None:
    """Compares the settings with memory and disk, before anything is written or sampled.

    Args:
        setup: the parts of the run.
        out: the run folder, which need not exist.
        done: number of iterations that are done.

    Raises:
        ConfigError: there is too little room.
    """
    needs = needs_of(setup.algorithm) or ()
    check_paths_fit(setup.policy, setup.config, len(setup.shard), "old_output" in needs)
    disk_finding(out, setup.policy, setup.config, done)


def preflight(
    setup: TrainingSetup, out: Path, iteration: int
) -> Generator[Event, None, tuple[Collection, float]]:
    """Checks a run before an iteration, and yields the findings.

    Args:
        setup: the parts of the run, which stay as they are.
        out: the run folder, which need not exist.
        iteration: 1-based iteration number.

    Returns:
        The iteration's images, of which the first batch is sampled and scored, and the seconds
        that this took.

    Raises:
        ConfigError: there is too little room on the disk.
        RewardFailure: the reward failed.
        TrainingDiverged: the ratio is not 1, or an image is not finite.
    """
    config = setup.config
    yield Progress("checking", 0, 1)
    with setup.world.in_lockstep():
        disk = disk_finding(out, setup.policy, config, iteration - 1)
    collection = setup.collection(iteration)
    started = time.perf_counter()
    with setup.world.in_lockstep():
        first = collection.first_batch()
    sampling = time.perf_counter() - started
    likelihood = setup.likelihood(setup.policy, first, iteration)
    with rewards_away(config, setup.policy.device):
        findings = _first_batch_findings(setup, likelihood, first, iteration, sampling)
    scorers = [setup.scorer, *([setup.held_out.scorer] if setup.held_out else [])]
    notes = [
        low_memory_finding(config, setup.policy, [scorer.reward for scorer in scorers]),
        average_finding(config),
        distilled_model(setup.policy),
        unknown_words(config.model, setup.prompts),
        setup.cut_prompts,
        warn(setup.changes),
    ]
    noted = [note for note in notes if note is not None]
    yield Checked([settings_finding(config), *findings, disk, *noted, *_held_out_findings(setup)])
    return collection, sampling


def _held_out_findings(setup: TrainingSetup) -> list[Finding]:
    """The faults of the held-out reward and of early stopping by it."""
    if setup.held_out is None:
        return []
    return setup.held_out.findings(setup.reward, setup.prompts.prompts)


def _first_batch_findings(
    setup: TrainingSetup, likelihood: Likelihood, first: Rollout, iteration: int, sampling: float
) -> list[Finding]:
    """Findings from one training call on the first batch.

    Args:
        setup: the parts of the run.
        likelihood: log-likelihoods of the batch's items.
        first: the batch, sampled and scored.
        iteration: 1-based iteration number.
        sampling: seconds in which the batch was sampled and scored.

    Raises:
        TrainingDiverged: the ratio is not 1.
    """
    config = setup.config
    policy = setup.policy
    processes = setup.world.world_size
    activations = Activations()
    deviation, training = train_once(
        policy, setup.algorithm, likelihood, first, config, iteration, activations
    )
    ratio = _ratio_finding(deviation)
    ids = [key.prompt.id for key in setup.keys(iteration)]
    weights = weights_of_distinct_rewards(setup.algorithm, ids, config)
    counted = int(weights.counted.sum())
    comparison = comparison_finding(weights, config)
    reward_mb = setup.reward.memory_mb(str(policy.device))
    old_outputs = 0
    if "old_output" in (needs_of(setup.algorithm) or ()):
        old_outputs = old_output_bytes(policy, config, counted // processes)
    left = config.iterations - iteration + 1
    by_place = likelihood.places(1) is not None
    empty = places_finding(config, counted, processes) if by_place else None
    return [
        *plan_findings(setup.algorithm, policy, config, setup.coefficients, counted, processes),
        ratio,
        *reward_findings(first),
        *([comparison] if comparison else []),
        memory_finding(policy, first, config, processes, activations.bytes, reward_mb, old_outputs),
        time_finding(sampling, training, counted, config, left, processes, by_place),
        *([empty] if empty else []),
    ]


def _ratio_finding(deviation: float | None) -> Finding:
    """The ratio before the first update; `deviation` is None for a method without ratios.

    Raises:
        TrainingDiverged: the ratio is not 1.
    """
    if deviation is None:
        return Finding("ratio", "this method has none")
    if not deviation <= ON_POLICY_TOLERANCE:
        raise TrainingDiverged(
            f"|ratio - 1| is {deviation:.2g} before the first update; it must be 0"
        )
    text = f"1 before the first update (largest deviation {deviation:.1g})"
    return Finding("ratio", text)


def train_once(
    policy: Policy,
    algorithm: AnyAlgorithm,
    likelihood: Likelihood,
    first: Rollout,
    config: TrainConfig,
    iteration: int,
    activations: Activations | None = None,
) -> tuple[float | None, float]:
    """Runs one forward and backward pass over a batch of items, without a step.

    Args:
        policy: the policy, which stays as it is.
        algorithm: the method, whose loss is differentiated.
        likelihood: log-likelihoods of the batch's items.
        first: the batch, sampled and scored.
        config: settings of the run.
        iteration: 1-based iteration number.
        activations: counter of the bytes that the pass keeps.

    Returns:
        Largest |ratio - 1| (None: the method has no ratios), and the seconds that it took.
    """
    activations = activations or Activations()
    count = len(first.rewards)
    flags = np.ones(count, bool)
    weights = SampleWeights(np.ones(count), flags, flags, 0)
    places = likelihood.places(count)
    plan = plan_updates(
        weights, config, iteration, likelihood.noise_levels, likelihood.windows, places
    )
    items = likelihood.calls(plan[0])[0]
    likelihood.prepare([items])
    started = time.perf_counter()
    trained = [parameter for _, parameter in policy.trainable_parameters()]
    with activations.counting([*trained, *frozen_tensors(policy)]):
        found = likelihood.of(items)
    ones = torch.ones(len(items), device=policy.device)
    sample_losses(algorithm, found, ones, config).mean().backward()
    for parameter in trained:
        parameter.grad = None
    deviation = None
    if found.old_log_probs is not None:
        deviation = float((found.log_ratio().detach().exp() - 1).abs().max())
    synchronize(policy.device)
    return deviation, time.perf_counter() - started
