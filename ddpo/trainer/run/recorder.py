"""The record of a run: metrics, checkpoints, exact state and image grids, written to its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ddpo.images import save_png
from ddpo.io.atomic import storing
from ddpo.trainer.advantages import SampleWeights
from ddpo.trainer.monitoring.events import (
    Checkpointed,
    Event,
    GridSaved,
    IterationDone,
    Stopped,
)
from ddpo.trainer.monitoring.metrics import extremes, iteration_metrics, peak_memory
from ddpo.trainer.monitoring.sample_grid import draw_grid
from ddpo.trainer.rollout import IterationSamples
from ddpo.trainer.run.checkpoints import keep_best
from ddpo.trainer.run.folder import RunFolder
from ddpo.trainer.run.stopping import (
    CheckpointScores,
    Fall,
    HeldOutScores,
    find_fall,
    note_stop,
)
from ddpo.trainer.training_setup import TrainingSetup
from ddpo.trainer.update import UpdateStats

__all__ = ["Recorder"]


class Recorder:
    """Writes a run's iterations to its folder and yields the events of doing so.

    Args:
        run: the run folder.
        setup: the parts of the run.
    """

    def __init__(self, run: RunFolder, setup: TrainingSetup) -> None:
        self.run = run
        self.setup = setup
        self.config = setup.config
        self.world = setup.world
        self.held_out_scores = HeldOutScores(run.path)
        self.stopped = False  # True once the held-out reward has fallen, by `stop_when`

    def start(self, done: int) -> Iterator[Event]:
        """Writes the image grid after `done` iterations, unless it is there already."""
        if self._grid_due(done) and not self.world.gather(self.run.grid(done).exists())[0]:
            yield GridSaved(self._save_grid(done))

    def record(
        self, iteration: int, samples: IterationSamples, weights: SampleWeights, stats: UpdateStats
    ) -> Iterator[Event]:
        """Writes a finished iteration; a checkpoint and an image grid where they are due.

        The last event is `Stopped` if the run is to end here.

        Args:
            iteration: 1-based iteration number.
            samples: keys and rewards of the iteration's images.
            weights: weights of these images.
            stats: statistics of the updates.

        Raises:
            RewardFailure: the held-out reward failed.
            StorageFailure: something cannot be written.
        """
        config = self.config
        state = self.setup.state
        checkpoint = iteration % config.checkpoint_every == 0 or iteration == config.iterations
        held_out = self._held_out_scores(iteration) if checkpoint else None
        mean = None if held_out is None else held_out.mean
        metrics = iteration_metrics(iteration, samples, weights, stats, mean)
        with state.whole_parameters():
            tensors = state.tensors()
            with self.world.all_succeed():
                self.run.append_metrics(metrics)
                if checkpoint:
                    yield Checkpointed(self._save_checkpoint(iteration, held_out))
                self.run.save_state(iteration, tensors, state.statistics.to_state())
                self.run.prune(config.checkpoint_keep)
        worst, best = extremes(samples.keys, samples.rewards)
        yield IterationDone(metrics, worst, best, peak_memory(self.setup.policy.device))
        fall = self._fall() if checkpoint else None
        self.stopped = fall is not None
        if self.stopped or self._grid_due(iteration):
            yield GridSaved(self._save_grid(iteration))
        if fall is not None:
            if self.run.writes:
                note_stop(self.run.path, fall)
            yield Stopped(fall.iteration, fall.best, fall.text)

    def _held_out_scores(self, iteration: int) -> CheckpointScores | None:
        """Scores by the held-out reward; None without one, and on all but the main process."""
        if self.setup.held_out is None:
            return None
        with self.world.all_succeed(), self.setup.state.averaged():
            return self.setup.held_out.score(self.setup.policy, iteration, self.world)

    def _fall(self) -> Fall | None:
        """The fall of the held-out reward at which the run ends, on all processes."""
        if self.config.stop_when == "never":
            return None
        with self.world.all_succeed():
            scores = self.held_out_scores.all() if self.run.writes else []
            fall = find_fall(scores, self.config.stop_patience)
        return self.world.gather(fall)[0]

    def _save_checkpoint(self, iteration: int, held_out: CheckpointScores | None) -> Path:
        """Writes a checkpoint, and its name to `best.json` if it is the best so far."""
        with self.setup.state.averaged():
            folder = self.run.checkpoint(iteration, self.setup.policy)
        if held_out is not None and self.run.writes:
            self.held_out_scores.append(held_out)
            if held_out.mean is not None:
                keep_best(folder, iteration, held_out.reward, held_out.mean)
        return folder

    def _grid_due(self, iteration: int) -> bool:
        """True if an image grid is written after `iteration` iterations."""
        return iteration % self.config.grid_every == 0 or iteration == self.config.iterations

    def _save_grid(self, iteration: int) -> Path:
        """Samples and writes the image grid. With a sharded denoiser all processes sample."""
        path = self.run.grid(iteration)
        if self.run.writes or self.world.sharded:
            with self.setup.state.averaged():
                grid = draw_grid(self.setup.policy, self.setup.prompts, self.config)
            if self.run.writes:
                with storing(path):
                    save_png(grid, path)
        return path
