"""Checks of threads and memory."""

from __future__ import annotations

import gc
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image

from ddpo.errors import one_line
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped, check
from ddpo.rewards.check.reward_under_test import PROBE_NAMES, RewardUnderTest, unequal
from ddpo.types import ImageBatch

__all__ = ["CHECKS"]

THREADS: Final = 8
THREAD_SECONDS: Final = 0.25
WARM_UP, ROUNDS, PICTURES, SIDE = 3, 10, 4, 96
RESIDENT_BOUND: Final = 64e6  # bytes; the allocator keeps pages, so only a gross leak shows here
STATM: Final = Path("/proc/self/statm")


@check("scores")
def threads(subject: RewardUnderTest) -> str | None:
    """If the card says thread_safe, eight threads get the scores of a single one."""
    if not subject.reward.card.thread_safe:  # which depends on the back end
        raise CheckSkipped("the card does not say thread_safe: the scorer takes a lock")
    if subject.grouped or not subject.card.deterministic:
        raise CheckSkipped("the card says that it is not deterministic, or that groups are judged")
    due = [
        subject.values(subject.batch([picture], [prompt]))[0]
        for picture, prompt in zip(subject.pictures, subject.prompts, strict=True)
    ]
    faults: list[str] = []
    start, stop, tolerance = (
        threading.Barrier(THREADS),
        time.perf_counter() + THREAD_SECONDS,
        subject.tolerance,
    )

    def work(number: int) -> None:
        start.wait()
        for turn in range(10_000):
            place = (number + turn) % len(due)
            try:
                found = subject.values(
                    subject.batch([subject.pictures[place]], [subject.prompts[place]])
                )
            except Exception as error:  # noqa: BLE001  # told below, in the main thread
                faults.append(f"{PROBE_NAMES[place]}: {one_line(error)}")
                return
            if unequal(found, due[place : place + 1], tolerance) is not None:
                faults.append(
                    f"{PROBE_NAMES[place]} scores {found[0]:.7g} instead of {due[place]:.7g}"
                )
            if faults or (turn and time.perf_counter() > stop):
                return

    sys.setswitchinterval(1e-5)  # put back by the caller; the shorter, the likelier a race shows
    workers = [
        threading.Thread(target=work, args=(number,), daemon=True) for number in range(THREADS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if faults:
        raise CheckFailed(f"with {THREADS} threads, {faults[0]}")
    return None


@check("scores")
def memory(subject: RewardUnderTest) -> str | None:
    """Made, used and released many times, it leaves no images, tensors or other memory behind."""
    picture_bytes = PICTURES * SIDE * SIDE * 3
    random = np.random.default_rng(6)

    def once() -> None:
        reward = subject.found.make() if subject.can_remake else subject.reward
        array = random.integers(0, 256, (PICTURES, SIDE, SIDE, 3)).astype(np.uint8)
        subject.score(ImageBatch.of_uint8(array, subject.prompts[:1] * PICTURES), reward)
        if subject.can_remake and callable(close := getattr(reward, "close", None)):
            close()

    objects, traced, resident = _growth(once)
    if objects >= ROUNDS:
        raise CheckFailed(f"{objects} tensors or pictures are left after {ROUNDS} uses")
    if traced > ROUNDS * picture_bytes / 2:
        raise CheckFailed(
            f"{traced / 1e3:.0f} kB are left after {ROUNDS} uses "
            f"with {picture_bytes / 1e3:.0f} kB of images each"
        )
    if resident > RESIDENT_BOUND:
        raise CheckFailed(f"the process grew by {resident / 1e6:.0f} MB in {ROUNDS} uses")
    return None


def _growth(once: Callable[[], None]) -> tuple[int, int, int]:
    """Growth over `ROUNDS` calls: live tensors and images, traced bytes, resident bytes."""
    mine = not tracemalloc.is_tracing()
    if mine:
        tracemalloc.start()
    try:
        for _ in range(WARM_UP):
            once()
        with _new_objects_only():
            before = _live(), tracemalloc.get_traced_memory()[0], _resident()
            for _ in range(ROUNDS):
                once()
            after = _live(), tracemalloc.get_traced_memory()[0], _resident()
    finally:
        if mine:
            tracemalloc.stop()
    return after[0] - before[0], after[1] - before[1], after[2] - before[2]


@contextmanager
def _new_objects_only() -> Iterator[None]:
    """Hides what exists from the collector, which would take most of a second with torch loaded."""
    gc.collect()
    frozen_by_others = gc.get_freeze_count()
    if not frozen_by_others:
        gc.freeze()
    try:
        yield
    finally:
        if not frozen_by_others:
            gc.unfreeze()


def _live() -> int:
    gc.collect()
    return sum(
        1 for thing in gc.get_objects() if issubclass(type(thing), (torch.Tensor, Image.Image))
    )


def _resident() -> int:
    """Bytes in memory, where the system tells; else 0."""
    return int(STATM.read_text().split()[1]) * 4096 if STATM.exists() else 0


CHECKS = (threads, memory)
