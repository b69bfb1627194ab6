"""Findings before the first iteration about prompts, batch, rewards and weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from ddpo.distributed import World
from ddpo.policies.policy import Policy
from ddpo.policies.prompt_reader import check_prompts, find_reader
from ddpo.policies.schedule import StepCoefficients
from ddpo.policies.vocabulary import unknown_words_line
from ddpo.prompts import PromptSet
from ddpo.text import count
from ddpo.trainer.advantages import PromptStatistics, SampleWeights
from ddpo.trainer.algorithms import AnyAlgorithm
from ddpo.trainer.algorithms.contract import sample_weights
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.monitoring.events import Finding
from ddpo.trainer.monitoring.step_findings import step_findings
from ddpo.types import Rollout

__all__ = [
    "average_finding",
    "batch_finding",
    "comparison_finding",
    "cut_prompts",
    "places_finding",
    "plan_findings",
    "reward_findings",
    "summary",
    "unknown_words",
    "weights_of_distinct_rewards",
]

FEW_EMPTY: Final = 0.7  # share of a call's places that are filled
MANY_UNSCORABLE: Final = 0.25  # share of a batch


def summary(config: TrainConfig, policy: Policy, prompts: PromptSet, world: World) -> str:
    """The run and its effective batch in words.

    Args:
        config: settings of the run.
        policy: the policy, adapted.
        prompts: prompts of the run.
        world: the processes of the run.
    """
    sample = config.sample
    parameters = sum(parameter.numel() for _, parameter in policy.trainable_parameters())
    steps = config.optim.updates * config.optim.epochs
    sharded = ", sharded by FSDP" if world.sharded else ""
    shards = ""
    if world.world_size > 1:
        shards = f"{world.world_size} processes × {sample.samples // world.world_size} = "
    return (
        f"{config.algorithm} on {config.model}, {config.adapt.kind} "
        f"({parameters:,} parameters{sharded}); {len(prompts)} prompts ({prompts.source}); "
        f"per iteration {shards}{sample.samples} images "
        f"({sample.samples // sample.per_prompt} prompts × {sample.per_prompt}), "
        f"{count(steps, 'update')}"
    )


def unknown_words(model: str, prompts: PromptSet) -> Finding | None:
    """Words of the prompts that the embedded model was never taught; None if there are none."""
    line = unknown_words_line(model, [prompt.text for prompt in prompts.prompts])
    return None if line is None else Finding("words", line, good=False)


def distilled_model(policy: Policy) -> Finding | None:
    """A model that was distilled to few steps, as its name says; None for others."""
    word = getattr(policy, "distilled", "")
    if not word:
        return None
    text = (
        f"{policy.model!r} is distilled to few steps ({word!r}): training raises its reward, but "
        "blurs details after a few thousand steps; rather train the base model"
    )
    return Finding("model", text, good=False)


def average_finding(config: TrainConfig) -> Finding | None:
    """A moving average of the weights that the run never updates; None if it does or has none."""
    optim = config.optim
    steps = config.iterations * optim.updates * optim.epochs
    if not optim.ema or steps >= optim.ema_every:
        return None
    text = (
        f"checkpoints hold the average of the weights, which is first updated after "
        f"{count(optim.ema_every, 'optimizer step')}: with {steps} they are the starting model; "
        "set optim.ema=0 or more iterations"
    )
    return Finding("average", text, good=False)


def cut_prompts(model: str, prompts: PromptSet) -> Finding | None:
    """Prompts that the model does not read to their end; None if it reads all.

    Raises:
        PromptError: two prompts are the same to the model; names both.
    """
    reader = find_reader(model)
    cut = check_prompts(reader, [prompt.text for prompt in prompts.prompts]) if reader else None
    return Finding("prompts", str(cut), good=False) if cut else None


def weights_of_distinct_rewards(
    algorithm: AnyAlgorithm, prompt_ids: Sequence[str], config: TrainConfig
) -> SampleWeights:
    """Weights of an iteration in which no two images have the same reward.

    The run's own statistics stay as they are.
    """
    statistics = PromptStatistics(config.advantage.buffer, config.advantage.min_count)
    rewards = np.arange(len(prompt_ids), dtype=np.float64)
    return sample_weights(algorithm, rewards, prompt_ids, statistics, config)


def plan_findings(
    algorithm: AnyAlgorithm,
    policy: Policy,
    config: TrainConfig,
    coefficients: StepCoefficients,
    counted: int,
    processes: int,
) -> list[Finding]:
    """The effective batch, and the denoising steps if the algorithm trains on them.

    Args:
        algorithm: the method.
        policy: the policy, adapted.
        config: settings of the run.
        coefficients: coefficients of the sampler's steps.
        counted: number of images of an iteration that are trained on.
        processes: number of processes.
    """
    noise_levels = algorithm.likelihood == "denoising"
    steps = [] if noise_levels else step_findings(policy, config, coefficients)
    return [batch_finding(config, counted, noise_levels, processes), *steps]


def batch_finding(config: TrainConfig, counted: int, noise_levels: bool, processes: int) -> Finding:
    """The effective batch in words.

    Args:
        config: settings of the run.
        counted: number of images of an iteration that are trained on.
        noise_levels: True if items have noise levels, False if they have denoising steps.
        processes: number of processes.
    """
    sample = config.sample
    optim = config.optim
    steps = config.steps_per_image
    prompts = sample.samples // sample.per_prompt // processes
    share = counted // optim.updates
    batches = math.ceil(prompts * sample.per_prompt / sample.batch)
    shards = f"{processes} processes × " if processes > 1 else ""
    on_each = " on each" if processes > 1 else ""
    kept = f"{counted} are kept; " if counted < sample.samples else ""
    epochs = f", {optim.epochs} times over" if optim.epochs > 1 else ""
    levels_or_steps = count(steps, "noise level" if noise_levels else "step")
    text = (
        f"{shards}{prompts} prompts × {sample.per_prompt} = {sample.samples} images, "
        f"sampled in {count(batches, 'batch')} of {sample.batch}{on_each}; {kept}"
        f"{count(optim.updates, 'update')} of {share} images × "
        f"{levels_or_steps} = {share * steps:,} items{epochs}"
    )
    return Finding("batch", text)


def places_finding(config: TrainConfig, counted: int, processes: int) -> Finding | None:
    """Places of training calls that stay empty, where an item keeps its place; None if few do.

    Args:
        config: settings of the run.
        counted: number of images of an iteration that are trained on.
        processes: number of processes.
    """
    batch = config.sample.batch
    share = max(1, counted // config.optim.updates // processes)
    filled = share / (math.ceil(share / batch) * batch)
    if filled >= FEW_EMPTY:
        return None
    text = (
        f"{1 - filled:.0%} of every training call stays empty: an update has "
        f"{count(share, 'image')}, and an image is trained at the place in the batch where it was "
        f"sampled; set sample.batch={share} or fewer optim.updates"
    )
    return Finding("calls", text, good=False)


def reward_findings(first: Rollout) -> list[Finding]:
    """The spread of the rewards within a prompt, and the number of unscorable images."""
    values = first.rewards.values.cpu().double().numpy()
    known = ~np.isnan(values)
    ids = np.array([prompt.id for prompt in first.prompts])
    groups = [values[known & (ids == prompt)] for prompt in dict.fromkeys(ids.tolist())]
    spreads = [float(group.std()) for group in groups if len(group) > 1]
    findings = []
    if known.any():
        flat = sum(spread == 0 for spread in spreads)
        text = f"mean {values[known].mean():.4g} over {int(known.sum())} images; "
        if spreads:
            text += f"spread within a prompt {float(np.median(spreads)):.3g}"
        else:
            text += (
                "spread within a prompt not known, "
                "no prompt has two scored images in the first batch"
            )
        if flat:
            text += (
                f"; {flat} of {len(spreads)} prompts have equal rewards, "
                "from which nothing is learned"
            )
        findings.append(Finding("reward", text, good=2 * flat < len(spreads) or not spreads))
    return [*findings, _unscorable(first, int((~known).sum()))]


def _unscorable(first: Rollout, lost: int) -> Finding:
    """The number of unscorable images in the first batch, and the first reason."""
    total = len(first.rewards.values)
    reason = ""
    if lost:
        reason = f"; the first: {next(error for error in first.rewards.errors if error)}"
    good = lost <= MANY_UNSCORABLE * total
    return Finding("unscorable", f"{lost} of {total} images{reason}", good)


def comparison_finding(weights: SampleWeights, config: TrainConfig) -> Finding | None:
    """A method that compares an image with nothing; None if it compares.

    Some methods have nothing to compare where a prompt has one image.

    Args:
        weights: weights of images whose rewards all differ.
        config: settings of the run.
    """
    if len(weights.values) and weights.values.min() < weights.values.max():
        return None
    text = (
        f"{config.algorithm} would give all images the same weight, whatever their rewards: "
        f"with sample.per_prompt = {config.sample.per_prompt} and "
        f"advantage.kind = {config.advantage.kind!r} they are compared with nothing"
    )
    return Finding("comparison", text, good=False)
