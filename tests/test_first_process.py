"""The first of several processes reports for all."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from ddpo.distributed import REPORTING_TIME, follow_quietly, is_first_process

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def own_interrupt() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_one_process_is_the_first_whatever_its_number(
    second_of_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_first_process()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert is_first_process()


@pytest.mark.parametrize("rank", [0, 1])
def test_another_process_waits_before_it_prints_an_error(
    rank: int, second_of_two: None, monkeypatch: pytest.MonkeyPatch, ddpo: Run
) -> None:
    """In a real run it is ended while it waits, unless the error is its own."""
    monkeypatch.setenv("RANK", str(rank))
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    code, _, errors = ddpo("train", "--set", "sample.stepz=1")
    assert (code, errors.count("sample.stepz")) == (2, 1)
    assert waited == [REPORTING_TIME] * rank


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_process_that_loses_the_first_after_ctrl_c_is_interrupted_not_broken(
    interrupted: bool, own_interrupt: None
) -> None:
    def events() -> Iterator[str]:
        yield "an event"
        if interrupted:
            os.kill(os.getpid(), signal.SIGINT)
        yield "a later event"
        raise RuntimeError("Connection closed by peer")

    with pytest.raises(KeyboardInterrupt if interrupted else RuntimeError):
        follow_quietly(events())
