"""The time budget: skipped checks, stopped checks, and failures that stop nothing else."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable

import pytest
import torch

from ddpo.doctor.budget import Budget, Check, first_that_fits, run_checks
from ddpo.doctor.row import Outcome, Row
from ddpo.errors import ConfigError, MemoryExhausted

FINE = Outcome("ok", {"number": 1.0})


def rows(*checks: tuple[float, Callable[[], Outcome]], seconds: float = 60.0) -> list[Row]:
    listed = [
        Check("part", str(place), needs, measure) for place, (needs, measure) in enumerate(checks)
    ]
    return list(run_checks(listed, Budget(seconds)))


def raising(error: BaseException) -> Callable[[], Outcome]:
    def measure() -> Outcome:
        raise error

    return measure


def swallowing() -> Outcome:
    """Sleeps, and catches every ordinary exception meanwhile, as reward code may."""
    for _ in range(300):
        with contextlib.suppress(Exception):
            time.sleep(0.1)
    return FINE


@pytest.mark.parametrize(
    ("error", "status", "note"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "did not fit", "CUDA out of memory"),
        (MemoryExhausted("no room"), "did not fit", "no room"),
        (MemoryError(), "did not fit", "MemoryError"),
        (RuntimeError("no kernel\nfor this"), "failed", "RuntimeError: no kernel for this"),
        (ConfigError("wrong"), "failed", "wrong"),
        (AssertionError(), "failed", "AssertionError"),
    ],
)
def test_an_error_is_a_row_and_the_next_check_runs(
    error: BaseException, status: str, note: str
) -> None:
    broken, fine = rows((0, raising(error)), (0, lambda: FINE))
    assert broken.status == status
    assert note in broken.note
    assert (fine.status, fine.values) == ("ok", {"number": 1.0})


def test_what_needs_more_than_is_left_is_skipped_and_cheaper_ones_run() -> None:
    long, short = rows((100, raising(AssertionError("ran"))), (1, lambda: FINE), seconds=10)
    assert long.status == "skipped"
    assert long.note.startswith("needs about 100 s, and ")
    assert short.status == "ok"


def test_a_check_that_overruns_is_stopped_although_it_catches_exceptions() -> None:
    start = time.monotonic()
    stopped, late = rows((0, swallowing), (0, lambda: FINE), seconds=0.4)
    assert time.monotonic() - start < 10
    assert (stopped.status, stopped.note) == ("skipped", "stopped: the time budget of 0.4 s ended")
    assert (late.status, late.note) == ("skipped", "the time budget of 0.4 s has ended")


def test_the_alarm_of_the_caller_comes_back() -> None:
    def mine(*_: object) -> None: ...

    before = signal.signal(signal.SIGALRM, mine)
    try:
        rows((0, lambda: FINE))
        assert signal.getsignal(signal.SIGALRM) is mine
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    finally:
        signal.signal(signal.SIGALRM, before)


def test_another_thread_runs_without_an_alarm() -> None:
    found: list[Row] = []
    thread = threading.Thread(target=lambda: found.extend(rows((0, lambda: FINE))))
    thread.start()
    thread.join()
    assert [row.status for row in found] == ["ok"]


def test_the_users_interruption_is_not_a_row() -> None:
    with pytest.raises(KeyboardInterrupt):
        rows((0, raising(KeyboardInterrupt())))


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_budget_is_finite(seconds: float) -> None:
    with pytest.raises(ConfigError, match="0 s or more and finite"):
        Budget(seconds)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_are_json(value: float) -> None:
    (row,) = rows((0, lambda: Outcome("measured", {"a": value, "b": 2, "c": "x"})))
    assert row.to_dict()["values"] == {"a": None, "b": 2, "c": "x"}


@pytest.mark.parametrize(
    ("room", "due", "note"),
    [(9, 8, ""), (5, 4, "did not fit: batch 8"), (1, 1, "did not fit: batch 8, 4, 2")],
)
def test_the_largest_batch_that_fits(room: int, due: int, note: str) -> None:
    def measure(batch: int) -> int:
        if batch > room:
            raise torch.OutOfMemoryError
        return batch

    assert first_that_fits((8, 4, 2, 1), measure) == (due, note)


def test_no_batch_fits() -> None:
    with pytest.raises(MemoryExhausted, match="no batch size of 4, 2 fits"):
        first_that_fits((4, 2), raising_for_any)


def raising_for_any(batch: int) -> int:
    raise MemoryExhausted(f"{batch} is too much")
