"""The moving average of the weights: its recursion, its place in checkpoints, and resuming."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_resume import assert_same_run, start_and_stop

from ddpo.distributed import ALONE
from ddpo.errors import CheckpointError, ConfigError
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.loop import resume, train
from ddpo.trainer.recipe import config_from_dict
from ddpo.trainer.state import TrainingState
from ddpo.trainer.weight_average import WeightAverage


class Weights:
    """A policy of two weights."""

    def __init__(self) -> None:
        self.weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))

    def trainable_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [("weight", self.weight)]


def run_config(model: Path, iterations: int, **optim: Any) -> TrainConfig:
    return config_from_dict(
        {
            "model": str(model),
            "reward": "darkness",
            "iterations": iterations,
            "grid_every": 1,
            "checkpoint_every": 1,
            "sample": {"samples": 8, "per_prompt": 4, "steps": 3, "batch": 4},
            "optim": {"updates": 2, "timesteps": 2, "lr": 1e-2, "ema": 0.9, "ema_every": 1} | optim,
            "adapt": {"rank": 4},
        }
    )


@pytest.mark.parametrize(("decay", "every"), [(0.9, 1), (0.9, 3), (0.2, 2)])
def test_the_average_follows_its_recursion(decay: float, every: int) -> None:
    """At step s, counted from 0: m ← d m + (1 - d) w with d = min((1 + s) / (10 + s), decay)."""
    policy: Any = Weights()
    average = WeightAverage(policy, decay, every)
    optimizer = torch.optim.SGD([policy.weight], lr=0.1)
    optimizer.register_step_post_hook(average.step)
    expected = policy.weight.detach().double().clone()
    for step in range(40):
        policy.weight.grad = torch.tensor([1.0, step % 3 - 1.0])
        optimizer.step()
        if (step + 1) % every == 0:
            held = min((1 + step) / (10 + step), decay)
            expected = held * expected + (1 - held) * policy.weight.detach().double()
    torch.testing.assert_close(average.values["weight"].double(), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(average.values["weight"], policy.weight.detach(), atol=1e-3)


def test_the_weights_come_back_to_the_bit_also_after_an_error() -> None:
    policy: Any = Weights()
    average = WeightAverage(policy, 0.9, 1)
    with torch.no_grad():
        policy.weight.copy_(torch.tensor([0.1, 1e30]))
    before = policy.weight.detach().clone()
    seen: list[float] = []
    with suppress(ValueError), average.in_place():
        seen += policy.weight.tolist()
        raise ValueError
    assert seen == [1.0, -2.0]
    assert torch.equal(policy.weight.detach(), before)


def test_a_graph_recorded_before_the_average_took_its_place_stays_valid() -> None:
    policy: Any = Weights()
    average = WeightAverage(policy, 0.9, 1)
    with torch.no_grad():
        policy.weight.copy_(torch.tensor([3.0, 4.0]))
    loss = (policy.weight**2).sum()
    with average.in_place():
        pass
    loss.backward()
    assert policy.weight.grad.tolist() == [6.0, 8.0]  # 2 w of the weights, not of their average


def test_checkpoints_hold_the_average_and_the_state_both(tiny_model: Path, tmp_path: Path) -> None:
    list(train(run_config(tiny_model, 2), tmp_path / "run"))
    state = load_file(tmp_path / "run" / "state" / "state.safetensors")
    policy = load_policy(str(tiny_model))
    policy.load(find_checkpoint(tmp_path / "run"))
    names = [name for name, _ in policy.trainable_parameters()]
    assert int(state["average_steps"]) == 4
    for name, parameter in policy.trainable_parameters():
        assert torch.equal(parameter.detach(), state[f"average.{name}"])
    assert any(not torch.equal(state[f"average.{n}"], state[f"policy.{n}"]) for n in names)


def test_the_average_changes_nothing_of_the_training(tiny_model: Path, tmp_path: Path) -> None:
    list(train(run_config(tiny_model, 2), tmp_path / "with"))
    list(train(run_config(tiny_model, 2, ema=0.0), tmp_path / "without"))
    averaged, plain = (
        load_file(tmp_path / name / "state" / "state.safetensors") for name in ("with", "without")
    )
    assert not [name for name in plain if name.startswith("average")]
    assert all(torch.equal(averaged[name], value) for name, value in plain.items())


def test_a_resumed_run_has_the_same_average(tiny_model: Path, tmp_path: Path) -> None:
    list(train(run_config(tiny_model, 3, ema_every=2), tmp_path / "straight"))
    start_and_stop(run_config(tiny_model, 3, ema_every=2), tmp_path / "resumed")
    list(resume(tmp_path / "resumed"))
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")


def test_a_run_without_an_average_gets_none_when_it_is_resumed(
    tiny_model: Path, tmp_path: Path
) -> None:
    list(train(run_config(tiny_model, 1, ema=0.0), tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"optim.ema is 0.9 and was 0"):
        list(resume(tmp_path / "run", 2, {"optim": {"ema": 0.9}}))


@pytest.mark.parametrize("damage", ["gone", "shape", "steps"])
def test_a_damaged_average_is_one_line(damage: str, tiny_model: Path, tmp_path: Path) -> None:
    config = run_config(tiny_model, 1)
    policy = load_policy(str(tiny_model))
    policy.adapt("lora", None)
    state = TrainingState(policy, config, ALONE)
    tensors = dict(state.tensors())
    name = next(name for name in tensors if name.startswith("average."))
    if damage == "gone":
        del tensors[name]
    elif damage == "shape":
        tensors[name] = tensors[name][:1]
    else:
        tensors["average_steps"] = torch.tensor(-1)
    with pytest.raises(CheckpointError, match=r"state.safetensors does not fit the run: average"):
        state.load(tensors, {})


def test_a_sharded_denoiser_has_no_average(tiny_model: Path, monkeypatch: Any) -> None:
    policy = load_policy(str(tiny_model))
    policy.adapt("lora", None)
    monkeypatch.setattr("ddpo.trainer.state.shard_policy", lambda *_: torch.nn.Identity())
    with pytest.raises(ConfigError, match=r"optim\.ema is not supported with --use_fsdp"):
        TrainingState(policy, run_config(tiny_model, 1), ALONE)
