"""The score cache as a table file: .parquet, .csv or .jsonl."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.io.atomic import atomic_path
from ddpo.rewards.cache.queries import CacheRow, rows
from ddpo.rewards.image_files.table import WRITERS, check_table_path

__all__ = ["write_cache_table"]

COLUMNS: Final = ("reward", "identity", "key", "value", "parts", "created", "last_used")


def write_cache_table(connection: sqlite3.Connection, path: Path) -> int:
    """Writes one line per score: reward, identity, key (hexadecimal), value, parts (JSON), created, last_used (ISO 8601, UTC).

    Replaces `path` atomically; holds no more than some thousand rows in memory.

    Returns:
        How many scores were written.

    Raises:
        ConfigError: as `check_table_path`.
    """
    check_table_path(path)
    written = 0

    def records() -> Iterator[dict[str, Any]]:
        nonlocal written
        for row in rows(connection):
            written += 1
            yield _record(row)

    try:
        with atomic_path(path) as temporary:
            WRITERS[path.suffix.lower()](records(), list(COLUMNS), temporary)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    return written


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
