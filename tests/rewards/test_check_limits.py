"""A slow reward is named at once, and the time limit of the checks holds."""

from __future__ import annotations

import time
from pathlib import Path

from ddpo.rewards.check import iter_results

CODE = """
import time

def slow(images):
    time.sleep(0.25 * len(images))
    return [float(image.mean()) for image in images]

def fast(images):
    return [float(image.mean()) for image in images]
"""


def test_a_slow_reward_is_named_and_ended_in_time(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    lines: list[str] = []
    started = time.monotonic()
    names = ["card-valid", "contract", "batch-invariance", "memory"]
    found = list(
        iter_results(f"{tmp_path}/mine.py:slow", only=names, timeout_s=5, say=lines.append)
    )
    assert time.monotonic() - started < 15
    assert [line.startswith("takes 0.3 s per image; the checks need about") for line in lines] == [
        True
    ]
    outcomes = {result.name: result.outcome for result in found}
    assert outcomes["card-valid"] == "passed"
    assert outcomes["memory"] == "failed"
    assert list(outcomes) == names
    assert "within the 5 s for all checks" in found[-1].detail


def test_a_fast_reward_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    lines: list[str] = []
    found = list(iter_results(f"{tmp_path}/mine.py:fast", only=["order"], say=lines.append))
    assert ([result.outcome for result in found], lines) == (["passed"], [])
