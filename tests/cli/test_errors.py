"""A user's mistake: one line that names it, exit code 2, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpo.cli.main import main
from tests.conftest import Run


def ddpo(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    """Exit code and standard error of the program, run in this process."""
    monkeypatch.setattr(sys, "argv", ["ddpo", *arguments])
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    assert isinstance(code, int)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "--reward", "compresibility"],
            "unknown reward 'compresibility'; did you mean 'compressibility'?",
        ),
        (
            ["train", "--reward", "darkness", "--model", "emojii"],
            "unknown model 'emojii'; did you mean 'emoji'?",
        ),
        (
            ["train", "--reward", "darkness", "--algorithm", "ddpo_si"],
            "unknown algorithm 'ddpo_si'; did you mean",
        ),
        (["train", "--reward", "darkness", "--prompts", "animal"], "did you mean 'animals'?"),
        (
            ["train", "--reward", "darkness", "--prompts", "missing.txt"],
            "no prompt file and no built-in list 'missing.txt'",
        ),
        (
            ["train", "--reward", "darkness", "--set", "optim.lrr=1"],
            "unknown setting 'optim.lrr'; did you mean 'optim.lr'?",
        ),
        (["train", "--reward", "./nothing.py:Mine"], "nothing.py"),
        (["train", "--reward", "darkness", "--device", "gpu7"], "device 'gpu7' cannot be used"),
        (["train", "--recipe", "none.toml"], "no such recipe"),
        (["train", "--resume", "nowhere"], "nowhere is not a run folder"),
        (["sample"], "give either texts or --prompts FILE"),
        (["sample", "a cat", "--checkpoint", "nowhere"], "no such checkpoint"),
        (["eval", "--checkpoint", "nowhere"], "no such checkpoint"),
        (["rewards", "show", "colourfulness"], "did you mean 'colorfulness'?"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, error = ddpo(capsys, monkeypatch, *arguments)
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = ddpo(capsys, monkeypatch, "train", "--rewrd", "darkness")
    assert code == 2
    assert "--reward" in error


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize(
    "arguments",
    [("rewards", "show", "ocr"), ("sample", "half \udced"), ("eval", "--checkpoint", "d\udcffr")],
)
def test_a_terminal_of_another_encoding_gets_all_of_it(
    encoding: str, arguments: tuple[str, ...]
) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-m", "ddpo", *arguments], capture_output=True, env=environment
    )
    assert done.returncode == (0 if arguments[0] == "rewards" else 2)
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == (done.returncode == 2)


@pytest.mark.parametrize("words", ["", "train", "rewards", "rewards score", "recipes", "cache"])
def test_h_is_help_everywhere(words: str, ddpo: Run) -> None:
    assert ddpo(*words.split(), "-h") == ddpo(*words.split(), "--help")
