"""A run with a sharded denoiser is the run of one process, and one process can take it over."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from processes_worker import recorded
from test_processes import (
    CLOSE,
    LATER,
    REWARDS,
    apart,
    launch_warm,
    launch_with,
    metrics,
    settings,
)

from ddpo.errors import ConfigError
from ddpo.io.tensors import load_tensors
from ddpo.policies import load_policy
from ddpo.policies.policy import Policy
from ddpo.trainer.loop import resume
from ddpo.trainer.run.folder import STATE_FILE
from ddpo.trainer.sharding import ShardedDenoiser, join_world

FSDP = ("--use_fsdp", "--fsdp_version", "2")
HELD_OUT = """
class HeldOutBreaks:
    card = card("held_out_breaks")
    calls = 0
    def __call__(self, batch):
        HeldOutBreaks.calls += 1
        rank = os.environ.get("RANK", "alone")
        if HeldOutBreaks.calls > 2 and rank == os.environ.get("BREAK_IN"):
            raise ValueError("no answer")
        return RewardOutput(batch.pixels.mean((1, 2, 3)))
"""
STEPS_APART = 1e-6
"""Parameters, of the largest: what gradients that are rounded otherwise may move them apart."""


@pytest.fixture(scope="module")
def rewards_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rewards") / "my_rewards.py"
    path.write_text(REWARDS + HELD_OUT)
    return path


@pytest.fixture(scope="module")
def scenarios(tiny_model: Path, tiny_xl: Path, rewards_file: Path) -> dict[str, dict[str, Any]]:
    """Short batches, so that processes often have unequally many calls to make."""
    prompts = rewards_file.with_name("prompts.txt")
    prompts.write_text("a cat\na dog\na fish\na bird\n")
    held_out_prompts = rewards_file.with_name("held_out.txt")
    held_out_prompts.write_text("a cow\na bee\na fox\n")
    full: dict[str, Any] = {"adapt": {"kind": "full"}, "iterations": 2, "prompts": str(prompts)}
    short = full | {"iterations": 1}
    small: dict[str, Any] = {"updates": 2, "lr": 3e-4}
    saved = full | {
        "adapt": {"kind": "full", "checkpointing": True},
        "checkpoint_every": 1,
        "grid_every": 1,
    }
    clipped = small | {"max_grad_norm": 1e-3, "lr": 1.0}
    unguided = small | {"guidance": False, "kl": 0.05}
    held_out = {
        "held_out": f"{rewards_file}:HeldOutBreaks",
        "held_out_prompts": str(held_out_prompts),
        "checkpoint_every": 1,
    }
    return {
        "sd": settings(tiny_model, rewards_file, optim=clipped | {"kl": 0.05}, **full),
        "xl": settings(tiny_xl, rewards_file, guidance=3.0, optim=small, **saved),
        "xl-resumed": settings(tiny_xl, rewards_file, guidance=3.0, optim=small, **saved),
        "unguided": settings(tiny_xl, rewards_file, guidance=3.0, batch=2, optim=unguided, **short),
        "lora": settings(
            tiny_model,
            rewards_file,
            guidance=3.0,
            optim={"guidance": False, "kl": 0.05},
            iterations=1,
            prompts=str(prompts),
        ),
        "rwr": settings(tiny_model, rewards_file, algorithm="rwr", optim={"updates": 8}, **short),
        "half": settings(tiny_xl, rewards_file, dtype="bfloat16", optim=small, **short),
        "breaks": settings(tiny_model, rewards_file, "Breaks", batch=2, optim=small, **full),
        "held-out-breaks": settings(
            tiny_model, rewards_file, batch=2, optim=small, **full, **held_out
        ),
        "float16": settings(tiny_model, rewards_file, dtype="float16", **full),
    }


Runs = tuple[Path, dict[str, list[dict[str, Any]]]]
Alone = Callable[[str], tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def two(scenarios: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Each scenario on two processes: the folder of their runs; what each process saw."""
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "scenarios.json").write_text(json.dumps(scenarios))
    worker = Path(__file__).with_name("processes_worker.py")
    launch_warm(FSDP, worker, folder / "scenarios.json", folder)
    return folder, {
        name: [torch.load(folder / f"{name}-{rank}.pt") for rank in (0, 1)] for name in scenarios
    }


