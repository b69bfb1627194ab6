"""A run on two processes has the images, rewards, gradients and parameters of a run on one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.commands import launch
from accelerate.utils.launch import prepare_multi_gpu_env
from processes_worker import recorded

from ddpo.distributed import World
from ddpo.errors import ConfigError
from ddpo.trainer.config import SampleConfig
from ddpo.trainer.loop import resume
from ddpo.trainer.minibatches import Minibatch
from ddpo.trainer.rollout import sample_shard
from tests.warm_start import start_program

REWARDS = """
import os
from ddpo.rewards.card import RewardCard
from ddpo.types import RewardOutput

def card(name):
    return RewardCard(
        id=name, version="1", summary="test", load="tests:none", family="test", flaws="none",
        pixels="float",
    )

class Brightness:
    card = card("brightness")
    def __call__(self, batch):
        return RewardOutput(batch.pixels.mean((1, 2, 3)))

class Breaks:
    card = card("breaks")
    calls = 0
    def __call__(self, batch):
        Breaks.calls += 1
        if Breaks.calls > 2 and os.environ.get("RANK", "alone") == os.environ.get("BREAK_IN"):
            raise ValueError("the server went away")
        return RewardOutput(batch.pixels.mean((1, 2, 3)))
"""
CLOSE = 1e-6
"""Relative to the largest: the difference of float32 sums in another order."""
LATER = 1e-4
"""The same after an update, when parameters differ in their last bits.

Advantages of both signs nearly cancel, which magnifies the difference.
"""


def settings(
    model: Path, rewards: Path, reward: str = "Brightness", batch: int = 4, **changes: Any
) -> dict[str, Any]:
    """Eight images an iteration; a large `eps` makes steps proportional to gradients."""
    optim = {
        "updates": 4,
        "timesteps": 2,
        "lr": 0.01,
        "eps": 1.0,
        "max_grad_norm": 1e9,
        "clip_range": 1.0,
    }
    return {
        "model": str(model),
        "reward": f"{rewards}:{reward}",
        "iterations": 3,
        "checkpoint_every": 9,
        "grid_every": 9,
        "sample": {
            "samples": 8,
            "per_prompt": 2,
            "steps": 3,
            "batch": batch,
            "guidance": changes.pop("guidance", 1.0),
        },
        "optim": optim | changes.pop("optim", {}),
        "advantage": {"kind": "per_prompt", "min_count": 2},
        "adapt": {"rank": 4},
    } | changes


def launched(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Two processes on the CPU, as a user starts them."""
    return launch_with(("--multi_gpu",), *arguments, **environment)


