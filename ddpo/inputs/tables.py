"""The rows of users' tables: CSV, TSV, JSON, JSON lines and Parquet.

The content counts more than the suffix: a `.jsonl` may be one JSON list, a `.json` may have one
object per line, and the header of a `.csv` may be separated by semicolons.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError, PromptError
from ddpo.inputs.json_rows import read_json, read_json_lines
from ddpo.inputs.text import numbered_lines
from ddpo.io.tables import unguarded
from ddpo.text import shortened, single_line

__all__ = ["TABLES", "Row", "columns_without_bytes", "parquet_shards", "read_entries", "read_table"]

TABLES: Final = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
JSON_LINES: Final = (".jsonl", ".ndjson")
ROWS_AT_ONCE: Final = 64
MOST_AT_ONCE: Final = 64 * 1024 * 1024  # bytes of the rows of Parquet read together
BUFFER: Final = 1024 * 1024  # bytes of Parquet read ahead per column
MAX_FIELD_LINES: Final = 100  # lines of one quoted text
SHARD: Final = re.compile(r"-\d+-of-\d+\.parquet$")
DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}
OTHER_DELIMITERS: Final = ",;\t|"

OWN: Final = (
    ["file", "prompt", "reward", "status", "score", "error"],
    ["image_a", "image_b", "label", "prompt", "rater", "seconds", "time"],
)
"""First columns of the tables of `ddpo rewards score` and of `ddpo label`.

Their texts are guarded from spreadsheets.
"""

Row = Mapping[str, Any]
"""Column name → value; all values of CSV and TSV are texts."""


def read_table(path: Path, columns: Collection[str] | None = None) -> Iterator[tuple[str, Row]]:
    """The rows of a table, each with its place for messages ("file:line", in Parquet "file:row").

    Args:
        path: Table with a suffix of `TABLES`, in any case, or a folder of Parquet shards as in data
            sets of the Hugging Face hub.
        columns: Parquet columns to read, in any case; None for all.

    Raises:
        ConfigError: The table is missing, has another suffix, or is invalid at a named line.
    """
    for where, entry in read_entries(path, columns):
        if isinstance(entry, str):
            raise ConfigError(
                f"{where}: expected an object of columns, got the text {shortened(entry)!r}"
            )
        yield where, entry


def read_entries(
    path: Path, columns: Collection[str] | None = None
) -> Iterator[tuple[str, Row | str]]:
    """Rows as in `read_table`, and from JSON also bare texts, as in the prompt lists of HPSv2.

    Raises:
        ConfigError: As `read_table`.
    """
    if path.is_dir():
        for shard in parquet_shards(path):
            yield from _parquet(shard, columns)
        return
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise ConfigError(f"{path}: a table must be one of {', '.join(TABLES)}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        if suffix == ".parquet":
            yield from _parquet(path, columns)
        elif suffix in DELIMITERS:
            yield from _delimited(path, DELIMITERS[suffix])
        elif suffix in JSON_LINES:
            yield from read_json_lines(path)
        else:
            yield from read_json(path)
    except PromptError as error:  # the text could not be read
        raise ConfigError(str(error)) from error


def _delimited(path: Path, delimiter: str) -> Iterator[tuple[str, Row]]:
    lines = _Lines(path)
    delimiter = lines.delimiter(delimiter)
    records = _tab_records if delimiter == "\t" else _quoted_records
    header: list[str] | None = None
    for number, values in records(lines, delimiter):
        where = f"{path}:{number}"
        if not any(value.strip() for value in values):
            continue
        if header is None:
            header = _header(values, where)
        else:
            yield where, _fields(header, values, where)


def _quoted_records(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The records of CSV, each with the number of its first line."""
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        start = lines.number + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            place = f"{lines.path}:{start}"
            raise ConfigError(f"{place}: not text separated by {delimiter!r} ({error})") from error
        if values is None:
            return
        yield start, values