@pytest.fixture(scope="module")
def alone(scenarios: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """A scenario on one process: the folder of its run; what the process saw."""
    folder = tmp_path_factory.mktemp("alone")
    return cache(lambda name: (folder / name, recorded(scenarios[name], folder / name)))


@pytest.mark.parametrize("name", ["sd", "xl", "unguided", "lora", "rwr"])
def test_two_processes_do_what_one_does(
    name: str, scenarios: dict[str, Any], two: Runs, alone: Alone
) -> None:
    one = alone(name)[1]
    first, second = two[1][name]
    assert torch.equal(torch.cat([first["latents"][0], second["latents"][0]]), one["latents"][0])
    assert torch.equal(first["rewards"][0], one["rewards"][0])
    for mine, other, expected in zip(
        first["rewards"], second["rewards"], one["rewards"], strict=True
    ):
        assert torch.equal(mine, other)
        assert apart(mine, expected) <= CLOSE
    differences = [apart(*pair) for pair in zip(first["gradients"], one["gradients"], strict=True)]
    assert len(differences) == scenarios[name]["optim"]["updates"] * scenarios[name]["iterations"]
    assert differences[0] <= 2 * CLOSE
    assert max(differences) <= LATER
    assert apart(first["parameters"][-1], one["parameters"][-1]) <= STEPS_APART
    assert apart(one["parameters"][0], one["parameters"][-1]) > 10 * STEPS_APART


@pytest.mark.parametrize("name", ["sd", "xl", "unguided", "lora", "half"])
def test_the_ratio_is_one_and_parameters_are_equal_to_the_bit(name: str, two: Runs) -> None:
    first, second = two[1][name]
    assert {line["ratio_first_deviation"] for line in metrics(two[0] / name)} == {0}
    for mine, other in zip(first["parameters"], second["parameters"], strict=True):
        assert torch.equal(mine, other)
    assert not torch.equal(first["parameters"][0], first["parameters"][-1])


def test_gradients_are_clipped_by_their_norm_over_all_shards(two: Runs) -> None:
    for seen in two[1]["sd"]:
        assert [float(gradient.norm()) for gradient in seen["gradients"]] == pytest.approx(
            [1e-3] * 4, rel=1e-2
        )
    assert min(line["grad_norm"] for line in metrics(two[0] / "sd")) > 1e-2


def test_some_processes_joined_in_calls_without_work(two: Runs) -> None:
    """So the tests above cover it."""
    assert (
        sum(seen["idle"] for name in ("sd", "xl", "unguided", "rwr") for seen in two[1][name]) > 0
    )


@pytest.mark.parametrize("name", ["sd", "xl", "half"])
def test_each_process_keeps_half_of_parameters_gradients_and_moments(name: str, two: Runs) -> None:
    parts = [seen["held"] for seen in two[1][name]]
    total = 4 * two[1][name][0]["parameters"][0].numel()
    assert sum(parts) == total
    assert max(parts) < 0.51 * total


def test_a_sharded_run_resumes_to_the_bit(two: Runs) -> None:
    expected, _ = load_tensors(two[0] / "xl" / STATE_FILE)
    found, facts = load_tensors(two[0] / "xl-resumed" / STATE_FILE)
    assert facts["iteration"] == "2"
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_the_state_is_that_of_one_process(two: Runs, alone: Alone) -> None:
    expected, _ = load_tensors(alone("xl")[0] / STATE_FILE)
    found, _ = load_tensors(two[0] / "xl" / STATE_FILE)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype), name
        if name.startswith("policy."):
            assert float((found[name] - value).abs().max()) <= STEPS_APART, name


def test_one_process_resumes_a_sharded_run(
    scenarios: dict[str, Any], two: Runs, rewards_file: Path, tmp_path: Path
) -> None:
    list(resume(two[0] / "sd", iterations=3, trust=(f"{rewards_file}:Brightness",)))
    recorded(scenarios["sd"] | {"iterations": 3}, tmp_path / "one")
    found = metrics(two[0] / "sd")
    expected = metrics(tmp_path / "one")
    assert [line["iteration"] for line in found] == [1, 2, 3]
    for key in ("reward_mean", "grad_norm", "reference_kl"):
        assert found[-1][key] == pytest.approx(expected[-1][key], rel=1e-4), key


@pytest.mark.parametrize("iteration", [1, 2])
def test_a_checkpoint_is_a_plain_folder_of_diffusers(iteration: int, two: Runs) -> None:
    from diffusers import UNet2DConditionModel

    folder = two[0] / "xl" / "checkpoints" / f"iteration-{iteration:06d}"
    assert (
        json.loads((folder / "unet" / "config.json").read_text())["_class_name"]
        == "UNet2DConditionModel"
    )
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    seen = two[1]["xl"][0]["parameters"][2 * iteration - 1]
    assert torch.equal(
        torch.cat([parameter.detach().flatten() for parameter in unet.parameters()]), seen
    )


