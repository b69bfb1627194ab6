"""`ScoreCache`: scores by key in one SQLite file that threads and processes share."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from ddpo.errors import ConfigError, one_line
from ddpo.files import atomic_path
from ddpo.registry import unknown_name
from ddpo.rewards.cache import database, queries
from ddpo.rewards.cache.queries import CacheStats
from ddpo.rewards.cache.rows import CachedScore, pack
from ddpo.weights import cache_dir

__all__ = ["CacheWarning", "ScoreCache"]

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

DEFAULT_LIMIT_MB: Final = 1024.0  # some seven million scores
EVICT_TO: Final = 0.9  # of the limit
TOUCH_ROWS: Final = 1000  # last uses that wait in memory
PAUSE: Final = 60.0  # seconds without the cache after trouble with it
TROUBLE: Final = (sqlite3.Error, UnicodeDecodeError, OSError)


class CacheWarning(UserWarning):
    """The score cache is damaged or cannot be used; the scores are computed instead."""


_warned: set[Path] = set()
_caches: weakref.WeakSet[ScoreCache] = weakref.WeakSet()
_lock = threading.RLock()  # one for all caches of the process, so that a fork can wait for them


class ScoreCache:
    """Scores by key; the least recently used go first when the file is full.

    `get` and `put` never raise because of the cache. If it is locked for ten seconds, full,
    unwritable or unreadable, one `CacheWarning` per process and file says so. Every look-up of
    the next minute is then a miss. A damaged file is set aside under another name with a warning,
    and a new one is made. A damaged row fails its checksum and is dropped.

    A score survives the death of the process (SIGKILL too) once its `put` has returned, because
    the operating system has the whole transaction. When the machine dies, the latest transactions
    may be lost, but none in part (write-ahead log, synchronous=NORMAL).

    Several threads and processes may use one file, also after a fork.

    Args:
        path: the file, by default `scores.sqlite` in `ddpo.weights.cache_dir()`. The first `put`
            makes it.
        limit_mb: largest size in megabytes (2**20 bytes), by default `DDPO_CACHE_LIMIT_MB` of the
            environment, else 1024. Beyond it, the least recently used tenth is removed.
        user_code: whether `make_scorer` also keeps scores of a user's own file or module, which
            may depend on more than the files that are known (`ddpo.source_files`).

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
        self._touched: dict[bytes, None] = {}  # keys in the order of use
        self._pause_until = -math.inf
        _caches.add(self)
        _register_fork()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, CachedScore]:
        """The scores that are there, by key."""
        with _lock:
            if not self.path.exists():
                return {}
            found, stale = self._safely(lambda db: queries.find(db, dict.fromkeys(keys))) or (
                {},
                [],
            )
            self._touched.update(dict.fromkeys(stale))
            if len(self._touched) >= TOUCH_ROWS:
                self._safely(self._touch)
            return found

    def put(self, reward_id: str, identity: str, items: Sequence[tuple[bytes, CachedScore]]) -> int:
        """Stores scores of one reward in one transaction, and removes old ones beyond the limit.

        Args:
            reward_id: the reward's id, for `stats` and `clear`.
            identity: `ResolvedReward.identity`.
            items: keys of `score_key` and their scores. Those with a number that is NaN or
                infinite are left out.

        Returns:
            The number of scores that were stored; 0 if there was trouble.
        """
        rows = [(key, *packed) for key, score in items if (packed := pack(key, score)) is not None]

        def work(connection: sqlite3.Connection) -> int:
            queries.store(connection, reward_id, identity, rows)
            return len(rows)

        with _lock:
            stored = self._safely(work) if rows else 0
            if stored:
                self._safely(self._evict)
        return stored or 0

    def stats(self) -> CacheStats:
        """Size, limit, and the scores by reward and identity.

        Raises:
            ConfigError: it cannot be read.
        """

        def work(connection: sqlite3.Connection) -> tuple[list[queries.CacheEntry], int]:
            return queries.entries(connection), database.used_bytes(connection)

        entries, used = self._or_error(work) or ([], 0)
        damaged = tuple(database.damaged_files(self.path))
        return CacheStats(self.path, used, self.limit_bytes, tuple(entries), damaged)

    def clear(self, reward: str | None = None) -> int:
        """Removes the scores of one reward, or all of them with the files that were set aside.

        Returns:
            The number of scores that were removed.

        Raises:
            UnknownNameError: there is no score of that reward; names the nearest reward.
            ConfigError: the cache cannot be written.
        """
        stats = self.stats()
        known = {entry.reward for entry in stats.entries}
        if reward is not None and reward not in known:
            raise unknown_name("reward in the cache", reward, known)
        removed = self._or_error(lambda connection: queries.clear(connection, reward))
        for damaged in stats.damaged if reward is None else ():
            damaged.unlink(missing_ok=True)
        return removed or 0

    def export(self, path: Path) -> int:
        """Writes one line per score to a .parquet, .csv or .jsonl file, which it replaces.

        The columns are reward, identity, key (hexadecimal), value, parts (JSON), created and
        last_used (ISO 8601, UTC). At most some thousand rows are in memory.

        Returns:
            The number of scores that were written.

        Raises:
            ConfigError: there is no cache, it cannot be read, or `path` cannot be written.
        """
        from ddpo.rewards.scored_files.table import WRITERS, check_table_path

        check_table_path(path)
        written = 0

        def records(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
            nonlocal written
            for written, row in enumerate(queries.rows(connection), start=1):  # noqa: B007
                yield _record(row)

        def work(connection: sqlite3.Connection) -> bool:
            try:
                with atomic_path(path) as temporary:
                    WRITERS[path.suffix.lower()](records(connection), list(COLUMNS), temporary)
            except OSError as error:
                raise ConfigError(f"{path} cannot be written: {one_line(error)}") from error
            return True

        if self._or_error(work) is None:
            raise ConfigError(f"there is no score cache at {self.path}")
        return written

    def close(self) -> None:
        """Records the latest uses and closes the file; a later `get` or `put` opens it again."""
        with _lock:
            if self._touched:
                self._safely(self._touch)
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _touch(self, connection: sqlite3.Connection) -> None:
        queries.touch(connection, self._touched)
        self._touched.clear()

    def _evict(self, connection: sqlite3.Connection) -> None:
        if database.used_bytes(connection) > self.limit_bytes:
            self._touch(connection)
            queries.evict(connection, int(EVICT_TO * self.limit_bytes))

    def _safely(self, work: Work[T]) -> T | None:
        """The result of `work`; None if there was trouble."""
        if time.monotonic() < self._pause_until:
            return None
        try:
            return self._run(work)
        except TROUBLE as error:
            self._pause_until = time.monotonic() + PAUSE
            if self.path not in _warned:
                _warned.add(self.path)
                cause = f"the score cache {self.path} cannot be used ({one_line(error)})"
                warnings.warn(f"{cause}; going on without it", CacheWarning, stacklevel=3)
            return None

    def _or_error(self, work: Work[T]) -> T | None:
        """The result of `work`, None if there is no file; trouble is a user's error."""
        if not self.path.exists():
            return None
        with _lock:
            try:
                return self._run(work)
            except TROUBLE as error:
                cause = f"the score cache {self.path} cannot be used: {one_line(error)}"
                raise ConfigError(cause) from error

    def _run(self, work: Work[T]) -> T:
        """The result of `work`; an absent or damaged file is replaced while no process uses it."""
        try:
            with database.locked(self.path):
                return self._attempt(work)
        except TROUBLE as error:
            if not database.is_damage(error):
                raise
        with database.locked(self.path, alone=True):
            try:
                database.create_database(self.path)
                return self._attempt(work)  # another process may have replaced the file meanwhile
            except TROUBLE as error:
                if not database.is_damage(error):
                    raise
                aside = database.set_aside(self.path)
                damage = f"the score cache {self.path} is damaged ({one_line(error)})"
                text = f"{damage}; it was set aside as {aside.name}, and a new one was made"
                warnings.warn(text, CacheWarning, stacklevel=4)
            database.create_database(self.path)
            return self._attempt(work)

    def _attempt(self, work: Work[T]) -> T:
        try:
            return work(self._connected())
        except TROUBLE:
            self._close_connection()
            raise

    def _connected(self) -> sqlite3.Connection:
        """A connection to the file that is there now, which another process may have replaced."""
        if self._connection is not None and not self._is_current():
            self._close_connection()
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
        """Closes the connection under the lock: the last one to close removes the log by name."""
        if self._connection is not None:
            with contextlib.suppress(OSError), database.locked(self.path):
                self._close_connection()
            self._close_connection()

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


COLUMNS: Final = ("reward", "identity", "key", "value", "parts", "created", "last_used")


def _record(row: queries.CacheRow) -> dict[str, Any]:
    """A row of the exported table."""
    times = [None if moment is None else moment.isoformat() for moment in (row.created, row.used)]
    parts = json.dumps(row.score.parts, ensure_ascii=False)
    values = (row.reward, row.identity, row.key.hex(), row.score.value, parts, *times)
    return dict(zip(COLUMNS, values, strict=True))


def _limit(limit_mb: float | None) -> float:
    limit = limit_mb
    if limit is None:
        text = os.environ.get("DDPO_CACHE_LIMIT_MB", "").strip()
        try:
            limit = float(text) if text else DEFAULT_LIMIT_MB
        except ValueError:
            message = f"DDPO_CACHE_LIMIT_MB={text!r} is not a number of megabytes"
            raise ConfigError(message) from None
    if not (limit > 0 and math.isfinite(limit)):
        rule = "the score cache's limit must be a positive number of megabytes"
        raise ConfigError(f"{rule}, got {limit:g}")
    return limit


@functools.cache
def _register_fork() -> None:
    """Closes all connections before a fork, since SQLite's must not enter a child process."""
    if hasattr(os, "register_at_fork"):
        release = _lock.release
        os.register_at_fork(before=_before_fork, after_in_parent=release, after_in_child=release)


def _before_fork() -> None:
    _lock.acquire()
    for cache in list(_caches):
        cache._disconnect()
