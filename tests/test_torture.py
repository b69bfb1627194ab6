"""A small seeded part of `make torture`: kills of all works, and pairs of programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from work import train_words

from ddpo.errors import CheckpointError
from ddpo.eval import evaluate
from ddpo.policies.checkpoints.folder import check_files, find_checkpoint

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_kills_lose_nothing_and_pairs_mix_nothing() -> None:
    """Runs in a new process, since threads of this one would not survive the forks."""
    words = [sys.executable, ROOT / "tools" / "torture" / "_small.py", "15"]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    tries = [int(number) for number in re.findall(r": (\d+) tries, 0 faults", result.stdout)]
    assert len(tries) == 9, result.stdout
    assert sum(tries) >= 16 + 4


def test_a_checkpoint_that_its_run_removes_before_it_is_read_is_named(
    ddpo: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpo.eval import runner

    monkeypatch.chdir(tmp_path)
    assert callable(ddpo)
    assert ddpo(*train_words("run", iterations=1))[0] == 0
    info = find_checkpoint("run")
    check_files(info)
    real = runner.check_rewards

    def slow(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        shutil.rmtree(info.folder)

    monkeypatch.setattr(runner, "check_rewards", slow)
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    with pytest.raises(CheckpointError, match="iteration-000001 was just removed"):
        evaluate(
            checkpoints=("run",),
            prompts=("prompts.txt",),
            rewards=("darkness",),
            held_out=False,
            seeds=2,
            out=tmp_path / "report",
        )
    assert not list((tmp_path / "report").glob("images/*/*.png"))
    with pytest.raises(CheckpointError, match="iteration-000001 was just removed"):
        check_files(info)
