"""Processes that share the work: the launcher's environment, shards, devices."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ddpo.distributed import (
    ALONE,
    World,
    is_first_process,
    load_whole_models,
    process_count,
)
from ddpo.errors import ConfigError
from ddpo.trainer.sharding import join_world

Run = Callable[..., tuple[int, str, str]]
TWO = {
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "LOCAL_WORLD_SIZE": "2",
}
WITHOUT_LAUNCHER = [
    {},
    {"WORLD_SIZE": ""},
    {"WORLD_SIZE": "  "},
    {"WORLD_SIZE": "1"},
    {"WORLD_SIZE": " 1 "},
    {"WORLD_SIZE": "01"},
    {"WORLD_SIZE": "1", "RANK": "3"},
    {"LOCAL_RANK": "1"},
    {"RANK": "x"},
    {"WORLD_SIZE": "1", "RANK": "0", "MASTER_PORT": "odd"},
    {"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"},
    {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"},
    {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "23456", "PET_NNODES": "2"},
    {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "x"},
    {"WORLD_SIZE": "1", "ACCELERATE_USE_FSDP": "true"},
]
WRONG = [
    ({"WORLD_SIZE": "x"}, "WORLD_SIZE='x' is not a whole number from 1 on"),
    ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0' is not"),
    ({"WORLD_SIZE": "-1"}, "WORLD_SIZE='-1' is not"),
    ({"WORLD_SIZE": "1.0"}, "WORLD_SIZE='1.0' is not"),
    ({"WORLD_SIZE": "²"}, "WORLD_SIZE='²' is not"),
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but RANK is not set to a whole number from 0 to 1"),
    (TWO | {"RANK": "2"}, "WORLD_SIZE=2, but RANK='2' is not a whole number from 0 to 1"),
    (TWO | {"RANK": "-1"}, "RANK='-1' is not"),
    (TWO | {"RANK": ""}, "RANK is not set"),
    (TWO | {"LOCAL_RANK": ""}, "LOCAL_RANK is not set"),
    (TWO | {"LOCAL_RANK": "one"}, "LOCAL_RANK='one' is not"),
    (TWO | {"MASTER_PORT": "http"}, "MASTER_PORT='http' is not a whole number from 1 to 65535"),
    (TWO | {"MASTER_PORT": "65536"}, "MASTER_PORT='65536' is not"),
    (TWO | {"MASTER_ADDR": ""}, "WORLD_SIZE=2, but MASTER_ADDR is not set"),
    (TWO | {"LOCAL_WORLD_SIZE": "zwei"}, "LOCAL_WORLD_SIZE='zwei' is not"),
    (TWO | {"LOCAL_WORLD_SIZE": "3"}, "LOCAL_WORLD_SIZE='3' is not"),
]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*TWO, "ACCELERATE_MIXED_PRECISION"]:
        monkeypatch.delenv(name, raising=False)


def put(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("environment", WITHOUT_LAUNCHER)
def test_a_process_that_no_launcher_started_is_alone(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    put(monkeypatch, environment)
    assert process_count() == 1
    assert is_first_process()
    assert (World.join("cpu").world_size, join_world("cpu").world_size) == (1, 1)


@pytest.mark.parametrize(("environment", "message"), WRONG)
def test_what_contradicts_itself_is_one_line(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    put(monkeypatch, environment)
    for ask in (process_count, lambda: World.join("cpu"), lambda: join_world("cpu")):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert message in str(caught.value)
        assert str(caught.value).endswith(
            "start with `accelerate launch`, or unset WORLD_SIZE for a run of one process"
        )
    assert is_first_process()  # so that somebody reports it


@pytest.mark.parametrize(("rank", "first"), [("0", True), ("1", False)])
def test_of_two_processes_one_is_the_first(
    monkeypatch: pytest.MonkeyPatch, rank: str, first: bool
) -> None:
    put(monkeypatch, TWO | {"RANK": rank})
    assert process_count() == 2
    assert is_first_process() == first


def test_a_launcher_that_starts_one_of_several_processes_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a GPU `accelerate launch --num_processes 2` does so, and says nothing."""
    put(monkeypatch, {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"})
    for ask in (process_count, lambda: World.join("cpu"), lambda: join_world("cpu")):
        with pytest.raises(ConfigError, match="add --multi_gpu"):
            ask()


@pytest.mark.parametrize("environment", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "x"}])
def test_the_command_line_reports_it_and_begins_nothing(
    ddpo: Run,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
) -> None:
    put(monkeypatch, environment)
    code, _, errors = ddpo(
        "train", "--reward", "darkness", "--model", tiny_model, "--out", tmp_path / "run"
    )
    assert (code, len(errors.splitlines())) == (2, 1)
    assert errors.startswith("error: WORLD_SIZE=")
    assert os.listdir(tmp_path) == []


def test_transformers_loads_whole_models_under_the_launcher_of_fsdp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own switch, in a process group of one, as `accelerate launch --use_fsdp` sets it."""
    import torch.distributed as dist
    from transformers.integrations import is_fsdp_enabled

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert is_fsdp_enabled()
        load_whole_models()
        assert not is_fsdp_enabled()
    finally:
        dist.destroy_process_group()


class State:
    """accelerate's state of one of several processes."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.process_index = rank
        self.num_processes = world_size


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("length", [0, 1, 8, 9, 100])
def test_every_block_is_in_exactly_one_shard(world_size: int, length: int) -> None:
    items = list(range(length))
    shards = [World(State(rank, world_size), "cpu").shard(items, 8) for rank in range(world_size)]
    assert sorted(
        (block for shard in shards for block in shard), key=lambda block: block[0]
    ) == ALONE.shard(items, 8)
    assert [one for block in ALONE.shard(items, 8) for one in block] == items
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:1", "names one device for several processes: say cuda, and each takes its own"),
        ("cuda", "2 processes on this machine need a GPU each; it has 0"),
        ("xpu", "device 'xpu' cannot be used; this machine has: cpu"),
        ("gpu", "device 'gpu' is unknown; this machine has: cpu"),
    ],
)
def test_a_device_that_does_not_fit_several_processes_is_one_line(
    device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    put(monkeypatch, TWO)
    with pytest.raises(ConfigError, match=message):
        World.join(device)


def test_one_process_takes_any_device_and_needs_no_accelerate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    world = World.join("cpu")
    assert (world.device, world.world_size, world.gather("x")) == ("cpu", 1, ["x"])
