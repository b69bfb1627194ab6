"""What is looked at before the first iteration: ratio, reward, memory, time, disk.

The first batch of the first iteration is sampled, scored and trained on once, without taking a step; the run then uses it, so that the
check costs one forward and backward pass of the denoiser. It draws no random number and changes no statistics.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from ddpo.devices import synchronize
from ddpo.errors import ConfigError, TrainingDiverged
from ddpo.policies.emoji.vocabulary import unknown_words_line
from ddpo.policies.policy import Policy
from ddpo.policies.prompt_reader import check_prompts, find_reader
from ddpo.prompts import PromptSet
from ddpo.text import byte_size, count, duration
from ddpo.trainer.advantages import PromptStatistics, SampleWeights
from ddpo.trainer.algorithms import Algorithm
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.likelihoods import Likelihood
from ddpo.trainer.memory import (
    Activations,
    frozen_tensors,
    memory_parts,
    total_memory,
)
from ddpo.trainer.minibatches import plan_updates
from ddpo.trainer.monitoring.events import Finding
from ddpo.trainer.monitoring.metrics import peak_memory
from ddpo.trainer.update import ON_POLICY_TOLERANCE
from ddpo.types import Rollout

__all__ = ["cut_prompts", "disk", "examine", "train_once", "unknown_words"]

MANY_UNSCORABLE: Final = 0.25  # share of a batch


def examine(
    policy: Policy,
    algorithm: Algorithm,
    likelihood: Likelihood,
    first: Rollout,
    prompt_ids: Sequence[str],
    config: TrainConfig,
    iteration: int,
    sampling: float,
    processes: int = 1,
    reward_mb: float = 0.0,
) -> list[Finding]:
    """What the first batch of an iteration tells.

    Args:
        policy: as it is before that iteration; left as it is.
        algorithm: its loss is differentiated once.
        likelihood: of the items of `first`.
        first: the batch, scored.
        prompt_ids: of all pictures of the iteration.
        config: the settings of the run.
        iteration: that it belongs to.
        sampling: seconds that it took.
        processes: how many share the work.
        reward_mb: memory of the reward on the policy's device, in 10⁶ bytes.

    Raises:
        TrainingDiverged: the ratio is not 1.
    """
    activations = Activations()
    deviation, training = train_once(
        policy, algorithm, likelihood, first, config, iteration, activations
    )
    if deviation is not None and not deviation <= ON_POLICY_TOLERANCE:
        raise TrainingDiverged(
            f"|ratio - 1| is {deviation:.2g} before the first update; it must be 0"
        )
    weights = _if_rewards_differed(algorithm, prompt_ids, config)
    counted = int(weights.counted.sum())
    ratio = (
        "this method has none"
        if deviation is None
        else f"1 before the first update (largest deviation {deviation:.1g})"
    )
    return [
        Finding(
            "batch", _arithmetic(config, counted, likelihood.noise_levels is not None, processes)
        ),
        Finding("ratio", ratio),
        *_reward(first),
        *_comparison(weights, config),
        _memory(policy, first, config, processes, activations.bytes, reward_mb),
        _time(sampling, training, counted, config, config.iterations - iteration + 1, processes),
    ]


def unknown_words(model: str, prompts: PromptSet) -> Finding | None:
    """The finding about words of the prompts that the embedded model was never taught; None if there is none."""
    line = unknown_words_line(model, [prompt.text for prompt in prompts.prompts])
    return None if line is None else Finding("words", line, good=False)


def cut_prompts(model: str, prompts: PromptSet) -> Finding | None:
    """The finding about prompts that the model does not read to their end; None if it reads all.

    Raises:
        PromptError: two prompts are one to the model; names both.
    """
    reader = find_reader(model)
    cut = check_prompts(reader, [prompt.text for prompt in prompts.prompts]) if reader else None
    return Finding("prompts", str(cut), good=False) if cut else None


def train_once(
    policy: Policy,
    algorithm: Algorithm,
    likelihood: Likelihood,
    first: Rollout,
    config: TrainConfig,
    iteration: int,
    activations: Activations | None = None,
) -> tuple[float | None, float]:
    """Largest |ratio - 1| (None: no ratios) and seconds of one forward and backward pass over a batch of items.

    `activations` counts what the pass keeps.
    """
    activations = activations or Activations()
    count = len(first.rewards)
    flags = np.ones(count, bool)
    plan = plan_updates(
        SampleWeights(np.ones(count), flags, flags, 0), config, iteration, likelihood.noise_levels
    )
    items = plan[0][: config.sample.batch]
    likelihood.prepare([items])
    begun = time.perf_counter()
    trained = [parameter for _, parameter in policy.trainable_parameters()]
    with activations.counting([*trained, *frozen_tensors(policy)]):
        found = likelihood.of(items)
    old = found.now.detach() if found.old is None else found.old
    algorithm.loss(
        found.now, old, torch.ones(len(items), device=policy.device), config
    ).mean().backward()
    for _, parameter in policy.trainable_parameters():
        parameter.grad = None
    deviation = (
        None
        if found.old is None
        else float(((found.now - found.old).detach().exp() - 1).abs().max())
    )
    synchronize(policy.device)
    return deviation, time.perf_counter() - begun


def _if_rewards_differed(
    algorithm: Algorithm, prompt_ids: Sequence[str], config: TrainConfig
) -> SampleWeights:
    """The weights of an iteration whose pictures all have other rewards; the run's own statistics are left alone."""
    statistics = PromptStatistics(config.advantage.buffer, config.advantage.min_count)
    return algorithm.weigh(
        np.arange(len(prompt_ids), dtype=np.float64), prompt_ids, statistics, config
    )


