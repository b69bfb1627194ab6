"""`Gatherer`: concurrent requests for one reward are batched into its next call."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

import torch

from ddpo.errors import DdpoError
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.serve.wire import CALL_SECONDS, Refused
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["CLOSE_SECONDS", "MOST_WAITING", "Gatherer"]

MOST_WAITING: Final = 64  # requests; any more are refused with 429
CLOSE_SECONDS: Final = 5.0  # time for running calls when the server ends


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    batch: ImageBatch
    result: Future[RewardOutput]


class Gatherer:
    """The queue of requests for one reward, which one thread serves: it need not be thread-safe.

    Requests for a reward whose scores depend on the batch, by its card, are never merged.

    Args:
        resolved: reward to call.
        batch_size: greatest number of images per call of the reward, and of merged requests.

    Raises:
        UserError: The reward cannot be made.
    """

    def __init__(self, resolved: ResolvedReward, batch_size: int) -> None:
        self._scorer = make_scorer(resolved, batch_size, timeout_s=CALL_SECONDS)
        self._batch_size = batch_size
        card = self._scorer.reward.card
        self._alone = "group" in card.inputs or not card.batch_invariant
        self._waiting: deque[_Job] = deque()
        self._news = threading.Condition()
        self._closed = False
        self.calls = 0  # calls of the scorer so far; fewer than requests where some were merged
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"ddpo-serve-{card.id}")
        self._thread.start()

    def submit(self, batch: ImageBatch) -> Future[RewardOutput]:
        """The future scores of `batch`.

        Raises:
            Refused: Too many requests wait (429).
        """
        job = _Job(batch, Future())
        with self._news:
            if len(self._waiting) >= MOST_WAITING:  # those given up by their clients do not count
                self._waiting = deque(job for job in self._waiting if not job.result.cancelled())
            if len(self._waiting) >= MOST_WAITING:
                raise Refused(429, f"{MOST_WAITING} requests wait already: try again later")
            self._waiting.append(job)
            self._news.notify()
        return job.result

    def stop(self) -> None:
        """Lets the thread end after its running call; waiting requests are cancelled."""
        with self._news:
            self._closed = True
            for job in self._waiting:
                job.result.cancel()
            self._waiting.clear()
            self._news.notify()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Stops the thread and waits for its running call.

        Args:
            seconds: longest time to wait; a call that takes longer is abandoned.
        """
        self.stop()
        self._thread.join(seconds)
        self._scorer.close()

    def _run(self) -> None:
        while jobs := self._next():
            self._answer([job for job in jobs if job.result.set_running_or_notify_cancel()])

    def _next(self) -> list[_Job]:
        """The jobs of the next call; empty when closed."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            jobs = [self._waiting.popleft()]
            if self._alone:
                return jobs
            count = len(jobs[0].batch)
            for job in list(self._waiting):
                if _alike(jobs[0].batch, job.batch) and count + len(job.batch) <= self._batch_size:
                    self._waiting.remove(job)
                    jobs.append(job)
                    count += len(job.batch)
            return jobs

    def _answer(self, jobs: list[_Job]) -> None:
        """Scores jobs together, or each alone if that fails, so that no client spoils another's."""
        if not jobs:
            return
        try:
            self.calls += 1
            output = self._scorer.score(_merged([job.batch for job in jobs]))
        except Exception as error:  # noqa: BLE001  # reported to the client; the thread continues
            if len(jobs) == 1 or not isinstance(error, DdpoError):
                for job in jobs:
                    job.result.set_exception(error)
                return
            for job in jobs:
                self._answer([job])
            return
        start = 0
        for job in jobs:
            part = slice(start, start + len(job.batch))
            start = part.stop
            parts = {name: values[part] for name, values in output.parts.items()}
            job.result.set_result(RewardOutput(output.values[part], parts, output.errors[part]))


def _alike(one: ImageBatch, other: ImageBatch) -> bool:
    return (
        one.size == other.size
        and one.context == other.context
        and one.from_bytes == other.from_bytes
    )


def _merged(batches: list[ImageBatch]) -> ImageBatch:
    if len(batches) == 1:
        return batches[0]
    prompts = [prompt for batch in batches for prompt in batch.prompts]
    if batches[0].from_bytes:
        return ImageBatch.of_images(
            [image for batch in batches for image in batch.images], prompts, batches[0].context
        )
    return ImageBatch(torch.cat([batch.pixels for batch in batches]), prompts, batches[0].context)
