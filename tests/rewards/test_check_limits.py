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


HANGS = """
import time

class Hangs:
    def __call__(self, images):
        if len(images) == 1:
            time.sleep(60)
        return [float(image.mean()) for image in images]

def always(images):
    time.sleep(60)
    return [0.0] * len(images)
"""


def test_a_check_that_hangs_ends_and_the_others_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HANGS)
    names = ["card-valid", "contract", "single-picture", "repeatability"]
    found = list(iter_results(f"{tmp_path}/mine.py:Hangs", only=names, each_s=4))
    outcomes = {result.name: result.outcome for result in found}
    assert outcomes["single-picture"] == "failed"
    detail = next(result.detail for result in found if result.name == "single-picture")
    assert detail == "not finished within the 4 s for each check"
    assert outcomes["card-valid"] == outcomes["contract"] == outcomes["repeatability"] == "passed"


def test_a_reward_that_never_answers_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HANGS)
    lines: list[str] = []
    started = time.monotonic()
    names = ["card-valid", "order", "gradient", "memory"]
    found = list(iter_results(f"{tmp_path}/mine.py:always", only=names, each_s=7, say=lines.append))
    assert time.monotonic() - started < 30
    assert lines == ["is slow: its first call has taken 5 s so far"]
    assert [result.outcome for result in found] == ["passed", "failed", "failed", "failed"]


def test_the_names_of_the_checks_are_those_that_run() -> None:
    from ddpo.rewards.check.names import NAMES, OF_THE_CARD
    from ddpo.rewards.check.run import all_checks

    checks = all_checks()
    assert tuple(checks) == NAMES
    assert {name for name, check in checks.items() if check.needs == "card"} == set(OF_THE_CARD)
