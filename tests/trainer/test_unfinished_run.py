"""A run that finished no iteration leaves its folder free: the same command runs again."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

GOOD = "def f(images): return images.mean((1, 2, 3))\n"
RUN = ("--iterations", "1", "--set", "sample.samples=8", "--set", "sample.batch=8")
FAILURES = {
    "import": ("raise ValueError('no')\n" + GOOD, 2),
    "construction": (
        "class f:\n    def __init__(self): raise ValueError('no')\n"
        "    def __call__(self, images): return images.mean((1, 2, 3))\n",
        2,
    ),
    "first batch": ("def f(images): raise ValueError('no')\n", 1),
    "first exit": ("def f(images): raise SystemExit(0)\n", 1),
    "other exceptions": (
        "class Odd(BaseException): pass\ndef f(images): raise Odd('no')\n",
        1,
    ),
    "Ctrl-C": ("def f(images): raise KeyboardInterrupt\n", 130),
    "memory": ("def f(images): raise MemoryError('no')\n", 1),
    "no scores": ("def f(images): return [None] * len(images)\n", 1),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_the_same_command_runs_again(
    failure: str, tmp_path: Path, ddpo: Callable[..., tuple[int, str, str]]
) -> None:
    code, expected = FAILURES[failure]
    reward = tmp_path / "mine.py"
    reward.write_text(code)
    words = ("train", "--reward", f"{reward}:f", "--out", tmp_path / "run", *RUN)
    found, _, errors = ddpo(*words)
    assert found == expected, errors
    assert not (tmp_path / "run" / "state").exists()
    reward.write_text(GOOD)
    assert ddpo(*words)[0] == 0
    found, _, errors = ddpo(*words)
    assert found == 2
    assert "already holds a run" in errors


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_what_a_tracker_wrote_is_in_nobodys_way(
    tracker: str,
    tmp_path: Path,
    ddpo: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    reward = tmp_path / "mine.py"
    reward.write_text("def f(images): raise ValueError('no')\n")
    run = tmp_path / "run"
    words = ("train", "--reward", f"{reward}:f", "--out", run, *RUN, "--track", tracker)
    assert ddpo(*words)[0] == 1
    assert any((run / tracker).iterdir())
    assert ddpo(*words)[0] == 1
    (run / tracker / "settings").write_text("mine")
    found, _, errors = ddpo(*words)
    assert (found, (run / tracker / "settings").read_text()) == (2, "mine")
    assert "already holds a run" in errors
