"""`ddpo train` and `ddpo sample` as a user runs them, on a tiny random model."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ddpo.io.process import here
from ddpo.io.tensors import load_tensors
from ddpo.trainer.algorithms import algorithms
from tests.warm_start import Process, run_ddpo, start_ddpo

SMALL = (
    "--set sample.samples=8 --set sample.per_prompt=2 --set sample.steps=2 --set sample.batch=8 "
    "--set optim.timesteps=1 --set optim.updates=1 --set checkpoint_every=1"
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ddpo_here(request: pytest.FixtureRequest) -> Run:
    """The program in this process; `run_ddpo` runs it in another."""
    found: Run = request.getfixturevalue("ddpo")
    return found


def train_arguments(
    model: Path, iterations: int, more: str = "", reward: str = "darkness"
) -> list[str]:
    """Arguments of a run of small rollouts, in the folder `run`."""
    words = f"--reward {reward} --iterations {iterations} --out run {SMALL} {more}".split()
    return ["train", "--model", str(model), *words]


def wait_for(path: Path, process: Process) -> None:
    """Returns as soon as the path exists, which the process creates."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline


def test_a_run_prints_a_line_per_iteration_and_can_be_sampled(
    tiny_model: Path, tmp_path: Path
) -> None:
    done = run_ddpo(*train_arguments(tiny_model, 2), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "8 images (4 prompts × 2), 1 update" in " ".join(lines[:4])
    assert [line.split("  ")[0] for line in lines if line.startswith("iteration")] == [
        "iteration 1/2",
        "iteration 2/2",
    ]
    assert lines[-1] == "Next: ddpo eval --checkpoint run"
    assert done.stderr == ""
    options = ["--checkpoint", "run", "--per-prompt", "3", "--steps", "2", "--out", "samples"]
    sampled = run_ddpo("sample", *options, "a cat", "a teapot", cwd=tmp_path)
    assert sampled.returncode == 0, sampled.stderr
    assert len(list((tmp_path / "samples").glob("*-*.png"))) == 6
    with Image.open(tmp_path / "samples" / "sheet.png") as sheet:
        assert sheet.size == (3 * 16 + 2 * 2, 2 * 16 + 2)
    again = run_ddpo("sample", "--checkpoint", "run", "a cat", "--out", "samples", cwd=tmp_path)
    assert again.returncode == 2
    assert "not an empty folder" in again.stderr


def test_an_interrupted_run_names_the_command_that_resumes_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    process = start_ddpo(*train_arguments(tiny_model, 500), cwd=tmp_path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(metrics, process)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "resume with: ddpo train --resume run" in output
    count = len(metrics.read_text().splitlines())
    resumed = run_ddpo("train", "--resume", "run", "--iterations", str(count + 1), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert count <= len(metrics.read_text().splitlines()) <= count + 1


def test_ctrl_c_during_a_checkpoint_lets_it_be_finished(tiny_model: Path, tmp_path: Path) -> None:
    """The signal comes while the checkpoint's folder is temporary; the state is written too."""
    more = "--set checkpoint_every=2 --set adapt.kind=full"
    process = start_ddpo(*train_arguments(tiny_model, 500, more), cwd=tmp_path)
    folder = tmp_path / "run" / "checkpoints" / "iteration-000002"
    temporary = folder.with_name(f".iteration-000002.{process.pid}-{here()}.tmp")
    wait_for(temporary, process)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopping after the step under way; Ctrl-C again stops at once." in errors
    assert (
        output.splitlines()[-1]
        == "Stopped. The finished iterations are kept; resume with: ddpo train --resume run"
    )
    assert (folder / "policy.json").is_file()
    assert not temporary.exists()
    assert load_tensors(tmp_path / "run" / "state" / "state.safetensors")[1]["iteration"] == "2"
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_dry_run_leaves_nothing_behind(
    ddpo_here: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output, errors = ddpo_here(*train_arguments(tiny_model, 5, "--dry-run"))
    assert code == 0, errors
    topics = [line.split()[0] for line in output.splitlines() if line.startswith("  ")]
    assert " ".join(topics) == "settings batch steps ratio reward unscorable memory time disk"
    assert output.splitlines()[-1] == "Nothing was trained, and nothing written."
    assert list(tmp_path.iterdir()) == []


def test_mistakes_around_a_run_are_one_line(
    ddpo_here: Run, tiny_model: Path, tmp_path: Path
) -> None:
    for arguments, message in (
        (("--track", "tensorbord"), "unknown tracker 'tensorbord'; did you mean 'tensorboard'"),
        (("--held-out", "darkness"), "held_out = 'darkness' is trained on"),
        (("--resume", tmp_path / "run", "--dry-run"), "leave out --dry-run"),
        (
            ("--set", "checkpoint_kep=1"),
            "unknown setting 'checkpoint_kep'; did you mean 'checkpoint_keep'",
        ),
    ):
        code, _, errors = ddpo_here(
            "train", "--reward", "darkness", "--model", tiny_model, *arguments
        )
        assert code == 2
        assert message in errors
        assert len(errors.strip().splitlines()) == 1


def test_all_methods_are_named_in_the_help(ddpo_here: Run) -> None:
    _, output, _ = ddpo_here("train", "--help")
    words = output.replace("│", " ").split()
    assert all(name in [word.strip(",.") for word in words] for name in algorithms._builtin)


def test_an_existing_run_is_not_overwritten(tiny_model: Path, tmp_path: Path) -> None:
    arguments = train_arguments(tiny_model, 1)
    assert run_ddpo(*arguments, cwd=tmp_path).returncode == 0
    refused = run_ddpo(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert "run already holds a run" in refused.stderr
    assert refused.stderr.count("--resume run") == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return [float('nan')] * len(images)", "is nan"),
        ("return [1.0]", "1 "),
        ("raise OSError('disk on fire')", "disk on fire"),
    ],
)
def test_a_broken_reward_is_one_line(
    tiny_model: Path, tmp_path: Path, body: str, reason: str
) -> None:
    (tmp_path / "mine.py").write_text(f"def mine(images):\n    {body}\n")
    done = run_ddpo(*train_arguments(tiny_model, 2, reward="./mine.py:mine"), cwd=tmp_path)
    assert done.returncode == 1
    assert reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