def test_a_checkpoint_of_lora_loads_as_that_of_one_process(tiny_model: Path, two: Runs) -> None:
    policy = load_policy(str(tiny_model), two[0] / "lora")
    weights = torch.cat(
        [parameter.detach().flatten() for _, parameter in policy.trainable_parameters()]
    )
    assert torch.equal(weights, two[1]["lora"][0]["parameters"][-1])


def test_grids_show_the_same_images(two: Runs, alone: Alone) -> None:
    from PIL import Image

    for iteration in (0, 1, 2):
        name = Path("samples") / f"iteration-{iteration:06d}.png"
        with (
            Image.open(two[0] / "xl" / name) as found,
            Image.open(alone("xl")[0] / name) as expected,
        ):
            pairs = zip(found.tobytes(), expected.tobytes(), strict=True)
            assert max(abs(mine - other) for mine, other in pairs) <= (0 if iteration == 0 else 1)


@pytest.mark.parametrize(
    ("name", "reason", "done"),
    [("breaks", "the server went away", [1]), ("held-out-breaks", "no answer", [])],
)
def test_a_reward_that_fails_on_one_process_stops_all(
    name: str, reason: str, done: list[int], two: Runs
) -> None:
    """In the middle of sampling, where the other would wait for the next call of the denoiser."""
    first, second = (seen["error"] for seen in two[1][name])
    assert first == second
    assert first.startswith("RewardFailure")
    assert reason in first
    file = two[0] / name / "metrics.jsonl"
    assert ([line["iteration"] for line in metrics(two[0] / name)] if file.exists() else []) == done


def test_float16_is_an_error_of_one_line(two: Runs) -> None:
    for seen in two[1]["float16"]:
        assert (
            seen["error"] == "ConfigError: dtype = float16 is not supported with --use_fsdp: "
            "use bfloat16 or float32"
        )
    assert not (two[0] / "float16").exists()


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "configured for DeepSpeed"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "configured for Megatron-LM"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "configured for a parallelism config"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "add --fsdp_version 2"),
        (
            {"ACCELERATE_USE_FSDP": "True", "FSDP_OFFLOAD_PARAMS": "true"},
            "leave --fsdp_offload_params out",
        ),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_RESHARD_AFTER_FORWARD": "false"},
            "leave --fsdp_reshard_after_forward out",
        ),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_ACTIVATION_CHECKPOINTING": "true"},
            "adapt.checkpointing=true",
        ),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"},
            "leave --fsdp_auto_wrap_policy out",
        ),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer"},
            "models name their own blocks",
        ),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_IGNORED_MODULES": "down_blocks"},
            "leave --fsdp_ignored_modules out",
        ),
    ],
)
def test_settings_of_the_launcher_that_would_be_ignored_are_refused(
    variables: dict[str, str], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=advice):
        join_world("cpu")


def test_the_command_line_says_that_the_denoiser_is_sharded(
    tiny_xl: Path, rewards_file: Path, tmp_path: Path
) -> None:
    arguments = [
        "train",
        "--model",
        tiny_xl,
        "--reward",
        f"{rewards_file}:Brightness",
        "--iterations",
        "1",
        "--device",
        "cpu",
    ]
    sets = ["samples=8", "per_prompt=2", "steps=3", "batch=4"]
    chosen = [
        *(f"sample.{one}" for one in sets),
        "optim.timesteps=2",
        "adapt.kind=full",
        "dtype=float32",
    ]
    arguments += [part for assignment in chosen for part in ("--set", assignment)]
    done = launch_with(FSDP, "-m", "ddpo", *arguments, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("full (352,436 parameters, sharded by FSDP)") == 1
    assert done.stdout.count("iteration 1/1") == 1
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["processes"] == 2


def test_a_model_whose_parameters_are_in_no_module_is_refused(tiny_model: Path) -> None:
    policy = load_policy(str(tiny_model))
    policy.adapt("full")
    hidden = SimpleNamespace(
        model="mine",
        predict=policy.predict,
        trainable_parameters=policy.trainable_parameters,
        modules=[policy],
    )
    with pytest.raises(ConfigError, match=r"the model 'mine' cannot be sharded.*use --multi_gpu"):
        ShardedDenoiser(cast(Policy, hidden))
