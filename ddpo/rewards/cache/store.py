"""Scores by key in one SQLite file that threads and processes share: `ScoreCache`."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from ddpo.errors import ConfigError, one_line
from ddpo.io.closing import ClosedOnExit
from ddpo.io.json_files import say_once
from ddpo.ranges import value_text
from ddpo.registry import unknown_name
from ddpo.rewards.cache import database, queries
from ddpo.rewards.cache.queries import CacheStats
from ddpo.rewards.cache.rows import CachedScore, pack
from ddpo.weights import cache_dir

__all__ = ["CacheWarning", "ScoreCache", "optional_cache"]

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

MOST_MB: Final = 10**9
DEFAULT_LIMIT_MB: Final = 1024.0  # some seven million scores
EVICT_TO: Final = 0.9  # of the limit
PAUSE: Final = 60.0  # seconds without the cache after an error
ERRORS: Final = (sqlite3.Error, UnicodeDecodeError, OSError)


class CacheWarning(UserWarning):
    """The score cache is damaged or cannot be used; the scores are computed instead."""


_warned: set[Path] = set()
_caches: weakref.WeakSet[ScoreCache] = weakref.WeakSet()
_lock = threading.RLock()  # one for all caches of the process, so that a fork can wait for them


def optional_cache(use: bool | None) -> ScoreCache | None:
    """The score cache of a command; None if it is not wanted, or not possible.

    Args:
        use: False for none; None for the scores of all rewards but a user's own; True for all.

    Raises:
        ConfigError: `use` is True and this user has no home folder, which else is only logged; or
            a variable of the cache in the environment is wrong.
    """
    if use is False:
        return None
    if use is None and not os.environ.get("DDPO_CACHE"):
        try:
            cache_dir()
        except ConfigError as error:
            say_once(f"scores are not cached: {error}")
            return None
    return ScoreCache(user_code=use is True)


class ScoreCache(ClosedOnExit):
    """Scores by key; a full cache removes the least recently used ones.

    `get` and `put` never raise an error because of the cache. It may be locked for ten seconds,
    full, unwritable or unreadable. Then there is one `CacheWarning` per process and file, and for a
    minute every look-up is a miss. A damaged file is renamed with a warning and replaced. A damaged
    row fails its checksum and is dropped.

    A score survives the death of the process (SIGKILL too) once its `put` has returned. A power
    failure may lose the latest transactions, but none in part (write-ahead log,
    synchronous=NORMAL). Threads, processes and forked children may share one file.

    Args:
        path: the file, by default `scores.sqlite` in `ddpo.weights.cache_dir()`. The first `put`
            creates it.
        limit_mb: largest size in megabytes (2**20 bytes), by default `DDPO_CACHE_LIMIT_MB` of the
            environment, else 1024. Beyond it, the least recently used tenth is removed.
        user_code: whether `make_scorer` also keeps scores of a user's own file or module. They may
            depend on more than the files that are known (`ddpo.source_files`).

    Raises:
        ConfigError: the limit is not a positive number.
    """

    def __init__(
        self, path: Path | None = None, limit_mb: float | None = None, user_code: bool = False
    ) -> None:
        self.path = (path or cache_dir() / "scores.sqlite").absolute()
        self.user_code = user_code
        self.limit_bytes = int(_limit(limit_mb) * 2**20)
        self._connection: sqlite3.Connection | None = None
        self._opened: os.stat_result | None = None  # the file of the connection
        self._pause_until = -math.inf
        _caches.add(self)
        _register_fork()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, CachedScore]:
        """The cached scores of some keys, by key."""
        result = self._safely(lambda db: queries.find(db, keys)) if self.path.exists() else None
        found, stale = result or ({}, [])
        if stale:
            self._safely(lambda db: queries.touch(db, stale))
        return found

    def put(self, reward_id: str, identity: str, items: Sequence[tuple[bytes, CachedScore]]) -> int:
        """Stores scores of one reward in one transaction, and removes old ones beyond the limit.

        Args:
            reward_id: id of the reward, for `stats` and `clear`.
            identity: `ResolvedReward.identity`.
            items: keys of `score_key` and their scores. Scores with a number that is NaN or
                infinite are left out.

        Returns:
            The number of stored scores; 0 after an error.
        """
        rows = [(key, *packed) for key, score in items if (packed := pack(key, score)) is not None]

        def work(connection: sqlite3.Connection) -> int:
            queries.store(connection, reward_id, identity, rows)
            if database.used_bytes(connection) > self.limit_bytes:
                queries.evict(connection, int(EVICT_TO * self.limit_bytes))
            return len(rows)

        return (self._safely(work) or 0) if rows else 0

    def stats(self) -> CacheStats:
        """Size, limit, and the scores by reward and identity.

        Raises:
            ConfigError: the cache cannot be read.
        """
        used: int = 0
        entries: list[queries.CacheEntry] = []
        if self.path.exists():
            used, entries = self._run(lambda db: (database.used_bytes(db), queries.entries(db)))
        damaged = database.damaged_files(self.path)
        return CacheStats(self.path, used, self.limit_bytes, tuple(entries), tuple(damaged))

    def clear(self, reward: str | None = None) -> int:
        """Removes the scores of one reward, or all of them together with the damaged files.

        Returns:
            The number of removed scores.

        Raises:
            UnknownNameError: there is no score of that reward; the message names the nearest one.
            ConfigError: the cache cannot be written.
        """
        stats = self.stats()
        known = {entry.reward for entry in stats.entries}
        if reward is not None and reward not in known:
            raise unknown_name("reward in the cache", reward, known)
        for damaged in stats.damaged if reward is None else ():
            damaged.unlink(missing_ok=True)
        return self._run(lambda db: queries.clear(db, reward)) if self.path.exists() else 0

    def export(self, path: Path) -> int:
        """Writes one row per score to a .parquet, .csv or .jsonl file, which it replaces.

        The columns are those of `queries.COLUMNS`. At most some thousand rows are in memory.

        Returns:
            The number of written scores.

        Raises:
            ConfigError: there is no cache, it cannot be read, or `path` cannot be written.
        """
        from ddpo.io.tables import write_records

        if not self.path.exists():
            raise ConfigError(f"there is no score cache at {self.path}")
        return self._run(lambda db: write_records(queries.records(db), queries.COLUMNS, path))

    def close(self) -> None:
        """Closes the file; a later `get` or `put` opens it again."""
        with _lock:
            if self._connection is not None:
                with contextlib.suppress(OSError), database.locked(self.path):
                    self._disconnect()
                self._disconnect()

    def _safely(self, work: Work[T]) -> T | None:
        """The result of `work`; None after an error."""
        if time.monotonic() < self._pause_until:
            return None
        try:
            return self._run(work)
        except ConfigError as error:
            self._pause_until = time.monotonic() + PAUSE
            if self.path not in _warned:
                _warned.add(self.path)
                warnings.warn(f"{error}; continuing without it", CacheWarning, stacklevel=3)
            return None

    def _run(self, work: Work[T]) -> T:
        """The result of `work`.

        Raises:
            ConfigError: the cache cannot be used.
        """
        with _lock:
            try:
                if not self.path.exists():
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                return self._run_or_replace(work)
            except ERRORS as error:
                cause = f"the score cache {self.path} cannot be used ({one_line(error)})"
                raise ConfigError(cause) from error

    def _run_or_replace(self, work: Work[T]) -> T:
        """The result of `work`; replaces an absent or damaged file while no process uses it."""
        until = time.monotonic() + database.BUSY_SECONDS
        while True:
            with database.locked(self.path):
                try:
                    return work(self._connected())
                except ERRORS as error:
                    self._disconnect()
                    if not database.is_damage(error):
                        raise
            try:
                with database.locked(self.path, exclusive=True):
                    return self._replace(work)
            except BlockingIOError:  # others use the file, so one of them may have replaced it
                if time.monotonic() > until:
                    raise

    def _replace(self, work: Work[T]) -> T:
        """The result of `work` with a new file, unless another process has made one meanwhile."""
        try:
            database.create_database(self.path)
            return work(self._connected())
        except ERRORS as error:
            self._disconnect()
            if not database.is_damage(error):
                raise
            aside = database.set_aside(self.path)
            damage = f"the score cache {self.path} is damaged ({one_line(error)})"
            text = f"{damage}; it was set aside as {aside.name}, and a new one was made"
            warnings.warn(text, CacheWarning, stacklevel=6)
        database.create_database(self.path)
        return work(self._connected())

    def _connected(self) -> sqlite3.Connection:
        """A connection to the present file, which another process may have replaced."""
        if self._connection is not None and not self._is_current():
            self._disconnect()
        if self._connection is None:
            self._connection = database.open_database(self.path)
            self._opened = self.path.stat()
        return self._connection

    def _is_current(self) -> bool:
        try:
            return self._opened is not None and os.path.samestat(self.path.stat(), self._opened)
        except OSError:
            return False

    def _disconnect(self) -> None:
        """Closes the connection, under the lock, since the last connection removes the log."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _limit(limit_mb: float | None) -> float:
    limit = limit_mb
    if limit is None:
        text = os.environ.get("DDPO_CACHE_LIMIT_MB", "").strip()
        try:
            limit = float(text) if text else DEFAULT_LIMIT_MB
        except ValueError:
            message = f"DDPO_CACHE_LIMIT_MB={text!r} is not a number of megabytes"
            raise ConfigError(message) from None
    if not 0 < limit <= MOST_MB:
        rule = "the score cache's limit must be a positive number of megabytes"
        raise ConfigError(f"{rule} up to {MOST_MB:,}, got {value_text(limit)}")
    return limit


@functools.cache
def _register_fork() -> None:
    """Closes all connections before a fork, since a child process must not inherit them."""
    if hasattr(os, "register_at_fork"):
        end = _lock.release
        os.register_at_fork(before=_before_fork, after_in_parent=end, after_in_child=end)


def _before_fork() -> None:
    _lock.acquire()
    for cache in list(_caches):
        cache.close()
