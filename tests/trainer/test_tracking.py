"""A run as a tracker of accelerate sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_tracker import Memory
from PIL import Image

from ddpo.errors import MissingResourceError
from ddpo.trainer.events import GridSaved, IterationDone, Metrics, Started, StepStats
from ddpo.trainer.tracking import RunTracker, check_tracker, open_tracker

METRICS = Metrics(
    iteration=3, reward_queries=24, reward_mean=-0.5, reward_se=None, unscorable=1, unscorable_reason="no text",
    reward_parts={"a": 0.25, "b": None},
    zero_spread=0, loss=0.1, ratio_mean_deviation=1e-3, ratio_first_deviation=0.0, clip_fraction=0.5, approx_kl=1e-6, reference_kl=None,
    by_step=[StepStats(0, 1e-4, 0.0), StepStats(7, 2e-3, 1.0)], grad_norm=2.0, updates=2, seconds=4.0, seconds_sampling=3.0,
    seconds_training=1.0,
)  # fmt: skip


def events(folder: Path, done: int) -> list[Any]:
    Image.fromarray(np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)).save(folder / "grid.png")
    return [Started(done, 9, "summary"), IterationDone(METRICS, ("a cat", 0.0), ("a dog", 1.0), memory=7), GridSaved(folder / "grid.png")]


def test_settings_numbers_and_pictures_reach_the_tracker(tmp_path: Path) -> None:
    memory = Memory()
    tracker = RunTracker(memory, {"reward": "darkness", "optim": {"lr": 1e-4}})
    for event in events(tmp_path, done=0):
        tracker.show(event)
    tracker.close()
    assert memory.settings == [{"reward": "darkness", "optim.lr": 1e-4}]
    ((step, values),) = memory.logged
    assert step == 3
    assert values == {
        "reward_queries": 24, "reward_mean": -0.5, "unscorable": 1, "reward_parts/a": 0.25, "zero_spread": 0, "loss": 0.1,
        "ratio_mean_deviation": 1e-3, "ratio_first_deviation": 0.0, "clip_fraction": 0.5, "approx_kl": 1e-6, "grad_norm": 2.0, "updates": 2,
        "seconds": 4.0, "seconds_sampling": 3.0, "seconds_training": 1.0, "memory_bytes": 7, "ratio_deviation/step_00": 1e-4,
        "clip_fraction/step_00": 0.0, "ratio_deviation/step_07": 2e-3, "clip_fraction/step_07": 1.0,
    }  # fmt: skip
    ((step, pictures),) = memory.pictures
    assert step == 3
    assert np.array_equal(pictures["samples"], np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3))
    assert memory.finished


def test_a_resumed_run_does_not_tell_its_settings_again(tmp_path: Path) -> None:
    memory = Memory()
    for event in events(tmp_path, done=2):
        RunTracker(memory, {"reward": "darkness"}).show(event)
    assert memory.settings == []
    assert len(memory.logged) == 1


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("ddpo.trainer.tracking.find_spec", lambda module: None)
    with pytest.raises(MissingResourceError, match=f"--track {name} needs the package {name}, which is not installed: pip install {name}"):
        check_tracker(name)


def test_tensorboard_gets_the_run_and_goes_on_with_it(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for done in (0, 2):
        tracker = RunTracker(open_tracker("tensorboard", tmp_path, done), {"reward": "darkness"})
        for event in events(tmp_path, done):
            tracker.show(event)
        tracker.close()
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(scalar.step, scalar.value) for scalar in found.Scalars("reward_mean")] == [(3, -0.5)]
    assert len(found.Images("samples")) == 1
