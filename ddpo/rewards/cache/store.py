"""`ScoreCache`: scores by key in one SQLite file that several threads and processes share. Trouble with it never stops the scoring."""

from __future__ import annotations

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
from typing import Final, Self, TypeVar

from ddpo.errors import ConfigError, one_line
from ddpo.registry import unknown_name
from ddpo.rewards.cache import queries
from ddpo.rewards.cache.database import (
    DamagedCacheError,
    NewerCacheError,
    close_database,
    damaged_files,
    is_damage,
    open_database,
    set_aside,
    used_bytes,
)
from ddpo.rewards.cache.queries import CacheStats
from ddpo.rewards.cache.rows import CachedScore, pack
from ddpo.weights import cache_dir

__all__ = ["CacheWarning", "ScoreCache"]

T = TypeVar("T")

DEFAULT_LIMIT_MB: Final = 1024.0  # some seven million scores
EVICT_TO: Final = 0.9  # of the limit
TOUCH_ROWS: Final = 1000  # whose last use is written down at once
PAUSE: Final = 60.0  # seconds without the cache after trouble with it
TROUBLE: Final = (sqlite3.Error, UnicodeDecodeError, OSError, DamagedCacheError, NewerCacheError)


class CacheWarning(UserWarning):
    """The score cache cannot be used, or was damaged; the scores are computed instead."""


_warned: set[Path] = set()
_caches: weakref.WeakSet[ScoreCache] = weakref.WeakSet()
_lock = threading.RLock()  # one for all caches of the process, so that a fork can wait for them


