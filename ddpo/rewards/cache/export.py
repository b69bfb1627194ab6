"""The score cache as a table file: .parquet, .csv or .jsonl."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any, Final

from ddpo.io.tables import write_records
from ddpo.rewards.cache.queries import CacheRow, rows

__all__ = ["write_cache_table"]

COLUMNS: Final = ("reward", "identity", "key", "value", "parts", "created", "last_used")


def write_cache_table(connection: sqlite3.Connection, path: Path) -> int:
    """Writes one line per score: reward, identity, key (hexadecimal), value, parts (JSON), created, last_used (ISO 8601, UTC).

    Replaces `path` atomically; holds no more than some thousand rows in memory.

    Returns:
        How many scores were written.

    Raises:
        ConfigError: as `write_records`.
    """
    return write_records(map(_record, rows(connection)), COLUMNS, path)


def _record(row: CacheRow) -> dict[str, Any]:
    times = [None if moment is None else moment.isoformat() for moment in (row.created, row.used)]
    parts = json.dumps(row.score.parts, ensure_ascii=False)
    return dict(
        zip(
            COLUMNS,
            (row.reward, row.identity, row.key.hex(), row.score.value, parts, *times),
            strict=True,
        )
    )
