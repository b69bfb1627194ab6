"""A time budget for checks, which skips those that do not fit and stops those that overrun."""

from __future__ import annotations

import gc
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

import torch

from ddpo.doctor.row import Outcome, Row, Value
from ddpo.errors import ConfigError, Interrupt, MemoryExhausted, one_line
from ddpo.ranges import BILLION

__all__ = ["Budget", "Check", "OutOfTime", "first_that_fits", "run_checks"]

T = TypeVar("T")


class OutOfTime(Interrupt):
    """The end of the time budget during a check."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the self-test, and the time that must be left for it to start."""

    part: str
    subject: str
    needs_s: float  # estimate
    measure: Callable[[], Outcome]


class Budget:
    """The seconds that all checks may take together, counted from its construction.

    Args:
        seconds: Wall-clock time, at least 0 and at most 10⁹.

    Raises:
        ConfigError: The time is out of range.
    """

    def __init__(self, seconds: float) -> None:
        if not 0 <= seconds <= BILLION:
            rule = "the time budget must be 0 s or more and finite, at most 10⁹ s"
            raise ConfigError(f"{rule}, got {seconds:g} s")
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """The seconds that are left, at least 0."""
        return max(0.0, self._end - time.monotonic())

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """A block that is stopped when the budget ends.

        Python can interrupt only its main thread, and only on POSIX. Elsewhere an overrun is not
        stopped.

        Raises:
            OutOfTime: The budget ended within the block.
        """
        main = threading.current_thread() is threading.main_thread()
        if not (main and hasattr(signal, "setitimer")):
            yield
            return
        before = signal.signal(signal.SIGALRM, _stop)
        signal.setitimer(signal.ITIMER_REAL, max(self.left(), 1e-3))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    raise OutOfTime


def run_checks(checks: Iterable[Check], budget: Budget) -> Iterator[Row]:
    """One row per check, in order; a check that raises or lacks memory does not stop the rest."""
    for check in checks:
        start = time.perf_counter()
        outcome = _outcome(check, budget)
        _release_memory()
        seconds = time.perf_counter() - start
        values = _finite(outcome)
        yield Row(check.part, check.subject, outcome.status, values, outcome.note, seconds)


def _outcome(check: Check, budget: Budget) -> Outcome:
    left = budget.left()
    if left == 0:
        return Outcome("skipped", note=f"the time budget of {budget.seconds:g} s has ended")
    if left < check.needs_s:
        text = f"needs about {check.needs_s:g} s, and {left:.0f} s of the time budget are left"
        return Outcome("skipped", note=text)
    try:
        with budget.enforced():
            return check.measure()
    except OutOfTime:
        return Outcome("skipped", note=f"stopped: the time budget of {budget.seconds:g} s ended")
    except (MemoryExhausted, MemoryError, torch.OutOfMemoryError) as error:
        return Outcome("did not fit", note=one_line(error)[:300])
    except Exception as error:  # noqa: BLE001  # becomes a row of the report
        return Outcome("failed", note=one_line(error)[:300])


def _finite(outcome: Outcome) -> dict[str, Value]:
    """The values with None for NaN and infinity, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in outcome.values.items()
    }


def _release_memory() -> None:
    """Frees the memory of the last check, so that the next one has the whole accelerator."""
    if torch.accelerator.is_available():
        gc.collect()
        torch.accelerator.empty_cache()


def first_that_fits(batches: Sequence[int], measure: Callable[[int], T]) -> tuple[T, str]:
    """The result of the first batch size that fits into memory, and a note on larger ones.

    Raises:
        MemoryExhausted: None of them fits.
    """
    too_large: list[int] = []
    for batch in batches:
        try:
            result = measure(batch)
        except (MemoryExhausted, MemoryError, torch.OutOfMemoryError):
            too_large.append(batch)
        else:
            return result, f"did not fit: batch {_listed(too_large)}" if too_large else ""
        _release_memory()
    raise MemoryExhausted(f"no batch size of {_listed(batches)} fits into memory")


def _listed(batches: Sequence[int]) -> str:
    return ", ".join(map(str, batches))