def launch_with(
    strategy: Sequence[str],
    *arguments: object,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Two processes on the CPU, by the options of `accelerate launch` that name a strategy."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    command = [*launcher, *strategy, "--num_processes", "2", "--main_process_port", port]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    environment = {
        **kept,
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "CUDA_VISIBLE_DEVICES": "",
        **environment,
    }
    return subprocess.run(
        [*map(str, command), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )


def launch_warm(strategy: Sequence[str], program: Path, *arguments: object) -> None:
    """Two processes with the variables of `accelerate launch`, which loads PyTorch three times.

    Its own functions read its options; those of each process are `torchrun`'s. The launchers
    themselves start the runs of the command line below, and in test_promises.py.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    options = [*strategy, "--num_processes", "2", "--main_process_port", port, str(program)]
    args, _, _ = launch._validate_launch_command(launch.launch_command_parser().parse_args(options))
    shared = prepare_multi_gpu_env(args) | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "CUDA_VISIBLE_DEVICES": "",
    }
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    both = [start_program(program, *arguments, env=shared | rank) for rank in ranks]
    for process in both:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-3000:]


@pytest.fixture(scope="module")
def rewards_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rewards") / "my_rewards.py"
    path.write_text(REWARDS)
    return path


@pytest.fixture(scope="module")
def scenarios(tiny_model: Path, rewards_file: Path) -> dict[str, dict[str, Any]]:
    return {
        "lora": settings(
            tiny_model, rewards_file, guidance=3.0, optim={"guidance": False, "kl": 0.05}
        ),
        "full": settings(
            tiny_model,
            rewards_file,
            adapt={"kind": "full"},
            optim={"updates": 2, "lr": 3e-4, "kl": 0.05},
        ),
        "rwr": settings(
            tiny_model, rewards_file, algorithm="rwr", iterations=1, optim={"updates": 8}
        ),
        "window": settings(
            tiny_model,
            rewards_file,
            algorithm="flow_dppo",
            iterations=2,
            window={"steps": 1, "kind": "random"},
            optim={"timesteps": 0, "skip_last": 0, "updates": 2, "ema": 0.9, "divergence": 1.0},
        ),
        "half": settings(tiny_model, rewards_file, dtype="bfloat16", iterations=2),
        "unsynchronised": settings(tiny_model, rewards_file, iterations=1),
        "breaks": settings(tiny_model, rewards_file, "Breaks"),
    }


@pytest.fixture(scope="module")
def two(
    scenarios: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, list[dict[str, Any]]]]:
    """Each scenario on two processes: the folder of their runs; what each process saw."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "scenarios.json").write_text(json.dumps(scenarios))
    worker = Path(__file__).with_name("processes_worker.py")
    launch_warm(("--multi_gpu",), worker, folder / "scenarios.json", folder)
    return folder, {
        name: [torch.load(folder / f"{name}-{rank}.pt") for rank in (0, 1)] for name in scenarios
    }


def test_a_process_whose_work_is_done_ends_its_process_group(
    two: tuple[Path, dict[str, Any]],
) -> None:
    assert [(two[0] / f"group-{rank}").read_text() for rank in (0, 1)] == ["ended", "ended"]


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, of the largest value."""
    return float((found - expected).abs().max()) / float(expected.abs().max())


@pytest.mark.parametrize(("name", "batch"), [("lora", 4), ("full", 8), ("rwr", 4), ("window", 4)])
def test_two_processes_do_what_one_does_with_the_double_batch(
    name: str,
    batch: int,
    scenarios: dict[str, Any],
    two: tuple[Path, dict[str, Any]],
    tmp_path: Path,
) -> None:
    values = scenarios[name] | {"sample": scenarios[name]["sample"] | {"batch": batch}}
    one = recorded(values, tmp_path / "one")
    first, second = two[1][name]
    assert torch.equal(first["rewards"][0], one["rewards"][0]), (
        "the first samples and rewards are equal to the bit"
    )
    assert torch.equal(torch.cat([first["latents"][0], second["latents"][0]]), one["latents"][0])
    for mine, other, expected in zip(
        first["rewards"], second["rewards"], one["rewards"], strict=True
    ):
        assert torch.equal(mine, other)
        assert apart(mine, expected) <= CLOSE
    differences = [
        apart(found, expected)
        for found, expected in zip(first["gradients"], one["gradients"], strict=True)
    ]
    assert len(differences) == values["optim"]["updates"] * values["iterations"]
    assert differences[0] <= CLOSE
    assert max(differences) <= LATER


@pytest.mark.parametrize(
    ("name", "meeting"),
    [("lora", "idle"), ("full", "kept_back"), ("rwr", "idle"), ("half", "idle")],
)
def test_both_processes_have_the_same_parameters_to_the_bit(
    name: str, meeting: str, two: tuple[Path, dict[str, Any]]
) -> None:
    """Also if a process has no items in some update ("idle"), or several batches ("kept_back")."""
    first, second = two[1][name]
    for mine, other in zip(first["parameters"], second["parameters"], strict=True):
        assert torch.equal(mine, other)
    assert not torch.equal(first["parameters"][0], first["parameters"][-1])
    assert first[meeting] + second[meeting] > 0


def test_without_the_prepared_module_the_parameters_part(two: tuple[Path, dict[str, Any]]) -> None:
    """So the test above can fail."""
    first, second = two[1]["unsynchronised"]
    assert not torch.equal(first["parameters"][-1], second["parameters"][-1])


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_those_of_all_processes(
    scenarios: dict[str, Any], two: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    recorded(scenarios["full"], tmp_path / "one")
    for found, expected in zip(metrics(two[0] / "full"), metrics(tmp_path / "one"), strict=True):
        assert found["ratio_first_deviation"] == 0
        assert found["ratio_mean_deviation"] > 1e-5
        for key in (
            "loss",
            "reward_mean",
            "ratio_mean_deviation",
            "clip_fraction",
            "approx_kl",
            "reference_kl",
            "grad_norm",
            "updates",
        ):
            assert found[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-6), key
        assert [step["step"] for step in found["by_step"]] == [
            step["step"] for step in expected["by_step"]
        ]


def test_the_ratio_is_one_to_the_bit_on_both_processes_in_half_precision(
    two: tuple[Path, dict[str, Any]],
) -> None:
    assert [line["ratio_first_deviation"] for line in metrics(two[0] / "half")] == [0, 0]


def reward_of(run: Path) -> list[str]:
    """The reward of a run, which is code of the tests."""
    return [json.loads((run / "config.json").read_text())["reward"]]


def test_a_run_resumes_with_another_number_of_processes(
    scenarios: dict[str, Any], two: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    list(resume(two[0] / "lora", iterations=4, trust=reward_of(two[0] / "lora")))
    recorded(scenarios["lora"] | {"iterations": 4}, tmp_path / "one")
    found = metrics(two[0] / "lora")
    expected = metrics(tmp_path / "one")
    assert [line["iteration"] for line in found] == [1, 2, 3, 4]
    assert found[-1]["reward_mean"] == pytest.approx(expected[-1]["reward_mean"], rel=1e-6)
    assert found[-1]["grad_norm"] == pytest.approx(expected[-1]["grad_norm"], rel=1e-4)


def test_a_failure_of_one_process_is_that_of_all_and_loses_nothing(
    two: tuple[Path, dict[str, Any]],
) -> None:
    first, second = (seen["error"] for seen in two[1]["breaks"])
    assert first == second
    assert first.startswith("RewardFailure")
    assert "the server went away" in first
    assert [line["iteration"] for line in metrics(two[0] / "breaks")] == [1, 2]
    list(resume(two[0] / "breaks", trust=reward_of(two[0] / "breaks")))
    assert [line["iteration"] for line in metrics(two[0] / "breaks")] == [1, 2, 3]


def test_the_command_line_speaks_with_one_voice(
    tiny_model: Path, rewards_file: Path, tmp_path: Path
) -> None:
    arguments = [
        "-m",
        "ddpo",
        "train",
        "--model",
        tiny_model,
        "--reward",
        f"{rewards_file}:Brightness",
        "--iterations",
        "1",
    ]
    sets = [
        "sample.samples=8",
        "sample.per_prompt=2",
        "sample.steps=3",
        "sample.batch=4",
        "optim.timesteps=2",
        "adapt.rank=4",
    ]
    arguments += [part for assignment in sets for part in ("--set", assignment)]
    out = tmp_path / "run"
    done = launched(*arguments, "--out", out)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("2 processes × 4 = 8 images (4 prompts × 2)") == 1
    assert done.stdout.count("iteration 1/1") == 1
    assert sorted(path.name for path in out.iterdir() if path.name != "best.json") == [
        "checkpoints",
        "config.json",
        "manifest.json",
        "metrics.jsonl",
        "samples",
        "state",
    ]
    assert json.loads((out / "manifest.json").read_text())["processes"] == 2


def test_images_that_cannot_be_shared_are_an_error_of_one_line(
    tiny_model: Path, tmp_path: Path
) -> None:
    done = launched(
        "-m",
        "ddpo",
        "train",
        "--model",
        tiny_model,
        "--set",
        "sample.samples=24",
        "--set",
        "sample.per_prompt=8",
        "--out",
        tmp_path / "run",
    )
    assert done.returncode != 0
    line = (
        "error: 2 processes cannot share 3 prompts × 8 images equally: "
        "make sample.samples a multiple of 16"
    )
    assert done.stderr.count(line) == 1
    assert not (tmp_path / "run").exists()


def test_a_shard_is_whole_prompts_in_order() -> None:
    shards = []
    for rank in range(3):
        world = World(None, "cpu")
        world.rank = rank
        world.world_size = 3
        shards.append(sample_shard(SampleConfig(samples=18, per_prompt=3), world))
    assert [place for shard in shards for place in shard] == list(range(18))
    assert {len(shard) for shard in shards} == {6}
    with pytest.raises(ConfigError, match=r"make sample\.samples a multiple of 9"):
        sample_shard(SampleConfig(samples=15, per_prompt=3), world)


def test_items_of_a_share() -> None:
    items = Minibatch(
        np.array([4, 1, 3, 0]), np.array([0, 1, 2, 3]), np.array([5, 6, 7, 8]), total=6
    )
    own = items.among(range(2, 5))
    assert (own.images.tolist(), own.steps.tolist(), own.draws.tolist(), own.total) == (
        [4, 3],
        [0, 2],
        [5, 7],
        6,
    )
    assert [len(part) for part in items.batches(3)] == [3, 1]