def _arithmetic(config: TrainConfig, counted: int, noise_levels: bool, processes: int) -> str:
    """The effective batch in words; `counted` of its pictures are trained on."""
    sample, optim, steps = config.sample, config.optim, config.steps_per_picture
    prompts, share = sample.samples // sample.per_prompt // processes, counted // optim.updates
    batches = math.ceil(prompts * sample.per_prompt / sample.batch)
    shares = f"{processes} processes × " if processes > 1 else ""
    kept = f"{counted} are kept; " if counted < sample.samples else ""
    epochs = f", {optim.epochs} times over" if optim.epochs > 1 else ""
    return (
        f"{shares}{prompts} prompts × {sample.per_prompt} = {sample.samples} pictures, sampled in {count(batches, 'batch')} of "
        f"{sample.batch}{' on each' if processes > 1 else ''}; {kept}"
        f"{count(optim.updates, 'update')} of {share} pictures × "
        f"{count(steps, 'noise level' if noise_levels else 'step')} = {share * steps:,} items{epochs}"
    )


def _reward(first: Rollout) -> list[Finding]:
    """The spread that there is to learn from, and the share that has no score."""
    values = first.rewards.values.cpu().double().numpy()
    known = ~np.isnan(values)
    ids = np.array([prompt.id for prompt in first.prompts])
    groups = [values[known & (ids == prompt)] for prompt in dict.fromkeys(ids.tolist())]
    spreads = [float(group.std()) for group in groups if len(group) > 1]
    findings = []
    if known.any():
        flat = sum(spread == 0 for spread in spreads)
        text = f"mean {values[known].mean():.4g} over {int(known.sum())} pictures; "
        if not spreads:
            text += "spread within a prompt not known, no prompt has two scored pictures in the first batch"
        else:
            text += f"spread within a prompt {float(np.median(spreads)):.3g}"
        if flat:
            text += f"; {flat} of {len(spreads)} prompts have equal rewards, from which nothing is learned"
        findings.append(Finding("reward", text, good=2 * flat < len(spreads) or not spreads))
    lost = int((~known).sum())
    reason = (
        f"; the first: {next(error for error in first.rewards.errors if error)}" if lost else ""
    )
    findings.append(
        Finding(
            "unscorable",
            f"{lost} of {len(values)} pictures{reason}",
            good=lost <= MANY_UNSCORABLE * len(values),
        )
    )
    return findings


