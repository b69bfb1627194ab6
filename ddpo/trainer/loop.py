"""The training loop, in the order of the paper: sample, score, compare, update, and again. Read this file first."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddpo.errors import ConfigError
from ddpo.images import contact_sheet, save_png, to_pil
from ddpo.policies import load_policy
from ddpo.policies.policy import Policy
from ddpo.policies.sample import SampleKey, sample_images
from ddpo.policies.sd import LoraSettings, StableDiffusionPolicy
from ddpo.prompts import PromptSet, load_prompts
from ddpo.rewards.scorer import make_scorer
from ddpo.rewards.zoo import resolve as resolve_reward
from ddpo.tensorfile import optimizer_tensors, restore_optimizer
from ddpo.trainer.advantages import PromptStatistics, per_prompt_advantages
from ddpo.trainer.algorithms import algorithms
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.events import Checkpointed, Event, GridSaved, IterationDone, Metrics, Started
from ddpo.trainer.rollout import collect, draw_keys, sampler_settings
from ddpo.trainer.run_folder import RunFolder
from ddpo.trainer.update import update
from ddpo.types import Context, RewardOutput, Rollout

__all__ = ["resume", "train"]

GRID_PROMPTS = 8
GRID_ROWS = 2
CALLED = ("calls", "thread_safe", "cache")  # the fields of a card that say how a reward may be called
PACKAGES = ("ddpo", "torch", "diffusers", "transformers", "peft", "pillow", "numpy")


def train(config: TrainConfig, out: Path) -> Iterator[Event]:
    """Starts a run in the new folder `out` and yields its events; nothing is left half-written if the caller stops early.

    Raises:
        UserError: a setting, name or folder that cannot be (before anything is written).
        RewardFailure: the reward is broken or does not answer; the iterations done so far can be resumed.
        TrainingDiverged: a loss that is not finite; likewise.
    """
    trainer = _Trainer(config)
    run = RunFolder.create(out, config, trainer.manifest())
    yield from trainer.run(run, done=0)


def resume(path: Path, iterations: int | None = None) -> Iterator[Event]:
    """Continues the run in `path` after its last finished iteration, to the bit on a CPU.

    Args:
        path: the run folder.
        iterations: a new total; that of the run if None.

    Raises:
        CheckpointError: `path` is not a run folder, or damaged.
        ConfigError: `iterations` is less than what is done, or the prompts or the reward are not those of the run any more.
    """
    run = RunFolder.open(path)
    config = run.config()
    done, tensors, statistics = run.load_state()
    if iterations is not None:
        if iterations < done:
            raise ConfigError(f"{path} has {done} iterations already; --iterations {iterations} is less")
        config = TrainConfig(**{**{name: getattr(config, name) for name in config.__slots__}, "iterations": iterations})
    trainer = _Trainer(config)
    trainer.check_unchanged(run.manifest())
    run.write_config(config)
    if done:
        trainer.load_state(tensors, statistics)
    run.cut_metrics(done)
    yield from trainer.run(run, done)


class _Trainer:
    """What a run needs while it runs; everything that an iteration changes is in `policy`, `optimizer` and `statistics`."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.algorithm = algorithms.get(config.algorithm)
        self.algorithm.check(config)
        self.prompts: PromptSet = load_prompts(config.prompts)
        self.reward = resolve_reward(config.reward)
        if "group" in self.reward.card.inputs and config.sample.batch % config.sample.per_prompt:
            raise ConfigError(
                f"reward {config.reward!r} ranks the pictures of a prompt among each other: sample.batch ({config.sample.batch}) must be "
                f"a multiple of sample.per_prompt ({config.sample.per_prompt})"
            )
        self.scorer = make_scorer(self.reward)
        self.policy: StableDiffusionPolicy = load_policy(config.model, device=config.device, dtype=config.dtype)
        with torch.random.fork_rng(devices=[]):  # the adapters' first values come from the seed; the caller's generator is left alone
            torch.default_generator.manual_seed(config.seed)
            self.policy.adapt(config.adapt.kind, LoraSettings(config.adapt.rank, config.adapt.alpha))
        optim = config.optim
        parameters = [parameter for _, parameter in self.policy.trainable_parameters()]
        self.optimizer = torch.optim.AdamW(
            parameters, lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps, weight_decay=optim.weight_decay
        )
        self.statistics = PromptStatistics(config.advantage.buffer, config.advantage.min_count)
        self.coefficients = self.policy.schedule.coefficients(config.sample.steps, config.sample.eta).to(config.device)

    def run(self, run: RunFolder, done: int) -> Iterator[Event]:
        """The iterations after `done`."""
        config = self.config
        yield Started(done, config.iterations, self.summary())
        if done == 0:
            yield GridSaved(self.save_grid(run, 0))
        for iteration in range(done + 1, config.iterations + 1):
            begun = time.perf_counter()
            keys = draw_keys(self.prompts.prompts, config.sample, config.seed, iteration)
            context = Context(progress=(iteration - 1) / config.iterations)
            rollout = yield from collect(self.policy, keys, self.scorer, config.sample, config.seed, context)
            sampled = time.perf_counter()
            prompt_ids = [key.prompt.id for key in keys]
            rewards = rollout.rewards.values.double().cpu().numpy()
            advantages = per_prompt_advantages(rewards, prompt_ids, self.statistics, config.advantage.clip)
            stats = yield from update(
                self.policy, self.optimizer, self.algorithm, rollout, advantages, self.coefficients, config, iteration
            )
            ended = time.perf_counter()
            scored = rewards[advantages.scored]
            metrics = Metrics(
                iteration=iteration,
                reward_queries=iteration * len(keys),
                reward_mean=float(scored.mean()),
                reward_se=float(scored.std(ddof=1) / math.sqrt(len(scored))) if len(scored) > 1 else None,
                unscorable=int((~advantages.scored).sum()),
                reward_parts=_part_means(rollout.rewards, advantages.scored),
                zero_spread=advantages.zero_spread,
                loss=stats.loss,
                ratio_mean_deviation=stats.ratio_mean_deviation,
                ratio_first_deviation=stats.ratio_first_deviation,
                clip_fraction=stats.clip_fraction,
                approx_kl=stats.approx_kl,
                grad_norm=stats.grad_norm,
                updates=stats.updates,
                unscorable_reason=next((reason for reason in rollout.rewards.errors if reason is not None), None),
                seconds=ended - begun,
                seconds_sampling=sampled - begun,
                seconds_training=ended - sampled,
            )
            run.append_metrics(metrics)
            if iteration % config.checkpoint_every == 0 or iteration == config.iterations:
                yield Checkpointed(run.checkpoint(iteration, self.policy))
            run.save_state(iteration, self.state(), self.statistics.to_state())
            yield IterationDone(metrics, *_extremes(rollout))
            if iteration % config.grid_every == 0 or iteration == config.iterations:
                yield GridSaved(self.save_grid(run, iteration))

    def state(self) -> dict[str, torch.Tensor]:
        """Trained parameters and optimizer state."""
        weights = {f"policy.{name}": parameter.detach() for name, parameter in self.policy.trainable_parameters()}
        return weights | optimizer_tensors(self.optimizer)

    @torch.no_grad()
    def load_state(self, tensors: dict[str, torch.Tensor], statistics: dict[str, Any]) -> None:
        """Puts back what `state` gave."""
        for name, parameter in self.policy.trainable_parameters():
            parameter.copy_(tensors[f"policy.{name}"])
        restore_optimizer(self.optimizer, tensors)
        self.statistics.load_state(statistics)

    def check_unchanged(self, manifest: dict[str, Any]) -> None:
        """Compares the prompts and the reward with those that the run was started with.

        A file's hash is its card's version; what a server tells of its reward, weights and options included, is the origin.
        """
        if manifest["prompts"]["list"] != [prompt.text for prompt in self.prompts.prompts]:
            raise ConfigError(f"the run cannot be resumed: the prompts of {self.prompts.source} are not those that it was started with")
        before, now = manifest["reward"], json.loads(json.dumps(self.reward_facts()))
        served = now["origin"].startswith("server ") and before.get("origin", now["origin"]) != now["origin"]
        if served or any(before["card"].get(name) != value for name, value in now["card"].items() if name not in CALLED):
            raise ConfigError(f"the run cannot be resumed: the reward {self.config.reward!r} is not the one that it was started with")

    def save_grid(self, run: RunFolder, iteration: int) -> Path:
        """Pictures of the first prompts of the list, always from the same noise."""
        prompts = self.prompts.prompts[:GRID_PROMPTS]
        keys = [SampleKey(prompt, -1 - row) for row in range(GRID_ROWS) for prompt in prompts]
        path = run.path / "samples" / f"iteration-{iteration:06d}.png"
        save_png(contact_sheet(_pictures(self.policy, keys, self.config), columns=len(prompts)), path)
        return path

    def summary(self) -> str:
        """The effective batch in words."""
        sample, optim = self.config.sample, self.config.optim
        count = sum(parameter.numel() for _, parameter in self.policy.trainable_parameters())
        updates = f"{optim.updates} update{'s' * (optim.updates > 1)} of {sample.samples // optim.updates} pictures"
        return (
            f"{self.config.algorithm} on {self.config.model}, {self.config.adapt.kind} ({count:,} parameters); "
            f"{len(self.prompts)} prompts ({self.prompts.source}); "
            f"per iteration {sample.samples} pictures ({sample.samples // sample.per_prompt} prompts × {sample.per_prompt}), "
            f"{updates} × {self.config.steps_per_picture} of {sample.steps} steps"
        )

    def reward_facts(self) -> dict[str, Any]:
        """What there is to know about the reward."""
        reward = self.reward
        return {"spec": self.config.reward, "card": reward.card.to_dict(), "signature": reward.signature, "origin": reward.origin}

    def manifest(self) -> dict[str, Any]:
        """What is needed to tell two runs apart, or to repeat one."""
        return {
            "schema": 1,
            "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "reward": self.reward_facts(),
            "prompts": {"source": self.prompts.source, "list": [prompt.text for prompt in self.prompts.prompts]},
        }


def _pictures(policy: Policy, keys: Sequence[SampleKey], config: TrainConfig) -> list[Any]:
    return [image for batch in sample_images(policy, keys, sampler_settings(config.sample), config.seed) for image in to_pil(batch.pixels)]


def _part_means(output: RewardOutput, scored: NDArray[np.bool_]) -> dict[str, float | None]:
    """The mean of each part over the pictures that have a score, and the part a value."""
    means: dict[str, float | None] = {}
    for name, part in output.parts.items():
        values = part.double().cpu().numpy()[scored]
        known = values[~np.isnan(values)]
        means[name] = float(known.mean()) if len(known) else None
    return means


def _extremes(rollout: Rollout) -> tuple[tuple[str, float], tuple[str, float]]:
    """The prompts with the lowest and the highest mean reward."""
    scores: dict[str, list[float]] = {}
    for prompt, value in zip(rollout.images.prompts, rollout.rewards.values.tolist(), strict=True):
        if not math.isnan(value):
            scores.setdefault(prompt.text, []).append(value)
    ranked = sorted((float(np.mean(values)), text) for text, values in scores.items())
    return (ranked[0][1], ranked[0][0]), (ranked[-1][1], ranked[-1][0])
