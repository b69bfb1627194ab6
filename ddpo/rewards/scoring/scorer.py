"""The `Scorer`: batches of any length through a reward, in micro-batches, each image once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import torch

from ddpo.errors import ContractBroken, RewardFailure, RewardUnavailable, UserError
from ddpo.io.background import Background
from ddpo.ranges import BATCH, finite_or_none
from ddpo.rewards.base import Reward
from ddpo.rewards.cache import CachedScore, ScoreCache, cacheable, image_digests, score_key
from ddpo.rewards.card import Calls
from ddpo.rewards.groups import group_halves, packed_groups
from ddpo.rewards.offload import restore
from ddpo.rewards.scoring.call import (
    OutOfMemory,
    checked,
    concurrency,
    explained,
    is_interrupt,
    retry_pause,
)
from ddpo.rewards.scoring.outages import find_witness, retry_unanswered
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.scoring.results import (
    Chunk,
    cached_chunks,
    concatenate,
    failed_output,
    first_places,
    raise_with_place,
    repeated_chunks,
    scores_to_cache,
)
from ddpo.rewards.signature import identity as identity_of
from ddpo.types import ImageBatch, RewardOutput
from ddpo.user_code import is_user_code

__all__ = ["Scorer", "make_scorer"]

BATCH_PIXELS: Final = 16 * 1024 * 1024
GIVE_UP: Final = 8  # failures in a row after which a reward counts as broken

OnFailure = Callable[[Sequence[int], ImageBatch, RewardFailure], RewardOutput]


class Scorer:
    """Scores batches of any length in order, and reports every fault of the reward in one line.

    - A reward is called without gradient, and one call at a time unless its card is thread-safe.
    - Thread-safe rewards on the CPU use all processors; remote ones as many calls as their card
      allows.
    - A call beyond the time-out is abandoned: Python cannot stop it, so its thread ends with the
      process.
    - If memory does not suffice, the micro-batch is halved, and the scorer remembers the size.
    - A reward that judges groups gets whole groups, at least one per call.

    Args:
        reward: Reward to call.
        batch_size: Largest number of images per call.
        batch_pixels: Largest number of pixels per call; one image is always allowed.
        calls: Concurrency, time-out and retries; those of the card if None.
        cache: Cache in which scores are looked up and stored, if the card allows it.
        identity: Text that fixes the scores, for the cache; by default that of the card.
        name: Name of the scores; by default the id of the reward.
        pause: Function that waits some seconds before a retry.

    Attributes:
        seconds: Time spent inside the reward so far, added up over concurrent calls.
        served: Number of images so far whose score was not computed.
        witness: Image that was scored earlier, as a batch of one, for `score_unless_down`.

    Raises:
        ConfigError: The batch size is below 1.
    """

    def __init__(
        self,
        reward: Reward,
        batch_size: int = 16,
        *,
        batch_pixels: int = BATCH_PIXELS,
        calls: Calls | None = None,
        cache: ScoreCache | None = None,
        identity: str | None = None,
        name: str | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        BATCH.checked("batch size", batch_size)
        card = reward.card
        self.reward = reward
        self.batch_size = batch_size
        self.name = name or card.id
        self.calls = calls or card.calls
        self.seconds = 0.0
        self.served = 0
        self.witness: ImageBatch | None = None
        self._batch_pixels = batch_pixels
        self._cache = cache if cache is not None and cacheable(card) else None
        self._identity = identity or identity_of(card)
        self._pause = pause
        self._grouped = "group" in card.inputs
        self._workers = concurrency(reward, self.calls)
        self._pool: ThreadPoolExecutor | None = None
        self._turn: threading.Lock | None = None if card.thread_safe else threading.Lock()
        self._state = threading.Lock()
        self._failures_in_a_row = 0

    @property
    def waits(self) -> bool:
        """True if a call mostly waits, as for a server of the reward or of one of its parts."""
        parts: dict[str, Scorer] = getattr(self.reward, "scorers", {})
        return self.calls.concurrency > 0 or any(part.waits for part in parts.values())

    def score(self, batch: ImageBatch) -> RewardOutput:
        """One score per image, on the CPU, without gradient.

        Raises:
            RewardFailure: The reward failed on an image or broke its contract. The message names
                the reward, the first such image and the cause.
            UserError: As raised by the reward itself.
        """
        return self._score(batch, raise_with_place)

    def score_each(self, batch: ImageBatch) -> RewardOutput:
        """As `score`, but images on which the reward fails are set apart in `failed`.

        Raises:
            RewardFailure: The reward failed so often in a row that it counts as broken.
            UserError: As raised by the reward itself.
        """
        return self._score(batch, self._set_apart)

    def score_unless_down(self, batch: ImageBatch) -> RewardOutput:
        """As `score_each`, for work that an outage must stop and a single bad image must not.

        Scores that come and go with an outage would make a result depend on its time. What stays
        `unavailable` are images on which the back end fails while it answers for others.

        Raises:
            RewardUnavailable: The back end does not answer.
            RewardFailure: The reward failed so often in a row that it counts as broken.
            UserError: As raised by the reward itself.
        """
        output = self._score(batch, self._set_apart)
        scored = next((place for place, error in enumerate(output.errors) if error is None), None)
        if scored is not None and not self._grouped:  # an image of a group has no score alone
            self.witness = batch.take([scored])
        if not output.unavailable:
            return output
        several = len(batch) > 1 and self.reward.card.calls.batch != 1 and not self._grouped
        if self.witness is None and several:
            self.witness = find_witness(self.score_each, batch, sorted(output.unavailable))
        name = self.reward.card.id
        return retry_unanswered(self.score_each, self._witness_answers, batch, output, name)

    def _witness_answers(self) -> bool:
        """True if the witness is scored again, by the back end and not from the cache."""
        if self.witness is None:
            return False
        ((_, output),) = self._score_chunk([0], _Run(self.witness, [None], self._set_apart))
        return not output.failed

    def close(self) -> None:
        """Ends the threads. The reward and the cache stay open."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _score(self, batch: ImageBatch, on_failure: OnFailure) -> RewardOutput:
        if not len(batch):
            return RewardOutput(torch.zeros(0))
        run = _Run(batch, self._keys(batch), on_failure)
        known: Mapping[bytes, CachedScore] = {}
        first: Mapping[bytes, int] = {}
        places: Sequence[int] = range(len(batch))
        if self._cache is not None:
            known = self._cache.get([key for key in run.keys if key is not None])
            first = first_places(run.keys, known)
            places = [i for i, key in enumerate(run.keys) if key is None or first.get(key) == i]
        parts = self._micro_batches(batch, places)
        if self._workers == 1 or len(parts) == 1:
            found = [self._score_chunk(part, run) for part in parts]
        else:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="ddpo-score")
            found = list(self._pool.map(partial(self._score_chunk, run=run), parts))
        chunks = [chunk for some in found for chunk in some]
        if self._cache is not None:
            chunks += cached_chunks(known, run.keys) + repeated_chunks(chunks, run.keys, first)
            self.served += len(batch) - len(places)
        return concatenate(chunks, len(batch), self.reward.card.id)

    def _keys(self, batch: ImageBatch) -> list[bytes | None]:
        """The cache key of each image; None for one that is not cached."""
        if self._cache is None:
            return [None] * len(batch)
        card = self.reward.card
        digests = image_digests(batch, exact=card.pixels == "float")
        return [
            score_key(self._identity, digest, prompt, card, batch.context)
            for digest, prompt in zip(digests, batch.prompts, strict=True)
        ]

    def _micro_batches(self, batch: ImageBatch, places: Sequence[int]) -> list[Sequence[int]]:
        """The places of each micro-batch: whole groups if the reward judges groups."""
        pixels = batch.size[0] * batch.size[1]
        if self._grouped:
            return [*packed_groups(batch.prompts, self._batch_pixels // max(1, pixels))]
        shard = -(-len(places) // self._workers)
        most = min(self.batch_size, self.calls.batch or self.batch_size)
        size = max(1, min(most, self._batch_pixels // max(1, pixels), shard))
        return [places[start : start + size] for start in range(0, len(places), size)]

    def _score_chunk(self, places: Sequence[int], run: _Run) -> list[Chunk]:
        """The scores of one micro-batch, stored in the cache as soon as they are there.

        Where the reward fails, both halves are scored, down to the image or the group at fault.

        Args:
            places: Places of the images in the whole batch.
            run: Scoring of the whole batch.
        """
        if run.over.is_set():
            return []
        batch = _part(run.batch, places)
        try:
            try:
                output = self._call(batch)
            except RewardFailure as error:
                whatever_images = isinstance(error, (ContractBroken, RewardUnavailable))
                halves = [] if whatever_images else self._halves(batch)
                if not halves:
                    return [(places, run.on_failure(places, batch, error))]
                if isinstance(error, OutOfMemory):
                    self._remember_limit(batch)
            else:
                self._failures_in_a_row = 0
                self._store((places, output), run.keys)
                return [(places, output)]
            # Outside the inner handler, so that the failed call no longer holds memory.
            chunks: list[Chunk] = []
            for half in halves:
                chunks += self._score_chunk([places[i] for i in half], run)
            return chunks
        except BaseException:
            run.over.set()
            raise

    def _store(self, chunk: Chunk, keys: Sequence[bytes | None]) -> None:
        if self._cache is not None:
            scores = scores_to_cache(chunk, keys)
            self._cache.put(self.reward.card.id, self._identity, scores)

    def _halves(self, batch: ImageBatch) -> list[Sequence[int]]:
        """The places of both halves of a batch; none for a single image or group."""
        if self._grouped:
            return [*group_halves(batch.prompts)]
        half = len(batch) // 2
        return [range(half), range(half, len(batch))] if half else []

    def _remember_limit(self, batch: ImageBatch) -> None:
        pixels = len(batch) // 2 * batch.size[0] * batch.size[1]
        with self._state:
            self._batch_pixels = min(self._batch_pixels, pixels)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _set_apart(
        self, places: Sequence[int], batch: ImageBatch, error: RewardFailure
    ) -> RewardOutput:
        """NaN for images on which the reward failed; raises after too many failures in a row."""
        with self._state:
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= GIVE_UP:
                kind = RewardUnavailable if isinstance(error, RewardUnavailable) else RewardFailure
                raise kind(
                    f"{error}; it failed {GIVE_UP} times in a row and is taken for broken"
                ) from error
        return failed_output(len(places), error)

    def _call(self, batch: ImageBatch) -> RewardOutput:
        """The output for a micro-batch, after as many retries as the card allows.

        Raises:
            OutOfMemory: Fewer images may fit.
            ContractBroken: The output is not one score per image.
            RewardUnavailable: The back end did not answer any of the attempts.
            RewardFailure: The reward raised, or took too long without being allowed a retry.
            UserError: As raised by the reward itself.
        """
        for attempt in range(self.calls.retries):
            try:
                return self._call_once(batch)
            except RewardUnavailable as error:
                self._pause(retry_pause(attempt, error.retry_after_s))
        try:
            return self._call_once(batch)
        except RewardUnavailable as error:
            if not self.calls.retries:
                raise
            tries = f"tried {self.calls.retries + 1} times"
            raise RewardUnavailable(f"{error}; {tries}") from error.__cause__

    def _call_once(self, batch: ImageBatch) -> RewardOutput:
        name = self.reward.card.id
        edits = batch.edits
        start = time.perf_counter()
        try:
            limit = finite_or_none(self.calls.timeout_s)
            if limit is None:
                output = self._call_in_turn(batch)
            else:
                output = self._call_in_time(batch, limit)
        except UserError:
            raise
        except BaseException as error:  # a reward may raise anything
            if is_interrupt(error):
                raise
            raise explained(name, error) from error
        finally:
            with self._state:
                self.seconds += time.perf_counter() - start
        return checked(name, output, batch, edits)

    def _call_in_turn(self, batch: ImageBatch) -> RewardOutput:
        restore()
        with torch.no_grad(), self._turn or nullcontext():
            return self.reward(batch)

    def _call_in_time(self, batch: ImageBatch, seconds: float) -> RewardOutput:
        try:
            return Background(lambda: self._call_in_turn(batch), "ddpo-reward-call").result(seconds)
        except TimeoutError:
            if self._turn is not None and self._turn.locked():
                self._turn = threading.Lock()  # the call that hangs keeps the old lock for good
            if not self.calls.retries:  # no back end could recover: this call takes too long
                raise RewardFailure(f"TimeoutError: no answer within {seconds:g} s") from None
            raise


@dataclass(frozen=True, slots=True)
class _Run:
    """The scoring of one batch."""

    batch: ImageBatch
    keys: Sequence[bytes | None]  # cache key of each image
    on_failure: OnFailure
    over: threading.Event = field(default_factory=threading.Event)  # set once a call raised


def _part(batch: ImageBatch, places: Sequence[int]) -> ImageBatch:
    """The images at rising places: a view if they are adjacent, else a copy."""
    adjacent = places[-1] - places[0] + 1 == len(places)
    return batch[places[0] : places[-1] + 1] if adjacent else batch.take(places)


def make_scorer(
    resolved: ResolvedReward,
    batch_size: int = 16,
    *,
    name: str | None = None,
    timeout_s: float | None = None,
    cache: ScoreCache | None = None,
) -> Scorer:
    """The scorer of a resolved reward; each part of a combination has its own.

    Args:
        resolved: Result of `ddpo.rewards.zoo.resolve`.
        batch_size: Largest number of images per call of a reward.
        name: Name of the scores; by default the id of the reward.
        timeout_s: Time-out of a call in seconds, where the card sets none.
        cache: Cache of scores; those of a user's code only if the cache has `user_code`.

    Raises:
        UserError: As `ResolvedReward.make`.
    """
    # A user's code may depend on more files than are known.
    own_code = is_user_code(resolved.origin) and not resolved.parts
    kept = None if own_code and cache is not None and not cache.user_code else cache
    reward = resolved.make(
        partial(make_scorer, batch_size=batch_size, timeout_s=timeout_s, cache=cache)
    )
    calls = reward.card.calls  # may depend on the options, as for a model behind a server
    if calls.timeout_s is None:
        calls = replace(calls, timeout_s=timeout_s)
    return Scorer(
        reward, batch_size, calls=calls, cache=kept, identity=resolved.identity, name=name
    )
