"""`Scorer`: any number of pictures through a reward, in micro-batches, side by side where that helps, each picture once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event, Lock
from typing import Final

import torch

from ddpo.errors import ConfigError, ContractBroken, RewardFailure, RewardUnavailable
from ddpo.rewards.base import Reward
from ddpo.rewards.cache import ScoreCache, cacheable, image_digests, score_key
from ddpo.rewards.card import Calls
from ddpo.rewards.groups import group_halves, packed_groups
from ddpo.rewards.scoring.call import GuardedReward, OutOfMemory
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.scoring.results import (
    ChunkResult,
    ScoringResult,
    cached_results,
    concatenate,
    repeated_results,
)
from ddpo.rewards.signature import identity as identity_of
from ddpo.types import ImageBatch, RewardOutput
from ddpo.user_code import is_user_code

__all__ = ["Scorer", "ScoringResult", "make_scorer", "processors"]

BATCH_PIXELS: Final = 16 * 1024 * 1024
GIVE_UP: Final = 8  # failures in a row after which a reward is taken for broken


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Scorer:
    """Scores batches of any length: order in is order out, and whatever the reward does wrong is told on one line.

    Thread-safe rewards on the CPU run on all processors, remote ones as often at once as their card allows. When memory does not
    suffice, the micro-batch is halved, and the scorer remembers. The pictures of a prompt are a group: a reward that judges groups gets
    whole ones, as many per call as `batch_pixels` allows and one at least.

    Args:
        reward: the reward to call.
        batch_size: pictures per call of the reward, at most.
        batch_pixels: pixels per call, at most; one picture is always allowed.
        calls: concurrency, time-out and retries; the card's if None.
        cache: where scores are looked up and kept, if the card lets them be.
        identity: what fixes the scores, for the cache; that of the card with default options if None.
        name: what the scores are called; the reward's id if None.

    Raises:
        ConfigError: the batch size is below 1.
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
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch size must be at least 1, got {batch_size}")
        self.reward, self.batch_size, self.name = reward, batch_size, name or reward.card.id
        self._call = GuardedReward(reward, calls or reward.card.calls)
        self._workers = _workers(reward, self._call.calls)
        self._batch_pixels = batch_pixels
        self._cache = cache if cache is not None and cacheable(reward.card) else None
        self._identity = identity or identity_of(reward.card)
        self._grouped = "group" in reward.card.inputs
        self._pool: ThreadPoolExecutor | None = None
        self._state = Lock()
        self._failures_in_a_row = 0
        self.served = 0  # pictures so far whose score was not computed

    @property
    def seconds(self) -> float:
        """Time spent inside the reward so far, added up over concurrent calls."""
        return self._call.seconds

    @property
    def waits(self) -> bool:
        """Whether a call spends its time waiting, as for a server that the reward or a part of it asks."""
        parts: dict[str, Scorer] = getattr(self.reward, "scorers", {})
        return self._call.calls.concurrency > 0 or any(part.waits for part in parts.values())

    def score(self, batch: ImageBatch) -> RewardOutput:
        """One value per picture of `batch`, on the CPU, without gradient.

        Raises:
            RewardFailure: the reward broke on a picture, or returned something else than one float32 score per picture; names it, the
                first such picture and the cause.
            UserError: as the reward itself raises.
        """
        return self._scored(batch, stop=True).output

    def score_each(self, batch: ImageBatch) -> ScoringResult:
        """As `score`, but a picture on which the reward breaks is set apart and the others are scored.

        Raises:
            RewardFailure: the reward broke on so many pictures in a row that it is taken for broken.
            UserError: as the reward itself raises.
        """
        return self._scored(batch, stop=False)

    def close(self) -> None:
        """Ends the threads. The reward and the cache are the caller's."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _scored(self, batch: ImageBatch, stop: bool) -> ScoringResult:
        if not len(batch):
            return ScoringResult(RewardOutput(torch.zeros(0)), frozenset())
        if self._cache is None:
            pieces = self._score_places(batch, range(len(batch)), stop, None)
            return concatenate(pieces, len(batch), self.reward.card.id)
        keys = self._keys(batch)
        known = self._cache.get([key for key in keys if key is not None])
        first: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key is not None and key not in known:
                first.setdefault(key, place)
        places = sorted(
            [*first.values(), *(place for place, key in enumerate(keys) if key is None)]
        )
        pieces = self._score_places(batch, places, stop, keys)
        pieces += cached_results(known, keys) + repeated_results(pieces, keys, first)
        self.served += len(batch) - len(places)
        return concatenate(pieces, len(batch), self.reward.card.id)

    def _keys(self, batch: ImageBatch) -> list[bytes | None]:
        card = self.reward.card
        digests = image_digests(batch, exact=card.pixels == "float")
        return [
            score_key(self._identity, digest, prompt, card, batch.context)
            for digest, prompt in zip(digests, batch.prompts, strict=True)
        ]

    def _score_places(
        self,
        batch: ImageBatch,
        places: Sequence[int],
        stop: bool,
        keys: Sequence[bytes | None] | None,
    ) -> list[ChunkResult]:
        """The pieces of the pictures at `places`, each stored in the cache as soon as it is there."""
        chunks = self._chunks(batch, places)
        over = Event()  # once one has raised, no other is begun

        def run(chunk: Sequence[int]) -> list[ChunkResult]:
            if over.is_set():
                return []
            try:
                pieces = self._pieces(_part(batch, chunk), chunk, stop)
            except BaseException:
                over.set()
                raise
            if keys is not None and self._cache is not None:
                self._cache.put(
                    self.reward.card.id,
                    self._identity,
                    [item for piece in pieces for item in piece.to_cache(keys)],
                )
            return pieces

        if self._workers == 1 or len(chunks) == 1:
            return [piece for chunk in chunks for piece in run(chunk)]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="ddpo-score")
        return [piece for found in self._pool.map(run, chunks) for piece in found]

    def _chunks(self, batch: ImageBatch, places: Sequence[int]) -> list[Sequence[int]]:
        """The places of each micro-batch. A reward that judges groups gets whole ones, however many pictures that are."""
        pixels = batch.size[0] * batch.size[1]
        if self._grouped:
            return [*packed_groups(batch.prompts, self._batch_pixels // max(1, pixels))]
        size = self._micro_batch(pixels, len(places))
        return [places[start : start + size] for start in range(0, len(places), size)]

    def _micro_batch(self, pixels: int, count: int) -> int:
        share = -(-count // self._workers)
        most = min(self.batch_size, self._call.calls.batch or self.batch_size)
        return max(1, min(most, self._batch_pixels // max(1, pixels), share))

    def _pieces(self, batch: ImageBatch, places: Sequence[int], stop: bool) -> list[ChunkResult]:
        """Calls the reward on `batch`; where that fails, on its halves, down to the pictures, or the group, that are to blame."""
        try:
            output = self._call(batch)
        except RewardFailure as error:
            no_pictures_fault = isinstance(error, (ContractBroken, RewardUnavailable))
            halves = [] if no_pictures_fault else self._halves(batch)
            if not halves:
                return [self._failed(places, error, batch, stop)]
            if isinstance(error, OutOfMemory):
                self._remember_limit(batch)
        else:
            self._failures_in_a_row = 0
            return [ChunkResult(places, output)]
        return [
            piece
            for half in halves
            for piece in self._pieces(_part(batch, half), [places[i] for i in half], stop)
        ]

    def _halves(self, batch: ImageBatch) -> list[Sequence[int]]:
        """The places of two halves, none if there is but one picture or, for a reward that judges groups, one group."""
        if self._grouped:
            return [*group_halves(batch.prompts)]
        half = len(batch) // 2
        return [range(half), range(half, len(batch))] if half else []

    def _remember_limit(self, batch: ImageBatch) -> None:
        with self._state:
            self._batch_pixels = min(
                self._batch_pixels, len(batch) // 2 * batch.size[0] * batch.size[1]
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _failed(
        self, places: Sequence[int], error: RewardFailure, batch: ImageBatch, stop: bool
    ) -> ChunkResult:
        if stop:
            where = (
                f"image {places[0]}" if len(places) == 1 else f"images {places[0]} to {places[-1]}"
            )
            raise type(error)(
                f"{error} ({where}, prompt {batch.prompts[0].text!r})"
            ) from error.__cause__
        with self._state:
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= GIVE_UP:
                kind = RewardUnavailable if isinstance(error, RewardUnavailable) else RewardFailure
                raise kind(
                    f"{error}; it failed {GIVE_UP} times in a row and is taken for broken"
                ) from error
        reasons = (str(error),) * len(places)
        return ChunkResult(
            places,
            RewardOutput(torch.full((len(places),), torch.nan), errors=reasons),
            True,
            isinstance(error, RewardUnavailable),
        )


def _part(batch: ImageBatch, places: Sequence[int]) -> ImageBatch:
    """The pictures at rising places: a view where they lie together, else a copy."""
    together = places[-1] - places[0] + 1 == len(places)
    return batch[places[0] : places[-1] + 1] if together else batch.take(places)


def make_scorer(
    resolved: ResolvedReward,
    batch_size: int = 16,
    *,
    name: str | None = None,
    timeout_s: float | None = None,
    cache: ScoreCache | None = None,
) -> Scorer:
    """The scorer of a reward that was found, made with its options; of a combination, every part has its own.

    Args:
        resolved: what `ddpo.rewards.zoo.resolve` gave.
        batch_size: pictures per call of a reward, at most.
        name: what the scores are called; the reward's id if None.
        timeout_s: seconds after which a call is given up, where the card sets no limit of its own.
        cache: where scores are looked up and kept; those of a user's code only if the cache has `user_code`.

    Raises:
        UserError: as `ResolvedReward.make`.
    """
    own_code = (
        is_user_code(resolved.origin) and not resolved.parts
    )  # which may depend on more files than are known
    kept = None if own_code and cache is not None and not cache.user_code else cache
    reward = resolved.make(
        lambda part: make_scorer(part, batch_size, timeout_s=timeout_s, cache=cache)
    )
    calls = reward.card.calls  # which may depend on the options, as for a model behind a server
    if calls.timeout_s is None:
        calls = replace(calls, timeout_s=timeout_s)
    return Scorer(
        reward, batch_size, calls=calls, cache=kept, identity=resolved.identity, name=name
    )


def _workers(reward: Reward, calls: Calls) -> int:
    if calls.concurrency:
        return calls.concurrency if reward.card.thread_safe else 1
    return processors() if reward.card.thread_safe and reward.card.device == "cpu" else 1
