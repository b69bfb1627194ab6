"""Training on a device whose bits depend on the place in the batch, as those of a GPU do.

The CPU's do not. Here the denoiser's output gets a small addition that depends on the row.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpo.errors import TrainingDiverged
from ddpo.policies import load_policy
from ddpo.policies.sampler import SampleKey, sample_trajectory
from ddpo.policies.stable_diffusion import StableDiffusionPolicy
from ddpo.trainer import TrainConfig, config_from_dict
from ddpo.trainer import likelihoods as likelihoods_module
from ddpo.trainer.advantages import SampleWeights
from ddpo.trainer.algorithms import load_algorithm, needs_of
from ddpo.trainer.likelihoods import TransitionLikelihood
from ddpo.trainer.loop import dry_run, train
from ddpo.trainer.minibatches import Minibatch, call_count, plan_updates
from ddpo.trainer.monitoring.events import Checked, IterationDone
from ddpo.trainer.rollout import sampler_settings
from ddpo.trainer.update import UpdateStats, update
from ddpo.types import Prompt, RewardOutput, Rollout, Trajectory

SAMPLE = {"samples": 12, "per_prompt": 2, "steps": 4, "batch": 4, "guidance": 3.0}


def config_of(model: Path, sample: dict[str, Any] | None = None, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "model": str(model),
        "reward": "darkness",
        "iterations": 2,
        "checkpoint_every": 2,
        "grid_every": 9,
        "sample": SAMPLE | (sample or {}),
        "optim": {"updates": 3, "timesteps": 0, "skip_last": 0},
    }
    return config_from_dict(values | changes)


@pytest.fixture
def uneven(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Makes the output of every row depend on its place, and tells training so or not."""

    def arrange(known: bool) -> None:
        plain = StableDiffusionPolicy._output

        def output(self: Any, latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
            rows = torch.arange(len(latents), dtype=torch.float32)
            made: Tensor = plain(self, latents, timesteps, conditioning)
            return made + 0.01 * rows.reshape(-1, 1, 1, 1)

        monkeypatch.setattr(StableDiffusionPolicy, "_output", output)
        monkeypatch.setattr(likelihoods_module, "places_matter", lambda device: known)

    return arrange


def deviations(config: TrainConfig, out: Path) -> list[float | None]:
    events = [event for event in train(config, out) if isinstance(event, IterationDone)]
    return [event.metrics.ratio_first_deviation for event in events]


@pytest.mark.parametrize("batch", [4, 5])
@pytest.mark.parametrize("algorithm", ["ddpo_is", "flow_dppo", "grpo_guard"])
def test_the_ratio_is_one_to_the_bit(
    tiny_model: Path, tmp_path: Path, uneven: Callable[[bool], None], algorithm: str, batch: int
) -> None:
    uneven(True)
    config = config_of(tiny_model, {"batch": batch}, algorithm=algorithm)
    assert deviations(config, tmp_path / "run") == [0, 0]


def test_without_places_the_run_is_refused(
    tiny_model: Path, tmp_path: Path, uneven: Callable[[bool], None]
) -> None:
    uneven(False)
    with pytest.raises(TrainingDiverged, match=r"\|ratio - 1\| is .* before the first update"):
        deviations(config_of(tiny_model), tmp_path / "run")


@pytest.mark.parametrize("guidance", [True, False])
def test_training_without_guidance_and_with_two_epochs(
    tiny_model: Path, tmp_path: Path, uneven: Callable[[bool], None], guidance: bool
) -> None:
    uneven(True)
    optim = {"updates": 2, "epochs": 2, "timesteps": 3, "skip_last": 1, "guidance": guidance}
    assert deviations(config_of(tiny_model, optim=optim), tmp_path / "run") == [0, 0]


def test_the_places_of_a_later_share_of_the_images(
    tiny_model: Path, uneven: Callable[[bool], None]
) -> None:
    """The second of two processes, whose images begin in the middle of the iteration's."""
    uneven(True)
    config = config_of(tiny_model, {"samples": 6, "per_prompt": 3, "batch": 2})
    policy = load_policy(str(tiny_model))
    policy.adapt("lora")
    rollout = _rollout(policy, config, images=3)
    coefficients = policy.schedule.coefficients(4, 1.0)
    likelihood = TransitionLikelihood(policy, rollout, coefficients, config, first=3)
    stats = _one_iteration(policy, likelihood, config, images=6)
    assert stats.ratio_first_deviation == 0


def _rollout(policy: Any, config: TrainConfig, images: int) -> Rollout:
    """Images of this process alone, sampled in batches of the config."""
    keys = [SampleKey(Prompt("a cat"), index) for index in range(images)]
    batch = config.sample.batch
    paths = [
        sample_trajectory(policy, keys[start : start + batch], sampler_settings(config.sample), 1)
        for start in range(0, images, batch)
    ]
    trajectory = Trajectory(
        torch.cat([path.latents for path in paths]), torch.cat([path.log_probs for path in paths])
    )
    prompts = tuple(key.prompt for key in keys)
    return Rollout(trajectory, prompts, RewardOutput(torch.zeros(images)))


def _one_iteration(
    policy: Any,
    likelihood: TransitionLikelihood,
    config: TrainConfig,
    images: int,
) -> UpdateStats:
    algorithm, _ = load_algorithm("ddpo_is")
    assert needs_of(algorithm) is None
    flags = np.ones(images, bool)
    weights = SampleWeights(np.linspace(-1, 1, images), flags, flags, 0)
    optimizer = torch.optim.AdamW([tensor for _, tensor in policy.trainable_parameters()], lr=1e-4)
    steps = update(policy, optimizer, algorithm, likelihood, weights, config, 1)
    while True:
        try:
            next(steps)
        except StopIteration as stopped:
            stats: UpdateStats = stopped.value
            return stats


def test_calls_give_each_item_its_place() -> None:
    places = np.array([2, 0, 2, 2, 1, 0])
    items = Minibatch(np.arange(10, 16), np.arange(6), np.arange(6), total=9)
    calls = items.calls(places)
    assert [call.images.tolist() for call in calls] == [[10, 11, 14], [12, 15], [13]]
    found = [call.places.tolist() for call in calls if call.places is not None]
    assert found == [[2, 0, 1], [2, 0], [2]]
    assert all(call.total == 9 for call in calls)
    assert items[:0].calls(places[:0]) == []


def test_updates_share_the_places_evenly(tiny_model: Path) -> None:
    config = config_of(
        tiny_model, {"samples": 64, "batch": 8}, optim={"updates": 4, "timesteps": 2}
    )
    flags = np.ones(64, bool)
    weights = SampleWeights(np.ones(64), flags, flags, 0)
    places = np.arange(64) % 8
    plan = plan_updates(weights, config, 1, places=places)
    for items in plan:
        assert np.bincount(places[items.images], minlength=8).tolist() == [4] * 8
        calls = items.calls(places[items.images])
        assert len(calls) == call_count(16, 2, 8, by_place=True) == 4
    images = np.concatenate([items.images for items in plan])
    assert sorted(images.tolist()) == sorted(list(range(64)) * 2)
    other = plan_updates(weights, config, 2, places=places)
    assert [items.images.tolist() for items in plan] != [items.images.tolist() for items in other]


@pytest.mark.parametrize(("updates", "warned"), [(3, False), (6, True)])
def test_empty_places_are_announced(
    tiny_model: Path, tmp_path: Path, uneven: Callable[[bool], None], updates: int, warned: bool
) -> None:
    uneven(True)
    config = config_of(tiny_model, optim={"updates": updates, "timesteps": 2})
    *_, checked = dry_run(config, tmp_path / "run")
    assert isinstance(checked, Checked)
    found = {finding.topic: finding for finding in checked.findings}
    assert ("calls" in found) == warned
    if warned:
        assert not found["calls"].good
        assert found["calls"].text == (
            "50% of every training call stays empty: an update has 2 images, and an image is "
            "trained at the place in the batch where it was sampled; "
            "set sample.batch=2 or fewer optim.updates"
        )
