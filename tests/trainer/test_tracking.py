"""Real runs under TensorBoard and Weights & Biases, whose files are read back."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_processes import launched
from tracker_files import Recorded, read_tensorboard, read_wandb

from ddpo.errors import MissingResourceError
from ddpo.trainer.monitoring.events import GridSaved, IterationDone, Metrics, Started, StepStats
from ddpo.trainer.monitoring.tracking import (
    RunTracker,
    TensorBoardTracker,
    check_tracker,
    open_tracker,
)
from tests.warm_start import run_ddpo

METRICS = Metrics(
    iteration=3,
    reward_queries=24,
    reward_mean=-0.5,
    reward_se=None,
    unscorable=1,
    unscorable_reason="no text",
    reward_parts={"a": 0.25, "b": None},
    zero_spread=0,
    loss=0.125,
    ratio_mean_deviation=0.5,
    ratio_first_deviation=0.0,
    clip_fraction=0.5,
    approx_kl=0.25,
    reference_kl=None,
    by_step=[StepStats(0, 0.75, 0.0), StepStats(7, 1.5, 1.0)],
    grad_norm=2.0,
    updates=2,
    seconds=4.0,
    seconds_sampling=3.0,
    seconds_training=1.0,
)
SCALARS = {
    "reward_queries": 24,
    "reward_mean": -0.5,
    "unscorable": 1,
    "reward_parts/a": 0.25,
    "zero_spread": 0,
    "loss": 0.125,
    "ratio_mean_deviation": 0.5,
    "ratio_first_deviation": 0.0,
    "clip_fraction": 0.5,
    "approx_kl": 0.25,
    "grad_norm": 2.0,
    "updates": 2,
    "seconds": 4.0,
    "seconds_sampling": 3.0,
    "seconds_training": 1.0,
    "memory_bytes": 7,
    "ratio_deviation/step_00": 0.75,
    "clip_fraction/step_00": 0.0,
    "ratio_deviation/step_07": 1.5,
    "clip_fraction/step_07": 1.0,
}
SETTINGS = {
    "reward": "darkness",
    "optim": {"lr": 0.25, "guidance": True},
    "targets": ["to_q", ["deep", 1]],
    "nothing": None,
    "none_in": [None],
    "path": Path("a b"),
    "empty": {},
    "mixed": [{"x": Path("y")}],
    "text": "naïve 🙂",
    "half": "half \ud83d",
}
SMALL = [
    "--set",
    "sample.samples=8",
    "--set",
    "sample.per_prompt=2",
    "--set",
    "sample.steps=2",
    "--set",
    "sample.batch=4",
    "--set",
    "optim.timesteps=1",
    "--set",
    "optim.updates=1",
    "--set",
    "checkpoint_every=1",
    "--set",
    "grid_every=2",
]
BOTH = ["--track", "tensorboard", "--track", "wandb"]
OFFLINE = {"WANDB_MODE": "offline"}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A machine of somebody without an account."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("NETRC", raising=False)


def events(folder: Path, done: int = 0) -> list[Any]:
    Image.fromarray(np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)).save(folder / "grid.png")
    return [
        Started(done, 9, "summary"),
        IterationDone(METRICS, ("a cat", 0.0), ("a dog", 1.0), memory=7),
        GridSaved(folder / "grid.png"),
    ]


def in_a_process(
    *arguments: object, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return run_ddpo(*arguments, cwd=cwd, env=os.environ | environment)


def assert_is_the_run(recorded: Recorded, run: Path, grids: list[int]) -> None:
    """Every number of `metrics.jsonl` once, at its iteration; TensorBoard keeps float32."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("reward_mean", "loss", "grad_norm", "reward_queries", "seconds"):
        assert [step for step, _ in recorded.scalars[name]] == [line["iteration"] for line in lines]
        assert [value for _, value in recorded.scalars[name]] == pytest.approx(
            [line[name] for line in lines], rel=1e-6
        )
    assert recorded.images == grids


