"""The environment of a launcher, and of cluster software that sets the same variables."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ddpo.errors import ConfigError
from ddpo.eval.sharing import join
from ddpo.launch import is_first_process, load_whole_models, process_count
from ddpo.trainer.processes import World

Run = Callable[..., tuple[int, str, str]]
TWO = {
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "LOCAL_WORLD_SIZE": "2",
}
ALONE = [
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


@pytest.mark.parametrize("environment", ALONE)
def test_a_process_that_no_launcher_started_is_alone(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    put(monkeypatch, environment)
    assert process_count() == 1
    assert is_first_process()
    assert (World.join("cpu").count, join("cpu").count) == (1, 1)


@pytest.mark.parametrize(("environment", "message"), WRONG)
def test_what_contradicts_itself_is_one_line(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    put(monkeypatch, environment)
    for ask in (process_count, lambda: World.join("cpu"), lambda: join("cpu")):
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
    for ask in (process_count, lambda: World.join("cpu"), lambda: join("cpu")):
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
