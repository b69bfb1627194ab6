"""Windows of steps: shared by a prompt, keyed, deterministic outside, and trained inside only."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_resume import assert_same_run, start_and_stop
from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.policies import load_policy
from ddpo.policies.flow_schedule import FlowSchedule
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_trajectory
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.loop import resume, train
from ddpo.trainer.recipe import config_from_dict
from ddpo.trainer.settings import config_for
from ddpo.trainer.windows import noisy_steps, window_steps
from ddpo.types import Prompt

CATS = [SampleKey(Prompt("a cat"), index) for index in range(4)]
DOGS = [SampleKey(Prompt("a dog"), index) for index in range(4)]
SETTINGS = SamplerSettings(steps=5, guidance=1.0, batch=8)
IDS = [key.prompt.id for key in CATS + DOGS]


def config(kind: str = "random", width: int = 2, steps: int = 10, **changes: Any) -> TrainConfig:
    optim = {"timesteps": 0, "skip_last": 1} | changes.pop("optim", {})
    window = {"steps": width, "kind": kind} | changes
    return config_from_dict({"sample": {"steps": steps}, "optim": optim, "window": window})


def windows(settings: TrainConfig, iteration: int, ids: list[str] = IDS) -> list[tuple[int, ...]]:
    found = window_steps(settings, iteration, ids)
    assert found is not None
    assert found.dtype == np.int64
    return [tuple(map(int, row)) for row in found]


@pytest.mark.parametrize("kind", ["random", "scattered", "progressive"])
def test_all_images_of_a_prompt_share_a_window_of_trained_steps(kind: str) -> None:
    for iteration in range(1, 30):
        found = windows(config(kind), iteration)
        assert len({*found[:4]}) == len({*found[4:]}) == 1
        assert all(len({*row}) == 2 and [*row] == sorted(row) for row in found)
        assert all(0 <= step < 9 for row in found for step in row)


@pytest.mark.parametrize("kind", ["random", "scattered"])
def test_a_window_depends_on_seed_iteration_and_prompt_alone(kind: str) -> None:
    """So a share of the images, in another order, has the same windows as all of them."""
    settings = config(kind)
    whole = [windows(settings, iteration) for iteration in range(1, 30)]
    backwards = [windows(settings, iteration, IDS[::-1])[::-1] for iteration in range(1, 30)]
    assert backwards == whole
    assert [windows(settings, iteration, IDS[4:]) for iteration in range(1, 30)] == [
        row[4:] for row in whole
    ]
    assert len({rows[0] for rows in whole}) > 3, "another iteration, another window"
    assert any(rows[0] != rows[4] for rows in whole), "another prompt, another window"
    other = config_from_dict(settings.to_dict() | {"seed": 1})
    assert [windows(other, iteration) for iteration in range(1, 30)] != whole


def test_every_place_of_a_random_window_is_as_likely() -> None:
    """Four places in the first half of ten steps: 500 each, ± 5 standard deviations of 19."""
    settings = config("random", width=2, within=0.5)
    found = Counter(windows(settings, iteration, IDS[:1])[0] for iteration in range(1, 2001))
    assert {*found} == {(0, 1), (1, 2), (2, 3), (3, 4)}
    assert 400 < min(found.values()) < max(found.values()) < 600


def test_scattered_steps_need_not_be_neighbours() -> None:
    found = {windows(config("scattered"), iteration)[0] for iteration in range(1, 200)}
    assert len(found) > 25, "of the 36 pairs of nine steps"


def test_a_progressive_window_moves_and_starts_again() -> None:
    settings = config("progressive", width=2, steps=6, every=2, stride=1)
    found = [windows(settings, iteration)[0] for iteration in range(1, 11)]
    places = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 1)]
    assert found == [place for place in places for _ in range(2)]


def test_the_first_and_last_steps_that_are_skipped_are_in_no_window() -> None:
    settings = config("random", width=2, optim={"skip_first": 3, "skip_last": 4})
    assert {windows(settings, iteration)[0] for iteration in range(1, 50)} == {(3, 4), (4, 5)}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"width": 10}, "window.steps=10 does not fit: .* leave 9 steps"),
        ({"width": 6, "within": 0.5}, "window.steps=6 does not fit: .* leave 5 steps"),
        ({"width": 1, "within": 0.05}, "leave 0 steps"),
        ({"optim": {"timesteps": 1}}, r"window.steps=2: all steps of a window are trained"),
        ({"kind": "sliding"}, "window.kind must be random, scattered or progressive"),
        ({"every": 0}, "window.every must be at least 1"),
        ({"within": 0.0}, "window.within must be above 0"),
    ],
)
def test_windows_that_do_not_fit_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(**values)


def test_noise_levels_have_no_window(tiny_model: Path, tmp_path: Path) -> None:
    settings = config_for(
        {
            "algorithm": "rwr",
            "model": str(tiny_model),
            "reward": "darkness",
            "sample": {"samples": 8, "per_prompt": 4, "steps": 3},
            "window": {"steps": 1},
            "optim": {"timesteps": 1},
        }
    )
    with pytest.raises(ConfigError, match="rwr trains on noise levels, not on denoising steps"):
        next(train(settings, tmp_path / "run"))


@pytest.fixture
def policy(tiny_model: Path) -> Policy:
    return load_policy(str(tiny_model))


def noisy(*rows: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return noisy_steps(np.array(rows), SETTINGS.steps)


def test_with_noise_everywhere_the_path_is_the_plain_one(policy: Policy) -> None:
    plain = sample_trajectory(policy, CATS + DOGS, SETTINGS, 3)
    every = noisy(*[tuple(range(5))] * 8)
    found = sample_trajectory(policy, CATS + DOGS, SETTINGS, 3, noisy=every)
    assert torch.equal(found.latents, plain.latents)
    assert torch.equal(found.log_probs, plain.log_probs)


def test_outside_the_window_a_step_is_that_of_deterministic_ddim(policy: Policy) -> None:
    """Against runs of η = 0 and of η = 1: equal before the window, another path from it on."""
    still = sample_trajectory(policy, CATS + DOGS, SamplerSettings(5, 1.0, 0.0, 8), 3)
    flags = noisy(*[(1, 2)] * 4, *[(3, 4)] * 4)
    found = sample_trajectory(policy, CATS + DOGS, SETTINGS, 3, noisy=flags)
    assert torch.equal(found.latents[:4, :2], still.latents[:4, :2])
    assert torch.equal(found.latents[4:, :4], still.latents[4:, :4])
    assert not torch.equal(found.latents[:4, 2], still.latents[:4, 2])
    assert torch.equal(found.log_probs.isnan(), torch.from_numpy(~flags))
    after = found.latents[:4, 3], policy.encode(["a cat"] * 8)
    table = policy.schedule.coefficients_on(policy.device, 5, 0.0)
    step = torch.full((8,), 3)
    x_t = torch.cat([after[0], after[0]])
    with torch.no_grad():
        output = policy.predict(x_t, table.timesteps[step], after[1])
    mean = policy.schedule.mean(output, x_t, step, table)
    assert torch.equal(found.latents[:4, 4], mean[:4])


def test_branches_share_their_path_up_to_the_window(policy: Policy) -> None:
    flags = noisy(*[(2,)] * 8)
    found = sample_trajectory(policy, CATS + DOGS, SETTINGS, 3, noisy=flags, branches=2).latents
    for first in (0, 2, 4, 6):
        assert torch.equal(found[first, :3], found[first + 1, :3])
        assert not torch.equal(found[first, 3], found[first + 1, 3])
    assert not torch.equal(found[0, 0], found[2, 0])
    plain = sample_trajectory(policy, CATS + DOGS, SETTINGS, 3).latents
    assert torch.equal(found[::2, 0], plain[::2, 0]), "the first branch has its own noise"


class Gaussian:
    """The exact flow of images N(1, 0.5²) of one value, as a policy that only samples."""

    model = "gaussian"
    device = torch.device("cpu")
    storage_dtype = torch.float32
    latent_shape = (1,)

    def __init__(self, schedule: FlowSchedule) -> None:
        self.schedule = schedule

    def encode(self, texts: list[str]) -> Tensor:
        return torch.zeros(len(texts), 1)

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        t = timesteps.view(-1, 1)
        spread = (1 - t) ** 2 * 0.25 + t**2
        from_mean = (latents - (1 - t)) / spread
        return t * from_mean - (1 + 0.25 * (1 - t) * from_mean)


@pytest.mark.parametrize(("step", "eta"), [("flow_sde", 0.7), ("dance_sde", 0.3), ("cps", 0.8)])
def test_outside_the_window_a_flow_takes_the_euler_step_of_its_ode(step: Any, eta: float) -> None:
    gaussian: Any = Gaussian(FlowSchedule(3.0, "diffusers", step))
    keys = [SampleKey(Prompt("a cat"), index) for index in range(4)]
    flags = noisy(*[(1,)] * 4)
    settings = SamplerSettings(5, 1.0, eta, 4)
    found = sample_trajectory(gaussian, keys, settings, 3, noisy=flags).latents
    sigma = gaussian.schedule.sigmas(5).float()
    for place in (0, 2, 3, 4):
        x = found[:, place]
        velocity = gaussian.predict(x, sigma[place].expand(4), None)
        euler = x + (sigma[place + 1] - sigma[place]) * velocity
        torch.testing.assert_close(found[:, place + 1], euler, rtol=1e-5, atol=1e-5)
    velocity = gaussian.predict(found[:, 1], sigma[1].expand(4), None)
    assert (found[:, 2] - found[:, 1] - (sigma[2] - sigma[1]) * velocity).abs().min() > 1e-3


ALGORITHMS = {
    "grpo": {},
    "grpo_fast": {"window": {"within": 1.0}},
    "mix_grpo": {"window": {"steps": 2, "every": 1}, "sample": {"branches": 4}},
    "grpo_guard": {"window": {"steps": 2, "kind": "scattered"}},
    "tempflow_grpo": {"sample": {"branches": 2}},
    "flow_dppo": {},
}


def run_config(model: Path, algorithm: str) -> TrainConfig:
    changes: dict[str, Any] = ALGORITHMS[algorithm]
    sample = {"samples": 8, "per_prompt": 4, "steps": 4, "batch": 4} | changes.get("sample", {})
    return config_for(
        {
            "model": str(model),
            "algorithm": algorithm,
            "reward": "darkness",
            "prompt_limit": 3,
            "iterations": 3,
            "grid_every": 1,
            "checkpoint_every": 1,
            "sample": sample,
            "optim": {"updates": 2, "lr": 1e-2, "ema_every": 1},
            "adapt": {"rank": 4},
            "window": changes.get("window", {}),
        }
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_trains_in_its_windows_and_resumes_to_the_bit(
    algorithm: str, tiny_model: Path, tmp_path: Path
) -> None:
    settings = run_config(tiny_model, algorithm)
    list(train(settings, tmp_path / "straight"))
    start_and_stop(settings, tmp_path / "resumed")
    list(resume(tmp_path / "resumed"))
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")
    lines = (tmp_path / "straight" / "metrics.jsonl").read_text().splitlines()
    for iteration, line in enumerate(map(json.loads, lines), 1):
        assert line["ratio_first_deviation"] == 0
        assert line["updates"] == 2
        trained = {step["step"] for step in line["by_step"]}
        assert trained
        assert trained <= {0, 1, 2}
        if algorithm == "mix_grpo":
            assert trained == [{0, 1}, {1, 2}, {0, 1}][iteration - 1]
        if algorithm in ("grpo", "flow_dppo"):
            assert trained == {0, 1, 2}