def _tab_records(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The records of TSV, each with the number of its first line.

    A field in quotes is unquoted as in CSV. A field that only starts with a quoted word is left
    unchanged: PartiPrompts.tsv of google-research/parti has one ('"G I G G L E" painted in …').
    """
    width = 0
    for line in lines:
        start = lines.number
        values = line.rstrip("\r\n").split("\t")
        if any(value.startswith('"') for value in values):
            values = _unquoted(line, values, width, lines)
        width = width or len(values)
        yield start, values


def _unquoted(line: str, values: list[str], width: int, lines: _Lines) -> list[str]:
    """The fields of a record without their quotes, with the further lines of a quoted field.

    Args:
        line: First line of the record.
        values: Fields of that line with their quotes, the result if it is not quoted as in CSV.
        width: Number of columns; 0 before the header.
        lines: Further lines of the file.

    Raises:
        ConfigError: A quoted field does not end within 100 lines.
    """
    start = lines.number
    while True:
        try:
            text = io.StringIO(line, newline="")
            records = list(csv.reader(text, dialect="excel-tab", strict=True))
        except csv.Error as error:
            if "end of data" not in str(error) or len(values) >= width:
                return values
            more = next(lines, None)
            if more is None or lines.number - start > MAX_FIELD_LINES:
                raise ConfigError(f"{lines.path}:{start}: a quoted text does not end") from error
            line += more
        else:
            return records[0] if len(records) == 1 else values


class _Lines:
    """The lines of a delimited file, with the number of the last line taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self._lines = numbered_lines(path, newline="")
        self._ahead: list[tuple[int, str]] = []

    def delimiter(self, usual: str) -> str:
        """The delimiter of the first line: the usual one, or the only other one present.

        A first line such as "sep=;", a convention of Excel, states the delimiter and is no row.
        """
        self._ahead = [first] if (first := next(self._lines, None)) is not None else []
        text = self._ahead[0][1].rstrip("\r\n") if self._ahead else ""
        if text[:4].lower() == "sep=" and len(text) == 5:
            self.number, _ = self._ahead.pop()
            return text[4]
        others = [other for other in OTHER_DELIMITERS if other != usual and other in text]
        return others[0] if usual not in text and len(others) == 1 else usual

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, line = self._ahead.pop() if self._ahead else next(self._lines)
        return line


def _header(values: Sequence[str], where: str) -> list[str]:
    names = [value.strip() for value in values]
    named = [name for name in names if name]
    twice = next((name for place, name in enumerate(named) if name in named[:place]), None)
    if twice is not None:
        raise ConfigError(f"{where}: the header names the column {twice!r} twice")
    return names


def _fields(header: Sequence[str], values: Sequence[str], where: str) -> Row:
    """The values by column, without pandas' index, the nameless first column."""
    if len(values) != len(header):
        wrong = f"{len(values)} values for {len(header)} columns"
        if len(values) > len(header):
            wrong += "; put texts with a separator into double quotes"
        raise ConfigError(f"{where}: {wrong}")
    if any(header[: len(own)] == own for own in OWN):
        values = [unguarded(value) for value in values]
    pairs = list(zip(header, values, strict=True))
    nameless = [value for name, value in pairs[1:] if not name and value]
    if nameless:
        raise ConfigError(
            f"{where}: the value {shortened(nameless[0])!r} is in a column without a name"
        )
    return {name: value for name, value in pairs if name}


def _parquet(path: Path, columns: Collection[str] | None) -> Iterator[tuple[str, Row]]:
    import pyarrow.parquet as pq

    selected = None if columns is None else {name.lower() for name in columns}
    number = 0
    try:
        with pq.ParquetFile(
            path, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True
        ) as file:
            rows = _rows_at_once(file)
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise ConfigError(f"{path}: two columns have the same name: {', '.join(names)}")
            present = [name for name in names if selected is None or name.lower() in selected]
            for batch in file.iter_batches(batch_size=rows, columns=present):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except ConfigError:
        raise
    except Exception as error:  # pyarrow raises many kinds
        reason = single_line(str(error))
        raise ConfigError(f"{path} cannot be read as Parquet: {reason}") from error


def _rows_at_once(file: Any) -> int:
    """The number of rows of a Parquet file that are read together.

    A dictionary makes many equal values one in the file, so each row of bytes counts as if it had
    all bytes of its row group. pyarrow ends the process on damaged metadata of single columns, so
    those of row groups are used.
    """
    if not any("binary" in str(field.type) for field in file.schema_arrow):
        return ROWS_AT_ONCE
    groups = range(file.metadata.num_row_groups)
    largest = max([1, *(file.metadata.row_group(group).total_byte_size for group in groups)])
    return int(max(1, min(ROWS_AT_ONCE, MOST_AT_ONCE // largest)))


def parquet_shards(folder: Path) -> list[Path]:
    """The Parquet files of a folder, or of its folder "data", by name.

    Raises:
        ConfigError: There are no files, or several splits ("train-00000-of-00002.parquet").
    """
    found = sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))
    if not found:
        raise ConfigError(f"{folder}: a folder without Parquet files, not a table")
    splits = sorted({SHARD.sub("", path.name) for path in found})
    if len(splits) > 1:
        names = shortened(", ".join(splits), 100)
        raise ConfigError(f"{folder} holds several tables ({names}); name one file of them")
    return found


def columns_without_bytes(path: Path) -> list[str] | None:
    """The columns of Parquet files without images and other bytes; None for other formats.

    Raises:
        ConfigError: The file cannot be read.
    """
    if path.is_dir():
        path = parquet_shards(path)[0]
    if path.suffix.lower() != ".parquet":
        return None
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except Exception as error:  # pyarrow raises many kinds
        reason = single_line(str(error))
        raise ConfigError(f"{path} cannot be read as Parquet: {reason}") from error
    return [field.name for field in schema if "binary" not in str(field.type)]
