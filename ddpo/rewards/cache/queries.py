"""The SQL statements of the score cache, as functions of a connection.

Rows are ordered by their last use. Rows whose checksum fails are removed or left out.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

from ddpo.io.finite import finite
from ddpo.rewards.cache.database import used_bytes
from ddpo.rewards.cache.rows import CachedScore, unpack

__all__ = [
    "COLUMNS",
    "CacheEntry",
    "CacheRow",
    "CacheStats",
    "clear",
    "entries",
    "evict",
    "find",
    "records",
    "rows",
    "store",
    "touch",
]

KEYS_PER_QUERY: Final = 500  # SQLite before 3.32 takes 999
ROWS_PER_EVICTION: Final = 2000  # in one transaction, so that other processes need not wait long
TOUCH_AFTER: Final = 3600  # seconds: a score's last use is recorded at most once an hour
COLUMNS: Final = ("reward", "identity", "key", "value", "parts", "created", "last_used")

BEGIN: Final = "BEGIN IMMEDIATE"  # a read transaction that becomes a write one cannot wait
SCORES: Final = "scores JOIN identities ON identities.id = scores.identity"
FIND: Final = "SELECT key, value, parts, checksum, used, sequence FROM scores"
TOUCH: Final = """
    UPDATE scores SET sequence = (SELECT MAX(sequence) FROM scores) + 1, used = ? WHERE key = ?
"""
EVICT: Final = """
    DELETE FROM scores WHERE sequence IN (SELECT sequence FROM scores ORDER BY sequence LIMIT ?)
"""
CLEAR: Final = """
    DELETE FROM scores
    WHERE ?1 IS NULL OR identity IN (SELECT id FROM identities WHERE reward = ?1)
"""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """The cached scores of one identity of a reward; times in UTC, None where unreadable."""

    reward: str
    identity: str
    scores: int
    oldest: datetime | None  # time at which the first of them was computed
    newest: datetime | None
    least_recent: datetime | None  # earliest last use of a score, to the hour
    most_recent: datetime | None


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Size, limit and contents of a score cache."""

    path: Path
    bytes: int  # of the pages in use
    limit_bytes: int
    entries: tuple[CacheEntry, ...]
    damaged: tuple[Path, ...]  # files that were set aside

    @property
    def scores(self) -> int:
        """Number of scores."""
        return sum(entry.scores for entry in self.entries)


@dataclass(frozen=True, slots=True)
class CacheRow:
    """One cached score with its key and its times, which are as in `CacheEntry`."""

    reward: str
    identity: str
    key: bytes
    score: CachedScore
    created: datetime | None
    used: datetime | None


def find(db: Connection, keys: Iterable[bytes]) -> tuple[dict[bytes, CachedScore], list[bytes]]:
    """The cached scores by key, and the keys whose last use is due to be recorded."""
    found: dict[bytes, CachedScore] = {}
    stale: list[bytes] = []
    before = time.time() - TOUCH_AFTER
    wanted = iter(keys)
    while some := list(itertools.islice(wanted, KEYS_PER_QUERY)):
        marks = ",".join("?" * len(some))
        found_rows = db.execute(f"{FIND} WHERE key IN ({marks})", some).fetchall()
        for key, *packed, used, sequence in found_rows:
            score = unpack(key, *packed)
            if score is None:
                db.execute("DELETE FROM scores WHERE sequence = ?", (sequence,))
                continue
            found[key] = score
            if not isinstance(used, int) or used < before:
                stale.append(key)
    return found, stale


def store(db: Connection, reward: str, identity: str, packed: Iterable[tuple[bytes, ...]]) -> None:
    """Writes the scores of one reward in one transaction.

    Args:
        db: connection to the cache.
        reward: id of the reward.
        identity: identity of the reward.
        packed: rows of key, value, parts and checksum.
    """
    now = int(time.time())
    name = identity.encode("utf-8", "surrogatepass")
    insert = "INSERT OR IGNORE INTO identities(reward, identity) VALUES (?, ?)"
    columns = "key, value, parts, checksum, identity, created, used"
    replace = f"INSERT OR REPLACE INTO scores({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)"
    with db:
        db.execute(BEGIN)
        db.execute(insert, (reward.encode(), name))
        (number,) = db.execute("SELECT id FROM identities WHERE identity = ?", (name,)).fetchone()
        db.executemany(replace, [(*row, number, now, now) for row in packed])


def touch(db: Connection, keys: Iterable[bytes]) -> None:
    """Makes the scores of `keys` the most recently used ones."""
    now = int(time.time())
    with db:
        db.execute(BEGIN)
        db.executemany(TOUCH, [(now, key) for key in keys])


def evict(db: Connection, target_bytes: int) -> None:
    """Removes the least recently used scores until the others take at most `target_bytes`."""
    (total,) = db.execute("SELECT COUNT(*) FROM scores").fetchone()
    at_once = min(max(total // 50, 1), ROWS_PER_EVICTION)
    removed = 1
    while removed and used_bytes(db) > target_bytes:
        removed = db.execute(EVICT, (at_once,)).rowcount
    db.execute("PRAGMA incremental_vacuum").fetchall()


def clear(db: Connection, reward: str | None) -> int:
    """Removes the scores of a reward, or all of them if None, and returns their number."""
    with db:
        db.execute(BEGIN)
        removed = db.execute(CLEAR, (None if reward is None else reward.encode(),)).rowcount
        db.execute("DELETE FROM identities WHERE id NOT IN (SELECT identity FROM scores)")
    db.execute("PRAGMA incremental_vacuum").fetchall()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return removed


def entries(db: Connection) -> list[CacheEntry]:
    """The number of scores by reward and identity, in the order of reward and latest use."""
    columns = "COUNT(*), MIN(created), MAX(created), MIN(used), MAX(used)"
    found = db.execute(
        f"SELECT reward, identities.identity, {columns} FROM {SCORES}"
        " GROUP BY identities.id ORDER BY reward, MAX(used) DESC"
    )
    return [
        CacheEntry(_text(reward), _text(identity), count, *map(_moment, times))
        for reward, identity, count, *times in found.fetchall()
    ]


def rows(db: Connection) -> Iterator[CacheRow]:
    """All intact scores at one moment, the least recently used first."""
    columns = "reward, identities.identity, key, value, parts, checksum, created, used"
    found = db.execute(f"SELECT {columns} FROM {SCORES} ORDER BY sequence")
    for reward, identity, key, *packed, created, used in found:
        score = unpack(key, *packed)
        if score is not None:
            times = (_moment(created), _moment(used))
            yield CacheRow(_text(reward), _text(identity), key, score, *times)


def records(db: Connection) -> Iterator[dict[str, object]]:
    """The rows of the exported table, with times as ISO 8601 in UTC and parts as JSON."""
    for row in rows(db):
        times = [moment and moment.isoformat() for moment in (row.created, row.used)]
        parts = json.dumps(finite(dict(row.score.parts)), ensure_ascii=False, allow_nan=False)
        values = (row.reward, row.identity, row.key.hex(), row.score.value, parts, *times)
        yield dict(zip(COLUMNS, values, strict=True))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _moment(seconds: Any) -> datetime | None:
    """The UTC time of a column without checksum; None if it is unreadable."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
