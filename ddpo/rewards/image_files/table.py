"""The table of scores: one line per image file and reward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from ddpo.io.tables import Record, check_table_path, write_records
from ddpo.rewards.image_files.run import ScoreRow

__all__ = ["check_table_path", "write_table"]

FIRST_COLUMNS: Final = ("file", "prompt", "reward", "status", "score", "error")


def write_table(
    rows: Callable[[], Iterable[ScoreRow]],
    path: Path,
    signatures: Mapping[str, str],
    expected: int | None = None,
) -> None:
    """Writes one line per file and reward, and replaces `path` atomically.

    The columns are `FIRST_COLUMNS`, each part as `part_NAME`, and the signature. At most some
    thousand rows are in memory.

    Args:
        rows: Function that returns all rows, called twice.
        path: Path of a .parquet, .csv or .jsonl file.
        signatures: Signature of each reward, by id.
        expected: Number of rows that there must be; None for any number.

    Raises:
        ConfigError, StorageFailure: As `write_records`.
    """
    parts = list(dict.fromkeys(name for row in rows() for name in row.parts))

    def records() -> Iterator[Record]:
        for row in rows():
            record = {name: getattr(row, name) for name in FIRST_COLUMNS}
            record |= {f"part_{name}": row.parts.get(name) for name in parts}
            yield record | {"signature": signatures[row.reward]}

    columns = [*FIRST_COLUMNS, *(f"part_{name}" for name in parts), "signature"]
    write_records(records(), columns, path, expected)
