"""The training loop, in the order of the paper: sample, score, compare, update, and again. Read this file first."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ddpo.errors import ConfigError
from ddpo.images import save_png
from ddpo.io.tensors import optimizer_tensors, restore_optimizer
from ddpo.policies import find_policy
from ddpo.policies.policy import Policy, compile_denoiser
from ddpo.policies.sampler import SampleKey
from ddpo.prompts import PromptSet, load_prompts
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.setting_paths import absolute_path
from ddpo.rewards.zoo import resolve as resolve_reward
from ddpo.trainer.adapted import adapted_policy
from ddpo.trainer.advantages import PromptStatistics
from ddpo.trainer.algorithms import load_algorithm
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.failures import enough_memory, storing
from ddpo.trainer.grad_scaler import GradScaler
from ddpo.trainer.likelihoods import DenoisingLikelihood, Likelihood, TransitionLikelihood
from ddpo.trainer.low_memory import low_memory_finding, rewards_away
from ddpo.trainer.monitoring.events import (
    Checked,
    Checkpointed,
    Event,
    GridSaved,
    IterationDone,
    Progress,
    Started,
)
from ddpo.trainer.monitoring.metrics import extremes, iteration_metrics, peak_memory, summary
from ddpo.trainer.monitoring.preflight import cut_prompts, disk, examine, unknown_words
from ddpo.trainer.monitoring.sample_grid import draw_grid
from ddpo.trainer.optimizer import make_optimizer
from ddpo.trainer.processes import World
from ddpo.trainer.rollout import Collection, check_scorable, draw_keys, joined
from ddpo.trainer.run.checkpoints import HeldOutReward, keep_best, prune
from ddpo.trainer.run.folder import RunFolder
from ddpo.trainer.run.manifest import check_unchanged, describe
from ddpo.trainer.run.resume import Changes, base_model, continued, remark, with_absolute_paths
from ddpo.trainer.settings import settings_finding
from ddpo.trainer.sharding import placed_like
from ddpo.trainer.update import update
from ddpo.types import Context, Rollout

__all__ = ["dry_run", "resume", "train"]


def train(config: TrainConfig, out: Path) -> Generator[Event]:
    """Starts a run in the new folder `out` and yields its events; nothing is left half-written if the caller stops early.

    Raises:
        UserError: a setting, name or folder that cannot be (before anything is written).
        RewardFailure: the reward is broken or does not answer; the iterations done so far can be resumed.
        TrainingDiverged: a loss or picture that is not finite; likewise.
        StorageFailure: a full disk, or another reason for which a file cannot be written; likewise.
        MemoryExhausted: not enough memory; likewise.
    """
    processes = World.join(config.device)
    out = processes.gather(out)[0]
    with processes.together(), enough_memory(None):
        placed = with_absolute_paths(config)
        trainer = _Trainer(placed, processes)
        manifest = trainer.manifest() | {"folder": str(absolute_path(out))}
        manifest["reward"]["spec"] = config.reward  # as its user wrote it
        run = RunFolder.create(out, placed, manifest, writes=processes.main)
    yield from trainer.run(run, done=0)


def dry_run(config: TrainConfig, out: Path) -> Generator[Event]:
    """What `train` looks at before the first iteration, and no more; leaves nothing behind. Raises as `train`."""
    processes = World.join(config.device)
    with processes.together(), enough_memory(config.sample.batch):
        RunFolder.check_new(out)
        trainer = _Trainer(config, processes)
        yield Started(
            0, config.iterations, summary(config, trainer.policy, trainer.prompts, processes)
        )
        yield from trainer.preflight(out, 1)


def resume(
    path: Path, iterations: int | None = None, settings: Mapping[str, Any] | None = None
) -> Generator[Event]:
    """Continues the run in `path` after its last finished iteration, to the bit on a CPU.

    Args:
        path: the run folder.
        iterations: a new total; that of the run if None.
        settings: plain nested values, as of a recipe. What the run has already changes nothing; `ddpo.trainer.run.resume` says what may.

    Raises:
        CheckpointError: `path` is not a run folder, or damaged.
        ConfigError: `iterations` is less than what is done, another setting is not that of the run, or its `config.json` was changed; or
            the prompts, reward, algorithm or model are not those of the run any more.
        UserError, RewardFailure, TrainingDiverged: as `train`.
    """
    run = RunFolder.open(path)
    model, asked = base_model(run, settings or {})
    config, changes = continued(
        run, asked | ({} if iterations is None else {"iterations": iterations})
    )
    processes = World.join(config.device)
    with processes.together(), enough_memory(None):
        run.writes = processes.main
        done, tensors, statistics = run.load_state()
        if config.iterations < done:
            raise ConfigError(
                f"{path} has {done} iterations already; --iterations {config.iterations} is less"
            )
        trainer = _Trainer(config, processes, changes, model)
        trainer.check_unchanged(run.manifest())
        if done:
            trainer.load_state(tensors, statistics)
        run.go_on(config, changes, done)
        if run.writes:
            prune(path / "checkpoints", config.checkpoint_keep)
    yield from trainer.run(run, done)


class _Trainer:
    """What a run needs while it runs; everything that an iteration changes is in `policy`, `optimizer` and `statistics`."""

    def __init__(
        self,
        config: TrainConfig,
        processes: World,
        changes: Changes | None = None,
        model: str | None = None,
    ) -> None:
        word = model or config.model  # `model`: where the model of a resumed run is now
        self.changes = changes or {}
        self.config, self.processes, self.share = config, processes, processes.share(config.sample)
        self.algorithm, algorithm_origin = load_algorithm(config.algorithm)
        self.algorithm.check(config)
        self.prompts: PromptSet = load_prompts(config.prompts)
        self.reward = resolve_reward(config.reward).on(processes.device)
        if "group" in self.reward.card.inputs and config.sample.batch % config.sample.per_prompt:
            raise ConfigError(
                f"reward {config.reward!r} ranks the pictures of a prompt among each other: sample.batch ({config.sample.batch}) must be "
                f"a multiple of sample.per_prompt ({config.sample.per_prompt})"
            )
        self.cut = cut_prompts(word, self.prompts)
        self.scorer = make_scorer(self.reward)
        self.held_out = (
            HeldOutReward(config, self.reward, processes.device) if config.held_out else None
        )
        self.policy = adapted_policy(config, processes.device, word)
        self.origins = {"algorithm": algorithm_origin, "model": find_policy(word)[1]}
        processes.shard(self.policy)
        if config.compile:
            compile_denoiser(self.policy)
        parameters = [parameter for _, parameter in self.policy.trainable_parameters()]
        self.optimizer = make_optimizer(parameters, config, self.policy.device)
        self.statistics = PromptStatistics(config.advantage.buffer, config.advantage.min_count)
        self.scale = GradScaler(needed=config.dtype == "float16")
        self.coefficients = self.policy.schedule.coefficients_on(
            self.policy.device, config.sample.steps, config.sample.eta
        )

    def run(self, run: RunFolder, done: int) -> Iterator[Event]:
        """The iterations after `done`."""
        with enough_memory(self.config.sample.batch):
            yield from self.iterations(run, done)

    def iterations(self, run: RunFolder, done: int) -> Iterator[Event]:
        """Samples, scores, compares, updates."""
        config, processes = self.config, self.processes
        yield Started(
            done, config.iterations, summary(config, self.policy, self.prompts, processes)
        )
        with processes.together():
            begun_with, spent = (
                (yield from self.preflight(run.path, done + 1))
                if done < config.iterations
                else (None, 0.0)
            )
        trained = processes.prepared(self.policy)
        if self.grid_due(done) and not processes.gather(run.grid(done).exists())[0]:
            yield GridSaved(self.save_grid(run, done))
        for iteration in range(done + 1, config.iterations + 1):
            begun = time.perf_counter() - spent
            keys = self.keys(iteration)
            with processes.together():
                collection = begun_with or self.collection(iteration)
                rollout = yield from processes.stepwise(collection.rest())
            output = check_scorable(joined(processes.gather(rollout.rewards)))
            begun_with, spent = None, 0.0
            sampled = time.perf_counter()
            prompt_ids = [key.prompt.id for key in keys]
            rewards = output.values.cpu().double().numpy()
            weights = self.algorithm.weigh(rewards, prompt_ids, self.statistics, config)
            likelihood = self.likelihood(trained, rollout, iteration, self.share.start)
            with rewards_away(config, self.policy.device):
                stats = yield from update(
                    self.policy,
                    self.optimizer,
                    self.algorithm,
                    likelihood,
                    weights,
                    config,
                    iteration,
                    processes,
                    self.scale,
                )
            ended = time.perf_counter()
            checkpoint = iteration % config.checkpoint_every == 0 or iteration == config.iterations
            held_out = None
            if self.held_out and checkpoint:
                with processes.together():
                    held_out = self.held_out.score(self.policy, processes)
            metrics = iteration_metrics(
                iteration,
                output,
                weights,
                stats,
                sampling=sampled - begun,
                training=ended - sampled,
                held_out=held_out,
            )
            with processes.whole_parameters():
                state = self.state()
                with processes.together():
                    run.append_metrics(metrics)
                    if checkpoint:
                        folder = run.checkpoint(iteration, self.policy)
                        if self.held_out and held_out is not None:
                            keep_best(folder, iteration, self.held_out.signature, held_out)
                        yield Checkpointed(folder)
                    run.save_state(iteration, state, self.statistics.to_state())
                    if run.writes:
                        prune(run.path / "checkpoints", config.checkpoint_keep)
            yield IterationDone(metrics, *extremes(keys, output), peak_memory(self.policy.device))
            if self.grid_due(iteration):
                yield GridSaved(self.save_grid(run, iteration))

    def keys(self, iteration: int) -> list[SampleKey]:
        """The pictures of an iteration."""
        return draw_keys(
            self.prompts.prompts,
            self.config.sample,
            self.config.seed,
            iteration,
            self.prompts.weights,
        )

    def collection(self, iteration: int) -> Collection:
        """The pictures of an iteration that are this process's, none of them sampled yet."""
        config, context = self.config, Context(progress=(iteration - 1) / self.config.iterations)
        keys = self.keys(iteration)[self.share.start : self.share.stop]
        whole_paths = self.algorithm.likelihood == "transition"
        return Collection(
            self.policy, keys, self.scorer, config.sample, config.seed, context, whole_paths
        )

    def preflight(
        self, out: Path, iteration: int
    ) -> Generator[Event, None, tuple[Collection, float]]:
        """Looks before the leap; returns the iteration's pictures, of which the first batch is there, and the seconds that it took."""
        config = self.config
        yield Progress("checking", 0, 1)
        with self.processes.in_step():
            room = disk(out, self.policy, config, iteration - 1)
        collection, begun = self.collection(iteration), time.perf_counter()
        with self.processes.in_step():
            first = collection.first_batch()
        sampling = time.perf_counter() - begun
        likelihood = self.likelihood(self.policy, first, iteration)
        ids = [key.prompt.id for key in self.keys(iteration)]
        with rewards_away(config, self.policy.device):
            findings = examine(
                self.policy,
                self.algorithm,
                likelihood,
                first,
                ids,
                config,
                iteration,
                sampling,
                self.processes.count,
                self.reward.memory_mb(str(self.policy.device)),
            )
        scorers = [self.scorer, *([self.held_out.scorer] if self.held_out else [])]
        memory = low_memory_finding(config, self.policy, [scorer.reward for scorer in scorers])
        notes = [memory, unknown_words(config.model, self.prompts), self.cut, remark(self.changes)]
        noted = [note for note in notes if note is not None]
        yield Checked([settings_finding(config), *findings, room, *noted])
        return collection, sampling

    def likelihood(
        self, policy: Policy, rollout: Rollout, iteration: int, first: int = 0
    ) -> Likelihood:
        """What the algorithm makes likelier: the steps that were taken, or the pictures that came out."""
        if self.algorithm.likelihood == "transition":
            return TransitionLikelihood(policy, rollout, self.coefficients, self.config, first)
        return DenoisingLikelihood(policy, rollout, self.config, iteration, first)

    def state(self) -> dict[str, torch.Tensor]:
        """Trained parameters and optimizer state; called inside `Processes.whole_parameters`."""
        weights = {
            f"policy.{name}": parameter.detach()
            for name, parameter in self.policy.trainable_parameters()
        }
        moments = self.processes.whole_tensors(optimizer_tensors(self.optimizer))
        return weights | moments | {"loss_scale": self.scale.state()}

    @torch.no_grad()
    def load_state(self, tensors: dict[str, torch.Tensor], statistics: dict[str, Any]) -> None:
        """Puts back what `state` gave."""
        for name, parameter in self.policy.trainable_parameters():
            parameter.copy_(placed_like(parameter, tensors[f"policy.{name}"]))
        restore_optimizer(self.optimizer, tensors, placed_like)
        if "loss_scale" in tensors:
            self.scale.load_state(tensors["loss_scale"])
        self.statistics.load_state(statistics)

    def grid_due(self, iteration: int) -> bool:
        """Whether a grid of pictures is drawn after `iteration`."""
        return iteration % self.config.grid_every == 0 or iteration == self.config.iterations

    def save_grid(self, run: RunFolder, iteration: int) -> Path:
        """The same prompts from the same noise each time."""
        path = run.grid(iteration)
        if run.writes or self.processes.sharded:
            sheet = draw_grid(self.policy, self.prompts, self.config)
            if run.writes:
                with storing(path):
                    save_png(sheet, path)
        return path

    def manifest(self) -> dict[str, Any]:
        """What the run is made of."""
        return describe(self.config, self.reward, self.prompts, self.origins, self.processes.count)

    def check_unchanged(self, before: dict[str, Any]) -> None:
        """Raises `ConfigError` if the run was made of something else when it was started."""
        check_unchanged(before, self.config, self.reward, self.prompts, self.origins)