def test_everything_reaches_tensorboard_whatever_its_type(tmp_path: Path) -> None:
    tracker = RunTracker("tensorboard", open_tracker("tensorboard", tmp_path, 0), SETTINGS)
    for event in events(tmp_path):
        tracker.show(event)
    tracker.close()
    found = read_tensorboard(tmp_path / "tensorboard")
    assert found.scalars == {name: [(3, value)] for name, value in SCALARS.items()}
    assert found.images == [3]
    assert found.settings == {
        "reward": "darkness",
        "optim.lr": 0.25,
        "optim.guidance": True,
        "targets": '["to_q", ["deep", 1]]',
        "nothing": "null",
        "none_in": "[null]",
        "path": '"a b"',
        "empty": "{}",
        "mixed": '[{"x": "y"}]',
        "text": "naïve 🙂",
        "half": "half ?",
    }


@pytest.mark.parametrize(
    "value",
    [
        [],
        [[[]]],
        {"a": {"b": [1, None]}},
        math.nan,
        math.inf,
        "",
        "a\nb",
        "\udcff",
        2**70,
        (1, 2),
        {1, 2},
    ],
)
def test_no_setting_stops_a_tracker(tmp_path: Path, value: Any) -> None:
    tracker = RunTracker(
        "tensorboard", open_tracker("tensorboard", tmp_path, 0), {"first": 1, "odd": value}
    )
    for event in events(tmp_path):
        tracker.show(event)
    tracker.close()
    found = read_tensorboard(tmp_path / "tensorboard")
    assert found.settings["first"] == 1
    assert found.scalars["loss"] == [(3, 0.125)]


def test_a_run_and_its_resumption_are_one_run_in_both_trackers(
    tiny_model: Path, tmp_path: Path
) -> None:
    options = [
        "--reward",
        "darkness",
        "--model",
        tiny_model,
        "--iterations",
        2,
        "--out",
        "run",
        *SMALL,
    ]
    done = in_a_process("train", *options, *BOTH, cwd=tmp_path, **OFFLINE)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "tensorboard: tensorboard --logdir run/tensorboard\n"
        "wandb: offline; upload with: wandb sync run/wandb/offline-run-" in done.stdout
    )
    assert "wandb:" not in done.stdout.replace("wandb: offline", "")
    (tmp_path / "run").rename(tmp_path / "renamed")
    done = in_a_process(
        "train", "--resume", "renamed", "--iterations", 3, *BOTH, cwd=tmp_path, **OFFLINE
    )
    assert (done.returncode, done.stderr) == (0, "")
    run = tmp_path / "renamed"
    settings = json.loads((run / "config.json").read_text())
    for found in (board := read_tensorboard(run / "tensorboard"), wandb := read_wandb(run)):
        assert_is_the_run(found, run, grids=[0, 2, 3])
        assert found.settings["sample.samples"] == 8
        assert found.settings["optim.lr"] == settings["optim"]["lr"]
    assert (
        json.loads(board.settings["adapt.targets"])
        == wandb.settings["adapt.targets"]
        == settings["adapt"]["targets"]
    )
    assert (board.settings["iterations"], wandb.settings["iterations"]) == (2, 3)
    assert len(wandb.ids) == wandb.ended == 2
    assert len(set(wandb.ids)) == 1


