"""Table files of records: .parquet, .csv or .jsonl, written atomically and row by row."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError, DdpoError, StorageFailure, nearest
from ddpo.io.atomic import atomic_path, check_writable
from ddpo.io.finite import finite

__all__ = ["Record", "check_table_path", "unguarded", "write_records"]

NUMBERS: Final = ("score", "value", "seconds")
"""Columns of float64, beside those that begin with `part_`; all others are strings."""
ROWS_AT_ONCE: Final = 8192

FORMULA: Final = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")  # of full width, too
"""Start of a text that spreadsheets may run as a formula, perhaps guarded before."""

Record = dict[str, Any]


def check_table_path(path: Path) -> None:
    """Raises unless a table can be written to `path`; call it before hours of work.

    Raises:
        ConfigError: The suffix is unknown (the message names the nearest), or `path` is a folder
            or cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        near = nearest(suffix, WRITERS)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(WRITERS)}"
        raise ConfigError(f"{path}: unknown table format {path.suffix!r}; {hint}")
    check_writable(path)


def write_records(
    records: Iterable[Record], columns: Sequence[str], path: Path, expected: int | None = None
) -> int:
    """Writes one line per record to a table that replaces `path` atomically.

    Args:
        records: Records with a value or None for each column; at most some thousand are in memory.
        columns: Names of the columns; see `NUMBERS` for their types.
        path: Path of a .parquet, .csv or .jsonl file.
        expected: Number of records that there must be; None for any number.

    Returns:
        The number of records.

    Raises:
        ConfigError: As `check_table_path`, or the disk is full.
        StorageFailure: The number of records is not the expected one; an earlier table stays.
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
            WRITERS[path.suffix.lower()](counted(), columns, temporary)
            if expected is not None and written != expected:
                raise StorageFailure(
                    f"{path} was not written: there are {written} rows for {expected} scores, "
                    "so another program changed the journal beside it; repeat the command"
                )
    except DdpoError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    return written


def _write_csv(records: Iterable[Record], columns: Sequence[str], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([_csv_cell(record.get(name)) for name in columns] for record in records)


def _csv_cell(value: Any) -> Any:
    """A value whose text no spreadsheet takes for a formula; `unguarded` restores it.

    Source: OWASP, CSV Injection.
    """
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def unguarded(cell: str) -> str:
    """A text of a CSV table of `write_records` as it was before it was written."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell[1:]) else cell


def _write_jsonl(records: Iterable[Record], columns: Sequence[str], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(finite(record), ensure_ascii=False, allow_nan=False) + "\n")


def _write_parquet(records: Iterable[Record], columns: Sequence[str], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = {name for name in columns if name in NUMBERS or name.startswith("part_")}
    types = [(name, pa.float64() if name in numbers else pa.string()) for name in columns]
    schema = pa.schema(types)
    source = iter(records)
    with pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        while chunk := list(itertools.islice(source, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))


Writer = Callable[[Iterable[Record], Sequence[str], Path], None]
WRITERS: Final[dict[str, Writer]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
}
