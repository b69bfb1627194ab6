"""A small seeded part of the trials of hostile images and other files of users."""

import subprocess
import sys
from pathlib import Path

import pytest

TORTURE = Path(__file__).parent.parent / "tools" / "torture"


@pytest.mark.parametrize(("trial", "tries"), [("images", 400), ("inputs", 150)])
def test_a_worker_finds_no_fault(trial: str, tries: int, tmp_path: Path) -> None:
    command = [sys.executable, str(TORTURE / f"{trial}.py"), "11", "0", str(tries), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert sum(line.startswith("try ") for line in lines) == tries
    assert [line for line in lines if line.startswith("fault")] == []