def test_iterations_that_are_done_again_are_there_once(
    ddpo: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A killed run resumes from its last state; later iterations are hidden in TensorBoard."""
    run = tmp_path / "run"
    state = run / "state" / "state.safetensors"
    code, _, errors = ddpo(
        "train",
        "--reward",
        "darkness",
        "--model",
        tiny_model,
        "--out",
        run,
        *SMALL,
        "--track",
        "tensorboard",
        "--iterations",
        1,
    )
    assert (code, errors) == (0, "")
    first = state.read_bytes()
    for _ in range(2):
        state.write_bytes(first)
        assert ddpo("train", "--resume", run, "--iterations", 3, "--track", "tensorboard")[0] == 0
    assert_is_the_run(read_tensorboard(run / "tensorboard"), run, grids=[0, 1, 2, 3])
    state.unlink()
    assert ddpo("train", "--resume", run, "--iterations", 1, "--track", "tensorboard")[0] == 0
    assert_is_the_run(read_tensorboard(run / "tensorboard"), run, grids=[0, 1])


def test_two_processes_are_one_run_in_both_trackers(tiny_model: Path, tmp_path: Path) -> None:
    options = [
        "--reward",
        "darkness",
        "--model",
        tiny_model,
        "--iterations",
        2,
        "--out",
        tmp_path / "run",
        *SMALL,
    ]
    done = launched("-m", "ddpo", "train", *options, *BOTH, **OFFLINE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tensorboard --logdir") == done.stdout.count("wandb sync") == 1
    assert_is_the_run(
        read_tensorboard(tmp_path / "run" / "tensorboard"), tmp_path / "run", grids=[0, 2]
    )
    assert_is_the_run(read_wandb(tmp_path / "run"), tmp_path / "run", grids=[0, 2])


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
@pytest.mark.parametrize("there", [None, "folder"])
def test_a_missing_package_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, there: str | None
) -> None:
    """A folder of that name in the working directory is no package."""
    for module in [
        module
        for module in sys.modules
        if module.partition(".")[0] == name or module == "torch.utils.tensorboard"
    ]:
        monkeypatch.delitem(sys.modules, module)
    if there is None:
        monkeypatch.setitem(sys.modules, name, None)
    else:
        (tmp_path / name).mkdir()
        monkeypatch.setattr(
            sys,
            "path",
            [str(tmp_path), *(path for path in sys.path if not (Path(path) / name).is_dir())],
        )
        sys.path_importer_cache.clear()
    with pytest.raises(MissingResourceError, match=f"--track {name}.* pip install {name}$"):
        check_tracker(name)
    sys.modules.pop(name, None)  # the folder, which later imports would find


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "no API key. Run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline"),
        ({"WANDB_API_KEY": ""}, "no API key"),
        ({"WANDB_API_KEY": "too-short"}, "WANDB_API_KEY invalid"),
        ({"WANDB_MODE": "sometimes"}, "--track wandb: "),
        ({"NETRC": "/nowhere/netrc"}, "no API key"),
    ],
)
def test_without_an_account_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    done = in_a_process(
        "train",
        "--reward",
        "darkness",
        "--track",
        "wandb",
        "--out",
        "run",
        cwd=tmp_path,
        **environment,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_no_account_is_needed_offline(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from ddpo.trainer.monitoring.tracking import check_tracker; check_tracker('wandb')",
        ],
        env=os.environ | {"WANDB_MODE": mode},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


FULL_DISK = """
def mine(images):
    from pathlib import Path
    for file in Path("run/tensorboard").glob("events*"):
        if not file.is_symlink():
            file.unlink()
            file.symlink_to("/dev/full")
    return [float(image.mean()) for image in images]
"""
DEAD_SERVICE = """
def mine(images):
    import psutil
    for child in psutil.Process().children(recursive=True):
        if child.name().startswith("wandb"):
            child.kill()
    return [float(image.mean()) for image in images]
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("name", "reward", "reason"),
    [("tensorboard", FULL_DISK, "No space left on device"), ("wandb", DEAD_SERVICE, "")],
)
def test_a_tracker_that_fails_does_not_end_the_run(
    tiny_model: Path, tmp_path: Path, name: str, reward: str, reason: str
) -> None:
    (tmp_path / "mine.py").write_text(reward)
    options = [
        "--reward",
        "./mine.py:mine",
        "--model",
        tiny_model,
        "--iterations",
        3,
        "--out",
        "run",
        *SMALL,
    ]
    words = ["-m", "ddpo", "train", *options, "--track", name]
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | OFFLINE,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"warning: {name} failed and gets no more of this run (")
    assert reason in line
    assert line.endswith("; metrics.jsonl has all of it")
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_failure_at_the_end_is_a_warning(tmp_path: Path) -> None:
    opened = open_tracker("tensorboard", tmp_path, 0)
    assert isinstance(opened, TensorBoardTracker)
    opened.log({"loss": 1.0}, 1)
    tracker = RunTracker("tensorboard", opened, {})
    opened._writer.file_writer.event_writer._async_writer._writer = (
        None  # what the writer thread writes to
    )
    with pytest.warns(
        UserWarning, match="tensorboard failed at its end and may lack some of this run"
    ):
        tracker.close()
    tracker.close()  # once is enough


def test_a_damaged_run_id_is_made_anew(tmp_path: Path) -> None:
    from ddpo.trainer.monitoring.tracking import _wandb_id

    file = tmp_path / "wandb" / "run_id.txt"
    first = _wandb_id(file)
    assert _wandb_id(file) == first
    for damaged in (b"", b"a b", b"\xff\xfe", b"../../x", b"x" * 65):
        file.write_bytes(damaged)
        again = _wandb_id(file)
        assert again not in (first, damaged.decode(errors="replace"))
        assert _wandb_id(file) == again
    shutil.rmtree(file.parent)
    assert len({_wandb_id(file), first}) == 2