def _comparison(weights: SampleWeights, config: TrainConfig) -> list[Finding]:
    """Whether rewards, were they all different, would have a say; with one picture of each prompt some methods have nothing to compare."""
    if len(weights.values) and weights.values.min() < weights.values.max():
        return []
    text = (
        f"{config.algorithm} would give all pictures the same weight, whatever their rewards: with sample.per_prompt = "
        f"{config.sample.per_prompt} and advantage.kind = {config.advantage.kind!r} they are compared with nothing"
    )
    return [Finding("comparison", text, good=False)]


def _memory(
    policy: Policy, first: Rollout, config: TrainConfig, processes: int, kept: int, reward_mb: float
) -> Finding:
    """The peak so far and what is still to come, against what there is; and the parts of it.

    Args:
        policy: adapted.
        first: the batch that was sampled.
        config: the settings of the run.
        processes: how many share the work.
        kept: bytes of activations of one training call.
        reward_mb: memory of the reward on the policy's device, in 10⁶ bytes.
    """
    latents = first.trajectory.latents
    each = latents.element_size() * latents.numel()
    batches = math.ceil(config.sample.samples / processes / config.sample.batch)
    parts = memory_parts(policy, kept, each * batches, reward_mb)
    on_gpu = policy.device.type == "cuda"
    to_come = 0 if on_gpu else each * (batches - 1)  # a GPU has room for all paths already
    need = peak_memory(policy.device) + parts.optimizer + to_come
    total = total_memory(policy.device)
    where = "of the GPU" if on_gpu else "of this machine"
    share = " in each process" if processes > 1 else ""
    room = f" of the {byte_size(total)} {where}" if total else ""
    text = f"about {byte_size(need)}{share}{room}, an estimate from the first batch; {parts.text()}"
    return Finding("memory", text, good=not total or need < total)


def _time(
    sampling: float,
    training: float,
    counted: int,
    config: TrainConfig,
    iterations: int,
    processes: int,
) -> Finding:
    """From one batch sampled and one trained on, each for the first time and so rather too slow."""
    sample, optim = config.sample, config.optim
    calls = (
        math.ceil(counted // optim.updates * config.steps_per_picture / processes / sample.batch)
        * optim.updates
        * optim.epochs
    )
    each = sampling * math.ceil(sample.samples / processes / sample.batch) + training * calls
    total, queries = each * iterations, sample.samples * iterations
    return Finding(
        "time",
        f"about {each:.1f} s an iteration, {duration(total)} for {iterations}, {queries:,} reward queries; an estimate from the first batch",
    )


def disk(out: Path, policy: Policy, config: TrainConfig, done: int) -> Finding:
    """What the rest of the run will write, against what is free.

    Args:
        out: the run folder, which need not be there.
        policy: whose weights are written.
        config: how often, and how many stay.
        done: iterations that are done.

    Raises:
        ConfigError: there is not enough room.
    """
    bytes_each = _trainable_bytes(policy)
    marks = [
        i
        for i in range(done + 1, config.iterations + 1)
        if i % config.checkpoint_every == 0 or i == config.iterations
    ]
    most = (
        config.checkpoint_keep + 1 + bool(config.held_out) if config.checkpoint_keep else len(marks)
    )
    checkpoints = min(len(marks), most)
    need = bytes_each * (
        checkpoints + 2 * 3
    )  # the state has weights and two moments, and is there twice while it is replaced
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    text = f"about {byte_size(need)} for {count(checkpoints, 'checkpoint')} and the state; {byte_size(free)} are free"
    if need > free:
        raise ConfigError(
            f"{place} has too little room: {text}. Set checkpoint_keep, or checkpoint_every higher, or another --out"
        )
    return Finding("disk", text)


def _trainable_bytes(policy: Policy) -> int:
    return sum(
        parameter.numel() * parameter.element_size()
        for _, parameter in policy.trainable_parameters()
    )
