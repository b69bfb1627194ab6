"""A full disk and a lack of memory, as the kernel itself refuses them.

The disk is filled by a limit of the process on the size of a file (RLIMIT_FSIZE). Under it, `write`
fails in the middle of a file, as it does on a full disk. Memory is limited by the address space
(RLIMIT_AS) of a separate process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import assert_same_run, config_of, metrics

from ddpo.errors import MemoryExhausted, StorageFailure
from ddpo.io.tensors import load_tensors
from ddpo.trainer.loop import resume, train
from ddpo.trainer.memory import enough_memory
from ddpo.trainer.monitoring.events import Event, IterationDone

if sys.platform == "win32":
    pytest.skip("limits of a process are POSIX", allow_module_level=True)
import resource

Run = Callable[..., tuple[int, str, str]]
BIG = {"iterations": 2, "grid_every": 9, "checkpoint_every": 9, "adapt": {"kind": "full"}}
BIG |= {
    "sample": {"samples": 256, "per_prompt": 4, "steps": 2, "batch": 256},
    "optim": {"updates": 1, "timesteps": 1},
}


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def followed_until(events: Iterator[Event], iteration: int) -> None:
    """Follows a run to the end of an iteration; its grid is not drawn yet."""
    next(
        event
        for event in events
        if isinstance(event, IterationDone) and event.metrics.iteration == iteration
    )


@pytest.fixture(scope="module")
def straight(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three iterations on a disk with room."""
    out = tmp_path_factory.mktemp("straight") / "run"
    list(train(config_of(tiny_model, iterations=3), out))
    return out


@pytest.mark.parametrize(
    ("after", "size", "file"),
    [
        (
            1,
            10,
            "metrics.jsonl",
        ),  # cut in the middle of the second line: `size` is added to what it has
        (1, 5_000, "checkpoints/iteration-000002"),
        (2, 5_000, "samples/iteration-000002.png"),  # after the state was written
    ],
)
def test_a_full_disk_is_reported_and_the_run_resumes_when_there_is_room(
    tiny_model: Path, straight: Path, tmp_path: Path, after: int, size: int, file: str
) -> None:
    run = tmp_path / "run"
    events = train(config_of(tiny_model, iterations=3), run)
    followed_until(events, after)
    written = (run / "metrics.jsonl").stat().st_size
    with files_up_to(written + size), pytest.raises(StorageFailure) as failure:
        list(events)
    assert str(failure.value) == f"{run / file} cannot be written: File too large"
    assert int(load_tensors(run / "state" / "state.safetensors")[1]["iteration"]) == after
    assert not list(run.rglob("*.tmp")), "the room of what was not finished is given back"
    list(resume(run))
    assert_same_run(straight, run)


def test_a_state_that_cannot_be_written_leaves_the_one_before_and_a_line_on_how_to_resume(
    ddpo: Run, tiny_model: Path, straight: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    events = train(config_of(tiny_model, iterations=3, checkpoint_every=9), run)
    followed_until(events, 1)
    events.close()
    before = (run / "state" / "state.safetensors").read_bytes()
    with files_up_to(20_000):
        code, _, errors = ddpo("train", "--resume", run)
    assert code == 2
    assert errors.strip() == (
        f"error: {run}/state/state.safetensors cannot be written: File too large — "
        f"the finished iterations are kept in {run}/state; resume with: ddpo train --resume {run}"
    )
    assert (run / "state" / "state.safetensors").read_bytes() == before
    assert len(metrics(run)) == 2, "one line more than there are iterations, which is cut off"
    with files_up_to(100):
        code, _, errors = ddpo("train", "--resume", run)
    assert (code, errors.strip()) == (
        2,
        f"error: {run}/metrics.jsonl cannot be written: File too large",
    )
    code, _, errors = ddpo("train", "--resume", run)
    assert code == 0, errors
    assert metrics(run) == metrics(straight)


def test_a_folder_that_cannot_be_started_is_left_free(
    tiny_model: Path, tmp_path: Path, ddpo: Run
) -> None:
    with files_up_to(100):
        code, _, errors = ddpo(
            "train", "--model", tiny_model, "--reward", "darkness", "--out", tmp_path / "run"
        )
    assert code == 2
    assert errors.strip() == f"error: {tmp_path / 'run'} cannot be written: File too large"
    assert not (tmp_path / "run").exists()


LIMITED = """
import resource, sys
from pathlib import Path
from ddpo.trainer.monitoring.events import Started
from ddpo.trainer.loop import resume
for batch in (256, 16):
    events = resume(Path(sys.argv[1]), settings={"sample": {"batch": batch}})
    assert isinstance(next(events), Started)
    size = next(line for line in open("/proc/self/status") if line.startswith("VmSize"))
    most = int(size.split()[1]) * 1024 + 160_000_000
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    try:
        list(events)
        print("finished")
    except MemoryError as error:
        print(f"{type(error).__name__}: {error}")
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_batch_too_large_for_the_memory_is_reported_and_a_smaller_one_succeeds(
    tiny_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    events = train(config_of(tiny_model, **BIG), run)
    followed_until(events, 1)
    events.close()
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(run)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    refused, last = done.stdout.splitlines()
    assert refused.startswith("MemoryExhausted: there is not enough memory (RuntimeError: ")
    assert refused.endswith(
        "a smaller sample.batch than 256 needs less, such as --set sample.batch=128"
    )
    assert last == "finished"
    assert [line["iteration"] for line in metrics(run)] == [1, 2]
    assert json.loads((run / "manifest.json").read_text())["resumed"][-1]["changed"] == {
        "sample.batch": [256, 16]
    }


def test_what_is_no_matter_of_memory_is_left_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="shape") as kept, enough_memory(4):
        torch.zeros(2).reshape(3)
    assert type(kept.value) is RuntimeError
    with (
        pytest.raises(
            MemoryExhausted, match=r"can't allocate memory.*the model itself does not fit"
        ),
        enough_memory(None),
    ):
        torch.zeros(2**50)
    with pytest.raises(MemoryExhausted, match=r"sample\.batch is 1 already"), enough_memory(1):
        bytearray(2**62)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_without_room_is_reported() -> None:
    with pytest.raises(MemoryExhausted, match=r"such as --set sample\.batch=16"), enough_memory(32):
        torch.zeros(2**50, device="cuda")


def test_several_processes_pass_the_failures_on() -> None:
    """`Processes.together` makes them anew from class and message."""
    for kind in (StorageFailure, MemoryExhausted):
        error: Any = kind("one line")
        assert str(type(error)(str(error))) == "one line"
