"""Table files of scores: .parquet, .csv or .jsonl, written to a temporary name and renamed."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.io.atomic import atomic_path, check_writable
from ddpo.registry import nearest
from ddpo.rewards.image_files.run import ScoreRow

__all__ = ["check_table_path", "write_records", "write_table"]

TEXTS: Final = ("file", "prompt", "reward", "status", "error", "signature")
NUMBERS: Final = ("score", "value")
ROWS_AT_ONCE: Final = 8192

Record = dict[str, Any]


def check_table_path(path: Path) -> None:
    """Makes sure that a table can be written to `path`, before hours are spent on what goes into it.

    Raises:
        ConfigError: another suffix (names the nearest), a folder, or a place that cannot be written.
    """
    if path.suffix.lower() not in WRITERS:
        near = nearest(path.suffix.lower(), WRITERS)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(WRITERS)}"
        raise ConfigError(f"{path}: unknown table format {path.suffix!r}; {hint}")
    check_writable(path)


def write_table(
    rows: Callable[[], Iterable[ScoreRow]], path: Path, signatures: Mapping[str, str]
) -> None:
    """Writes one line per file and reward: file, prompt, reward, status, score, error, every part as `part_NAME`, and the signature.

    Replaces `path` atomically; holds no more than some thousand rows in memory.

    Args:
        rows: gives the rows, anew with each call.
        path: .parquet, .csv or .jsonl.
        signatures: reward id → signature.

    Raises:
        ConfigError: as `check_table_path`.
    """
    parts = list(dict.fromkeys(name for row in rows() for name in row.parts))
    records = (
        {
            "file": row.file,
            "prompt": row.prompt,
            "reward": row.reward,
            "status": row.status,
            "score": row.score,
            "error": row.error,
        }
        | {f"part_{name}": row.parts.get(name) for name in parts}
        | {"signature": signatures[row.reward]}
        for row in rows()
    )
    columns = [*TEXTS[:4], "score", "error", *(f"part_{name}" for name in parts), "signature"]
    write_records(records, columns, path)


def write_records(records: Iterable[Record], columns: Sequence[str], path: Path) -> int:
    """Writes one line per record to a table that replaces `path` atomically.

    Args:
        records: one value or None for each column; consumed once, some thousand at a time.
        columns: names of the columns. Those of `NUMBERS` and parts are float64, others strings.
        path: .parquet, .csv or .jsonl.

    Returns:
        The number of records.

    Raises:
        ConfigError: as `check_table_path`, or the disk is full.
    """
    check_table_path(path)
    written = 0

    def counted() -> Iterator[Record]:
        nonlocal written
        for record in records:
            written += 1
            yield record

    try:
        with atomic_path(path) as temporary:
            WRITERS[path.suffix.lower()](counted(), list(columns), temporary)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    return written


def _write_csv(records: Iterable[Record], columns: list[str], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(records)


def _write_jsonl(records: Iterable[Record], columns: list[str], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _write_parquet(records: Iterable[Record], columns: list[str], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            (name, pa.float64() if name in NUMBERS or name.startswith("part_") else pa.string())
            for name in columns
        ]
    )
    source = iter(records)
    with pq.ParquetWriter(path, schema) as writer:
        while chunk := list(itertools.islice(source, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))


Writer = Callable[[Iterable[Record], list[str], Path], None]
WRITERS: Final[dict[str, Writer]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
}
