"""A real evaluation with the embedded model gives the same after kills and on two processes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.warm_start import run_program

KILLS = int(os.environ.get("DDPO_TEST_KILLS", "6"))
SEEDS = int(os.environ.get("DDPO_TEST_SEEDS", "3"))
WORKER = Path(__file__).with_name("engine_worker.py")
IMAGES = 2 * 4 * SEEDS  # models × prompts × seeds
SWAPPED = 2 * 2
REWARDS = 2

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="forks a process that has PyTorch loaded"
)


def calls(log: Path) -> dict[int, list[tuple[str, list[str]]]]:
    """Process → what it drew and scored, call by call."""
    found: dict[int, list[tuple[str, list[str]]]] = {}
    for line in log.read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record["pid"], []).append((record["kind"], record["what"]))
    return found


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.png")}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of three evaluations: `straight`, `two` (processes), and `killed` (many times)."""
    folder = tmp_path_factory.mktemp("engine")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = run_program(WORKER, folder, 3, KILLS, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    kinds = json.loads(done.stdout.splitlines()[-1])
    assert len(kinds) >= KILLS // 2, kinds  # a fast machine may be done before some of them
    return folder


def test_killed_at_random_moments_it_gives_the_same_rows_and_images(evaluated: Path) -> None:
    straight = evaluated / "straight"
    killed = evaluated / "killed"
    rows: list[dict[str, Any]] = json.loads((straight / "rows.json").read_text())
    assert len(rows) == IMAGES * REWARDS
    assert {row["error"] for row in rows} == {None, "not allowed"}
    assert json.loads((killed / "rows.json").read_text()) == rows
    assert files(killed) == files(straight)
    assert len(files(straight)) == IMAGES + SWAPPED


def test_only_work_that_a_kill_interrupted_is_done_twice(evaluated: Path) -> None:
    (straight,) = calls(evaluated / "straight-work.jsonl").values()
    everything = [(kind, one) for kind, what in straight for one in what]
    assert len(everything) == len(set(everything)) == IMAGES + SWAPPED + REWARDS * IMAGES
    finished: set[tuple[str, str]] = set()
    started: set[tuple[str, str]] = set()
    processes = calls(evaluated / "killed-work.jsonl")
    for done in processes.values():
        work = [[(kind, one) for one in what] for kind, what in done]
        assert not finished & {one for call in work for one in call}
        finished |= {
            one for call in work[:-1] for one in call
        }  # the last one may have been under way
        started |= {one for call in work for one in call}
    assert started == set(everything)
    assert all(
        len(what) <= (8 if kind == "draw" else 16)
        for done in processes.values()
        for kind, what in done
    )


def test_two_processes_give_the_same_rows_and_images_and_share_the_work(evaluated: Path) -> None:
    out = evaluated / "two"
    straight = evaluated / "straight"
    assert json.loads((out / "rows.json").read_text()) == json.loads(
        (straight / "rows.json").read_text()
    )
    assert files(out) == files(straight)
    (alone,) = calls(straight.with_name("straight-work.jsonl")).values()
    shares = list(calls(out.with_name("two-work.jsonl")).values())
    assert len(shares) == 2
    assert min(map(len, shares)) >= 3
    assert sorted(map(str, [*shares[0], *shares[1]])) == sorted(
        map(str, alone)
    )  # the same calls, each by one of them
