"""The statements of the score cache, as functions of a connection. Rows are kept in the order of their last use."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ddpo.registry import unknown_name
from ddpo.rewards.cache.database import transaction, used_bytes
from ddpo.rewards.cache.rows import CachedScore, unpack

__all__ = [
    "CacheEntry",
    "CacheRow",
    "CacheStats",
    "clear",
    "entries",
    "evict",
    "find",
    "rows",
    "store",
    "touch",
]

KEYS_PER_QUERY: Final = 500  # SQLite before 3.32 takes 999
ROWS_PER_EVICTION: Final = 2000  # in one transaction, so that other processes need not wait long
TOUCH_AFTER: Final = 3600  # seconds: a score's last use is written down at most once an hour

FIND: Final = "SELECT key, sequence, value, parts, checksum, used FROM scores WHERE key IN ({})"
STORE: Final = "INSERT OR REPLACE INTO scores(key, value, parts, checksum, identity, created, used) VALUES (?, ?, ?, ?, ?, ?, ?)"
TOUCH: Final = (
    "UPDATE scores SET sequence = (SELECT MAX(sequence) FROM scores) + 1, used = ? WHERE key = ?"
)
EVICT: Final = (
    "DELETE FROM scores WHERE sequence IN (SELECT sequence FROM scores ORDER BY sequence LIMIT ?)"
)
ENTRIES: Final = """
    SELECT reward, identities.identity, COUNT(*), MIN(created), MAX(created), MIN(used), MAX(used)
    FROM scores JOIN identities ON identities.id = scores.identity GROUP BY identities.id ORDER BY reward, MAX(used) DESC
"""
ROWS: Final = """
    SELECT reward, identities.identity, key, value, parts, checksum, created, used
    FROM scores JOIN identities ON identities.id = scores.identity ORDER BY sequence
"""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """What there is of one reward in one identity. Times in UTC, None where unreadable; the last use is known to the hour."""

    reward: str
    identity: str
    scores: int
    oldest: datetime | None  # when the first of them was computed
    newest: datetime | None
    least_recent: datetime | None  # when the one that was not used for longest was used
    most_recent: datetime | None


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The state of a cache."""

    path: Path
    bytes: int  # of the pages in use
    limit_bytes: int
    entries: tuple[CacheEntry, ...]
    damaged: tuple[Path, ...]  # files that were set aside

    @property
    def scores(self) -> int:
        """How many scores there are."""
        return sum(entry.scores for entry in self.entries)


@dataclass(frozen=True, slots=True)
class CacheRow:
    """One score with all that is known of it. Times as in `CacheEntry`."""

    reward: str
    identity: str
    key: bytes
    score: CachedScore
    created: datetime | None
    used: datetime | None


def find(
    connection: sqlite3.Connection, keys: Sequence[bytes]
) -> tuple[dict[bytes, CachedScore], list[bytes]]:
    """The scores that are there, and those of their keys whose use is to be written down. Rows that fail their checksum are removed."""
    found: dict[bytes, CachedScore] = {}
    stale: list[bytes] = []
    broken: list[tuple[int]] = []
    before = time.time() - TOUCH_AFTER
    for start in range(0, len(keys), KEYS_PER_QUERY):
        some = keys[start : start + KEYS_PER_QUERY]
        for key, sequence, value, parts, checksum, used in connection.execute(
            FIND.format(",".join("?" * len(some))), some
        ).fetchall():
            score = unpack(key, value, parts, checksum)
            if score is None:
                broken.append((sequence,))
                continue
            found[key] = score
            if not isinstance(used, int) or used < before:
                stale.append(key)
    if broken:
        with transaction(connection):
            connection.executemany("DELETE FROM scores WHERE sequence = ?", broken)
    return found, stale


def store(
    connection: sqlite3.Connection,
    reward: str,
    identity: str,
    packed: Collection[tuple[bytes, bytes, bytes, bytes]],
) -> int:
    """Writes (key, value, parts, checksum) of one reward in one transaction; returns how many."""
    now = int(time.time())
    with transaction(connection):
        name = identity.encode("utf-8", "surrogatepass")
        connection.execute(
            "INSERT OR IGNORE INTO identities(reward, identity) VALUES (?, ?)",
            (reward.encode(), name),
        )
        number = connection.execute(
            "SELECT id FROM identities WHERE identity = ?", (name,)
        ).fetchone()[0]
        connection.executemany(STORE, [(*row, number, now, now) for row in packed])
    return len(packed)


def touch(connection: sqlite3.Connection, keys: Iterable[bytes]) -> None:
    """Makes the scores of `keys` the most recently used ones."""
    now = int(time.time())
    with transaction(connection):
        connection.executemany(TOUCH, [(now, key) for key in keys])


def evict(connection: sqlite3.Connection, target_bytes: int) -> None:
    """Removes the scores that were not used for longest until the rest takes `target_bytes`, and gives the pages back."""
    total = connection.execute("SELECT COUNT(*) FROM scores").fetchone()[0]
    at_once = min(max(total // 50, 1), ROWS_PER_EVICTION)
    removed = 1
    while removed and used_bytes(connection) > target_bytes:
        with transaction(connection):
            removed = connection.execute(EVICT, (at_once,)).rowcount
    connection.execute("PRAGMA incremental_vacuum").fetchall()


def entries(connection: sqlite3.Connection) -> list[CacheEntry]:
    """The scores counted by reward and identity: by reward, the latest used identity first."""
    found = connection.execute(ENTRIES).fetchall()
    return [
        CacheEntry(_text(reward), _text(identity), count, *map(_moment, times))
        for reward, identity, count, *times in found
    ]


def clear(connection: sqlite3.Connection, reward: str | None) -> int:
    """Removes the scores of a reward, or all of them; returns how many.

    Raises:
        UnknownNameError: there is no score of that reward; names the nearest that there is.
    """
    known = {entry.reward for entry in entries(connection)}
    if reward is not None and reward not in known:
        raise unknown_name("reward in the cache", reward, known)
    with transaction(connection):
        if reward is None:
            removed = connection.execute("DELETE FROM scores").rowcount
        else:
            mine = "SELECT id FROM identities WHERE reward = ?"
            removed = connection.execute(
                f"DELETE FROM scores WHERE identity IN ({mine})", (reward.encode(),)
            ).rowcount
        connection.execute(
            "DELETE FROM identities WHERE id NOT IN (SELECT DISTINCT identity FROM scores)"
        )
    connection.execute("PRAGMA incremental_vacuum").fetchall()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return removed


def rows(connection: sqlite3.Connection) -> Iterator[CacheRow]:
    """All sound scores, the least recently used first, as they are at one moment."""
    for reward, identity, key, value, parts, checksum, created, used in connection.execute(ROWS):
        score = unpack(key, value, parts, checksum)
        if score is not None:
            yield CacheRow(
                _text(reward), _text(identity), key, score, _moment(created), _moment(used)
            )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _moment(seconds: Any) -> datetime | None:
    """The time of a column that no checksum guards."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
