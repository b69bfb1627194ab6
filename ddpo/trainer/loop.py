"""The training loop of DDPO: sample and score images, weigh them, update the policy, record.

Read this file first. Source: Black et al., "Training diffusion models with reinforcement learning",
arXiv 2305.13301, section 4.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ddpo.errors import MissingResourceError, TrainingDiverged
from ddpo.trainer.algorithms.contract import SampleWeights, sample_weights
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.low_memory import rewards_away
from ddpo.trainer.memory import enough_memory
from ddpo.trainer.monitoring.events import Checked, Event, Progress, Started
from ddpo.trainer.monitoring.preflight import check_room, preflight
from ddpo.trainer.rollout import Collection, IterationSamples, check_scorable, joined
from ddpo.trainer.run.folder import RunFolder
from ddpo.trainer.run.recorder import Recorder
from ddpo.trainer.run.resume import (
    base_model,
    check_length,
    check_named,
    merged_config,
    past_start,
    with_absolute_paths,
)
from ddpo.trainer.settings import settings_finding
from ddpo.trainer.sharding import join_world
from ddpo.trainer.training_setup import TrainingSetup
from ddpo.trainer.update import UpdateStats, update

__all__ = ["dry_run", "resume", "train"]


Values = Mapping[str, Any] | None
"""Plain nested values, as of a recipe."""
Name = Path | str
"""Path of a run folder."""


class _Loop:
    """The iterations of one run.

    Args:
        setup: the parts of the run.
        run: the run folder.
    """

    def __init__(self, setup: TrainingSetup, run: RunFolder) -> None:
        self.setup = setup
        self.config = setup.config
        self.run = run
        self.recorder = Recorder(run, setup)
        self.checked: Collection | None = None  # the iteration whose first batch was checked
        self.checking_seconds = 0.0

    def run_from(self, done: int) -> Iterator[Event]:
        """Runs the iterations after the first `done`, and yields their events."""
        try:
            with enough_memory(self.config.sample.batch):
                yield from self.iterate(done)
            self.setup.world.leave()
        except TrainingDiverged as error:
            self.run.note_divergence(error)
            raise

    def iterate(self, done: int) -> Iterator[Event]:
        """Samples and scores, weighs, updates and records, once per iteration."""
        config = self.config
        state = self.setup.state
        yield Started(done, config.iterations, self.setup.summary())
        yield from self.check_first_batch(done)
        self.trained_policy = state.wrapped_policy()
        yield from self.recorder.start(done)
        for iteration in range(done + 1, config.iterations + 1):
            samples = yield from self.sample_and_score(iteration)
            weights = sample_weights(
                self.setup.algorithm,
                samples.compared_rewards(config, self.setup.reward),
                samples.prompt_ids,
                state.statistics,
                config,
            )
            stats = yield from self.update_policy(iteration, samples, weights)
            yield from self.recorder.record(iteration, samples, weights, stats)
            if self.recorder.stopped:
                return

    def check_first_batch(self, done: int) -> Iterator[Event]:
        """Checks memory, time, disk and ratio on the first batch, which the next iteration uses."""
        with self.setup.world.all_succeed():
            if done < self.config.iterations:
                self.checked, self.checking_seconds = yield from preflight(
                    self.setup, self.run.path, done + 1
                )

    def sample_and_score(self, iteration: int) -> Generator[Progress, None, IterationSamples]:
        """Samples this process's images and scores them; gathers the rewards of all processes.

        Raises:
            RewardFailure: the reward failed, or could score no image.
            TrainingDiverged: an image is not finite.
        """
        setup = self.setup
        started = time.perf_counter() - self.checking_seconds
        with setup.world.all_succeed():
            collection = self.checked or setup.collection(iteration)
            own = yield from setup.world.lockstep(collection.rest())
        self.checked = None
        self.checking_seconds = 0.0
        rewards = check_scorable(joined(setup.world.gather(own.rewards)))
        seconds = time.perf_counter() - started
        return IterationSamples(setup.keys(iteration), own, rewards, seconds)

    def update_policy(
        self, iteration: int, samples: IterationSamples, weights: SampleWeights
    ) -> Generator[Progress, None, UpdateStats]:
        """Takes the optimizer steps of an iteration; yields progress, returns their statistics.

        Raises:
            TrainingDiverged: a loss or gradient is not finite, or a first ratio is not 1.
        """
        setup = self.setup
        state = setup.state
        started = time.perf_counter()
        likelihood = setup.likelihood(
            self.trained_policy, samples.own, iteration, setup.shard.start, samples.prompt_ids
        )
        with rewards_away(self.config, setup.policy.device):
            stats = yield from update(
                setup.policy,
                state.optimizer,
                setup.algorithm,
                likelihood,
                weights,
                self.config,
                iteration,
                setup.world,
                state.scaler,
            )
        stats.seconds = time.perf_counter() - started
        return stats


def train(config: TrainConfig, out: Name) -> Generator[Event]:
    """Starts a run in a new folder and yields its events; a caller may stop after any of them.

    Args:
        config: settings of the run.
        out: the run folder, which must be empty or absent.

    Raises:
        UserError: a setting, name or folder does not fit (before anything is written).
        RewardFailure: the reward is broken or does not answer. The run can be resumed after its
            last finished iteration, as it can after the following errors.
        TrainingDiverged: a loss or image is not finite.
        StorageFailure: a file cannot be written, for example because the disk is full.
        MemoryExhausted: there is not enough memory.
    """
    world = join_world(config.device)
    out = world.gather(Path(out).expanduser())[0]
    with world.all_succeed(), enough_memory(None):
        placed = with_absolute_paths(config)
        setup = TrainingSetup(placed, world)
        check_room(setup, out, done=0)
        manifest = setup.manifest(out, config.reward)
        run = RunFolder.create(out, placed, manifest, writes=world.is_main)
    with closing(run):
        yield from _Loop(setup, run).run_from(done=0)


def dry_run(config: TrainConfig, out: Name) -> Generator[Event]:
    """Makes the checks of `train` before the first iteration, and leaves nothing behind.

    Raises:
        UserError, RewardFailure, TrainingDiverged, MemoryExhausted: as `train`; also if the run
            folder could not be written.
    """
    world = join_world(config.device)
    out = Path(out).expanduser()
    with world.all_succeed(), enough_memory(config.sample.batch):
        RunFolder.check_new(out)
        RunFolder.check_writable(out)
        try:
            setup = TrainingSetup(config, world)
        except MissingResourceError:  # the settings can be shown without any weights
            yield Checked([settings_finding(config)])
            raise
        check_room(setup, out, done=0)
        yield Started(0, config.iterations, setup.summary())
        yield from preflight(setup, out, iteration=1)
    world.leave()


def resume(
    path: Name, iterations: int | None = None, settings: Values = None, trust: Iterable[str] = ()
) -> Generator[Event]:
    """Resumes a run after its last finished iteration, to the bit on a CPU.

    Args:
        path: the run folder.
        iterations: new total of iterations; None: that of the run.
        settings: plain nested values, as of a recipe. Values that the run has already change
            nothing; `ddpo.trainer.run.resume` names the settings that may change.
        trust: code and servers that the run may name, besides those of `settings`.

    Raises:
        CheckpointError: `path` is not a run folder, or is damaged.
        ConfigError: `iterations` is less than the run has, or a setting, the prompts, the reward,
            the algorithm or the model differ from those of the run.
        RunExistsError: another process trains in the folder.
        UserError, RewardFailure, TrainingDiverged: as `train`; or code or a server was not named.
    """
    with closing(RunFolder.open(Path(path).expanduser())) as run:
        model, requested = base_model(run, settings or {})
        if iterations is not None:
            requested |= {"iterations": iterations}
        config, changes = merged_config(run, requested)
        check_named(run, config, model, settings or {}, trust)
        world = join_world(config.device)
        with world.all_succeed(), enough_memory(None):
            run.own(world.is_main)
            done, tensors, statistics = run.load_state()
            check_length(run.path, done, config)
            ready = past_start(config) if done else config
            setup = TrainingSetup(ready, world, changes, model)
            setup.check_unchanged(run.manifest())
            check_room(setup, run.path, done)
            if done:
                setup.state.load(tensors, statistics)
            run.reopen(config, changes, done)
        yield from _Loop(setup, run).run_from(done)
