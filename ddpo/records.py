"""Tables that users bring, row by row: `.jsonl`, `.csv` or `.parquet`."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError

__all__ = ["TABLES", "read_records"]

TABLES: Final = (".jsonl", ".csv", ".parquet")
ROWS_AT_ONCE: Final = 64

Record = Mapping[str, Any]


def read_records(path: Path, columns: Collection[str] | None = None) -> Iterator[tuple[str, Record]]:
    """The rows of a table, each with "file:number" for messages. Of a CSV file, values are texts.

    Args:
        path: the table.
        columns: of a Parquet file, which to read; all of them if None.

    Raises:
        ConfigError: no such file, another suffix, or a table that cannot be read (names the row, where there is one).
    """
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise ConfigError(f"{path}: a table must be one of {', '.join(TABLES)}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        yield from _parquet(path, columns) if suffix == ".parquet" else _csv(path) if suffix == ".csv" else _jsonl(path)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error
    except (OSError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _jsonl(path: Path) -> Iterator[tuple[str, Record]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}:{number}", _object(line, f"{path}:{number}")


def _object(line: str, where: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: not JSON ({error.msg})") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{where}: not a JSON object")
    return record


def _csv(path: Path) -> Iterator[tuple[str, Record]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, record in enumerate(csv.DictReader(file), 1):
            yield f"{path}:{number}", record


def _parquet(path: Path, columns: Collection[str] | None) -> Iterator[tuple[str, Record]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            present = [name for name in file.schema_arrow.names if columns is None or name in columns]
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=present):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", record
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())}") from error