class ScoreCache:
    """Scores by key, least recently used out first.

    `get` and `put` never raise for the cache's sake: if it is locked for ten seconds, full, unwritable or unreadable, one `CacheWarning`
    per process and file says so, and for a minute everything is a miss. A damaged file is set aside under another name with a warning, and
    a new one begun; a damaged row fails its checksum and is dropped.

    A score whose `put` returned survives the death of the process at any moment (SIGKILL too): it was handed to the operating system in
    one transaction. When the machine itself dies (power, kernel), the latest transactions may be lost, but none in part, and
    the file stays sound (write-ahead log, synchronous=NORMAL).

    May be used by several threads and processes at once, and after a fork.

    Args:
        path: the file; by default `scores.sqlite` in `ddpo.weights.cache_dir()`. It is made by the first `put`.
        limit_mb: how many megabytes (2**20) it may take; by default the environment's `DDPO_CACHE_LIMIT_MB`, else 1024. Beyond it, the
            scores that were not used for longest are removed, down to nine tenths.
        user_code: whether `make_scorer` also keeps the scores of a user's file or module, which may depend on more than the files that
            are known (`ddpo.source_files`).

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
        self._inode: int | None = None
        self._touched: dict[bytes, None] = {}  # in the order of use
        self._pause_until = -math.inf
        _caches.add(self)
        _register_fork()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, CachedScore]:
        """The scores that are there, by key."""
        with _lock:
            result = self._safely(
                lambda connection: queries.find(connection, list(dict.fromkeys(keys))), create=False
            )
            if result is None:
                return {}
            found, stale = result
            self._touched.update(dict.fromkeys(stale))
            if len(self._touched) >= TOUCH_ROWS:
                self._safely(self._touch)
            return found

    def put(self, reward_id: str, identity: str, items: Sequence[tuple[bytes, CachedScore]]) -> int:
        """Stores scores of one reward in one transaction, and removes old ones if there are too many.

        Args:
            reward_id: the reward's id, for `stats` and `clear`.
            identity: `ResolvedReward.identity`.
            items: keys of `score_key` and their scores. One that is NaN or infinite, or has such a part, is left out.

        Returns:
            How many scores were stored; 0 if there was trouble.
        """
        rows = [(key, *packed) for key, score in items if (packed := pack(key, score)) is not None]
        if not rows:
            return 0
        with _lock:
            stored = (
                self._safely(
                    lambda connection: queries.store(connection, reward_id, identity, rows)
                )
                or 0
            )
            if stored:
                self._safely(self._evict)
        return stored

    def stats(self) -> CacheStats:
        """What there is: size, limit, and the scores by reward and identity.

        Raises:
            ConfigError: it cannot be read.
        """
        entries, used = self._or_error(
            lambda connection: (queries.entries(connection), used_bytes(connection))
        ) or ([], 0)
        return CacheStats(
            self.path, used, self.limit_bytes, tuple(entries), tuple(damaged_files(self.path))
        )

    def clear(self, reward: str | None = None) -> int:
        """Removes the scores of a reward (of all identities), or all of them together with the damaged files that were set aside.

        Returns:
            How many scores were removed.

        Raises:
            UnknownNameError: there is no score of that reward; names the nearest that there is.
            ConfigError: the cache cannot be written.
        """
        removed = self._or_error(lambda connection: queries.clear(connection, reward))
        if reward is not None and removed is None:
            raise unknown_name("reward in the cache", reward, ())
        if reward is None:
            for damaged in damaged_files(self.path):
                damaged.unlink(missing_ok=True)
        return removed or 0

    def export(self, path: Path) -> int:
        """Writes all scores as a table (see `ddpo.rewards.cache.export`) with one line each; returns how many.

        Raises:
            ConfigError: there is no cache or it cannot be read, or `path` has another suffix or cannot be written.
        """
        from ddpo.rewards.cache.export import write_cache_table

        written = self._or_error(lambda connection: write_cache_table(connection, path))
        if written is None:
            raise ConfigError(f"there is no score cache at {self.path}")
        return written

    def close(self) -> None:
        """Writes down what was last used and closes the file; a later `get` or `put` opens it again."""
        with _lock:
            if self._touched:
                self._safely(self._touch)
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _touch(self, connection: sqlite3.Connection) -> None:
        touched, self._touched = self._touched, {}
        queries.touch(connection, touched)

    def _evict(self, connection: sqlite3.Connection) -> None:
        if used_bytes(connection) > self.limit_bytes:
            self._touch(connection)
            queries.evict(connection, int(EVICT_TO * self.limit_bytes))

    def _safely(self, work: Callable[[sqlite3.Connection], T], create: bool = True) -> T | None:
        """What `work` returns; None if there was trouble, or if there is no file and none is to be made."""
        if time.monotonic() < self._pause_until or not (create or self.path.exists()):
            return None
        try:
            return self._run(work)
        except TROUBLE as error:
            self._pause_until = time.monotonic() + PAUSE
            self._disconnect()
            if self.path not in _warned:
                _warned.add(self.path)
                text = f"the score cache {self.path} cannot be used ({one_line(error)}); going on without it"
                warnings.warn(text, CacheWarning, stacklevel=3)
            return None

    def _or_error(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """What `work` returns, None if there is no file; trouble is a user's error."""
        if not self.path.exists():
            return None
        with _lock:
            try:
                return self._run(work)
            except TROUBLE as error:
                self._disconnect()
                raise ConfigError(
                    f"the score cache {self.path} cannot be used: {one_line(error)}"
                ) from error

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._connected())
        except TROUBLE as error:
            if not self._recovered(error):
                raise
        return work(self._connected())

    def _recovered(self, error: Exception) -> bool:
        """Whether the work may be tried again: a damaged file was set aside, by this process or by another."""
        self._disconnect()
        if self._inode is not None and _inode(self.path) != self._inode:
            return True
        if not is_damage(error):
            return False
        aside = set_aside(self.path, self._inode)
        if aside is not None:
            text = f"the score cache {self.path} is damaged ({one_line(error)}); it was set aside as {aside.name}, and a new one begun"
            warnings.warn(text, CacheWarning, stacklevel=5)
        return True

    def _connected(self) -> sqlite3.Connection:
        inode = _inode(self.path)
        if self._connection is not None and inode != self._inode:
            self._disconnect()  # another process has set the file aside, or somebody removed it
        if self._connection is None:
            self._inode = inode
            self._connection = open_database(self.path)
            self._inode = _inode(self.path)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            close_database(self._connection, self.path)
            self._connection = None


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _limit(limit_mb: float | None) -> float:
    text = os.environ.get("DDPO_CACHE_LIMIT_MB", "").strip()
    try:
        limit = limit_mb if limit_mb is not None else float(text) if text else DEFAULT_LIMIT_MB
    except ValueError:
        raise ConfigError(f"DDPO_CACHE_LIMIT_MB={text!r} is not a number of megabytes") from None
    if not (limit > 0 and math.isfinite(limit)):
        raise ConfigError(
            f"the score cache's limit must be a positive number of megabytes, got {limit:g}"
        )
    return limit


@functools.cache
def _register_fork() -> None:
    """SQLite's connections must not be carried into a child process, not even unused: they are closed before, and opened again after."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release
        )


def _before_fork() -> None:
    _lock.acquire()
    for cache in list(_caches):
        cache._disconnect()
