"""Checks of thread safety and of memory."""

from __future__ import annotations

import gc
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image

from ddpo.author_errors import author_line
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped, check
from ddpo.rewards.check.reward_under_test import PROBE_NAMES, RewardUnderTest, first_difference
from ddpo.types import ImageBatch

__all__ = ["CHECKS"]

THREADS: Final = 8
THREAD_SECONDS: Final = 0.25
WARM_UP: Final = 3  # uses before the memory is measured
ROUNDS: Final = 10  # uses between the two measurements
IMAGES: Final = 4  # of one use
SIDE: Final = 96  # pixels
RESIDENT_BOUND: Final = 64e6  # bytes; the allocator keeps pages, so only a gross leak shows here
STATM: Final = Path("/proc/self/statm")


@check("scores")
def threads(tested: RewardUnderTest) -> str | None:
    """If the card says `thread_safe`, eight threads that share one instance get correct scores.

    The correct scores are those of a single thread.
    """
    if not tested.reward.card.thread_safe:  # this depends on the back end
        raise CheckSkipped("the card does not say thread_safe: the scorer takes a lock")
    if tested.grouped or not tested.card.deterministic:
        raise CheckSkipped("the card says that it is not deterministic, or that groups are judged")
    expected = [tested.values(batch)[0] for batch in _single_batches(tested)]
    failures = _failures_of_threads(tested, expected)
    if failures:
        raise CheckFailed(f"with {THREADS} threads, {failures[0]}")
    return None


def _single_batches(tested: RewardUnderTest) -> list[ImageBatch]:
    """Each probe image in a batch of its own."""
    pairs = zip(tested.images, tested.prompts, strict=True)
    return [tested.batch([image], [prompt]) for image, prompt in pairs]


def _failures_of_threads(tested: RewardUnderTest, expected: Sequence[float]) -> list[str]:
    """One line for each score that differs, and for each error, in threads that score at once."""
    failures: list[str] = []
    tolerance = tested.tolerance
    start = threading.Barrier(THREADS)
    stop = time.perf_counter() + THREAD_SECONDS

    def work(number: int) -> None:
        start.wait()
        for turn in range(10_000):
            place = (number + turn) % len(expected)
            name = PROBE_NAMES[place]
            batch = tested.batch([tested.images[place]], [tested.prompts[place]])
            try:
                scores = tested.values(batch)
            except BaseException as error:  # noqa: BLE001  # reported by the main thread
                failures.append(f"{name}: {author_line(error)}")
                return
            if first_difference(scores, expected[place : place + 1], tolerance) is not None:
                failures.append(f"{name} scores {scores[0]:.7g} instead of {expected[place]:.7g}")
            if failures or (turn and time.perf_counter() > stop):
                return

    # restored by the caller; the shorter, the likelier a race shows
    sys.setswitchinterval(1e-5)
    workers = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return failures


@check("scores")
def memory(tested: RewardUnderTest) -> str | None:
    """Made, used and released many times, it leaves no images, tensors or other memory behind."""
    image_bytes = IMAGES * SIDE * SIDE * 3
    random = np.random.default_rng(6)

    def once() -> None:
        reward = tested.resolved.make() if tested.can_remake else tested.reward
        array = random.integers(0, 256, (IMAGES, SIDE, SIDE, 3)).astype(np.uint8)
        tested.score(ImageBatch.of_uint8(array, tested.prompts[:1] * IMAGES), reward)
        if tested.can_remake and callable(close := getattr(reward, "close", None)):
            close()

    objects, traced, resident = _growth(once)
    if objects >= ROUNDS:
        raise CheckFailed(f"{objects} tensors or images are left after {ROUNDS} uses")
    if traced > ROUNDS * image_bytes / 2:
        each = f"with {image_bytes / 1e3:.0f} kB of images each"
        raise CheckFailed(f"{traced / 1e3:.0f} kB are left after {ROUNDS} uses {each}")
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
            before = _in_use()
            for _ in range(ROUNDS):
                once()
            after = _in_use()
    finally:
        if mine:
            tracemalloc.stop()
    return after[0] - before[0], after[1] - before[1], after[2] - before[2]


def _in_use() -> tuple[int, int, int]:
    """Live tensors and images, traced bytes, resident bytes."""
    return _live(), tracemalloc.get_traced_memory()[0], _resident()


@contextmanager
def _new_objects_only() -> Iterator[None]:
    """Hides all existing objects from the garbage collector, which takes long with torch loaded."""
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
    """Number of tensors and images that the garbage collector sees."""
    gc.collect()
    counted = (torch.Tensor, Image.Image)
    return sum(1 for thing in gc.get_objects() if issubclass(type(thing), counted))


def _resident() -> int:
    """Resident bytes of the process; 0 where the system does not report them."""
    return int(STATM.read_text().split()[1]) * 4096 if STATM.exists() else 0


CHECKS = (threads, memory)
