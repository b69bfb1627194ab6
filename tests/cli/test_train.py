"""`ddpo train` and `ddpo sample` as a user runs them, on a tiny random model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

SMALL = [
    "--set", "sample.samples=8", "--set", "sample.per_prompt=2", "--set", "sample.steps=2", "--set", "sample.batch=8",
    "--set", "optim.timesteps=1", "--set", "optim.updates=1", "--set", "checkpoint_every=1",
]  # fmt: skip


def ddpo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ddpo", *arguments], capture_output=True, text=True, cwd=cwd, check=False)


def test_a_run_prints_a_line_per_iteration_and_can_be_sampled(tiny_model: Path, tmp_path: Path) -> None:
    done = ddpo("train", "--reward", "darkness", "--model", str(tiny_model), "--iterations", "2", "--out", "run", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "8 pictures (4 prompts × 2), 1 update of 8 pictures × 1 of 2 steps" in " ".join(lines[:4])
    assert [line.split("  ")[0] for line in lines if line.startswith("iteration")] == ["iteration 1/2", "iteration 2/2"]
    assert lines[-1] == "Next: ddpo eval --checkpoint run"
    assert done.stderr == ""
    drawn = ddpo("sample", "--checkpoint", "run", "a cat", "a toaster", "--count", "3", "--steps", "2", "--out", "drawn", cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert len(list((tmp_path / "drawn").glob("*-*.png"))) == 6
    with Image.open(tmp_path / "drawn" / "sheet.png") as sheet:
        assert sheet.size == (3 * 16 + 2 * 2, 2 * 16 + 2)
    again = ddpo("sample", "--checkpoint", "run", "a cat", "--out", "drawn", cwd=tmp_path)
    assert again.returncode == 2
    assert "not an empty folder" in again.stderr


def test_an_interrupted_run_says_how_to_go_on_and_does(tiny_model: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ddpo",
        "train",
        "--reward",
        "darkness",
        "--model",
        str(tiny_model),
        "--iterations",
        "500",
        "--out",
        "run",
        *SMALL,
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs, such as these tests, ignore it
    )  # fmt: skip
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with: ddpo train --resume run" in output
    count = len(metrics.read_text().splitlines())
    resumed = ddpo("train", "--resume", "run", "--iterations", str(count + 1), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert count <= len(metrics.read_text().splitlines()) <= count + 1


def test_an_existing_run_is_not_overwritten(tiny_model: Path, tmp_path: Path) -> None:
    arguments = ["train", "--reward", "darkness", "--model", str(tiny_model), "--iterations", "1", "--out", "run", *SMALL]
    assert ddpo(*arguments, cwd=tmp_path).returncode == 0
    refused = ddpo(*arguments, cwd=tmp_path)
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
def test_a_broken_reward_is_one_line(tiny_model: Path, tmp_path: Path, body: str, reason: str) -> None:
    (tmp_path / "mine.py").write_text(f"def mine(images):\n    {body}\n")
    done = ddpo(
        "train", "--reward", "./mine.py:mine", "--model", str(tiny_model), "--iterations", "2", "--out", "run", *SMALL, cwd=tmp_path
    )
    assert done.returncode == 1
    assert reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
