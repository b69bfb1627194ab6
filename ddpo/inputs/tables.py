"""Tables that users bring, row by row: CSV, TSV, JSON, JSON lines and Parquet.

The content decides where it can: a `.jsonl` that is one JSON list and a `.json` that holds an
object a line are read as what they are, and so is a `.csv` whose header is separated by semicolons.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from ddpo.errors import ConfigError, PromptError
from ddpo.inputs.text import numbered_lines, shortened

__all__ = ["TABLES", "Row", "read_entries", "read_table"]

TABLES: Final = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
JSON_LINES: Final = (".jsonl", ".ndjson")
ROWS_AT_ONCE: Final = 64
MAX_FIELD_LINES: Final = 100  # of one text in quotes
DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}
OTHER_DELIMITERS: Final = ",;\t|"
WRAPPERS: Final = frozenset(
    ("annotations", "data", "examples", "images", "items", "prompts", "records", "rows", "samples")
)

Row = Mapping[str, Any]
"""Column names and values; all values of CSV and TSV are texts."""


def read_table(path: Path, columns: Collection[str] | None = None) -> Iterator[tuple[str, Row]]:
    """The rows of a table, each with its place ("file:line", in Parquet "file:row") for messages.

    Args:
        path: table; its suffix, in upper or lower case, is one of `TABLES`.
        columns: Parquet columns to read, in any case; all of them if None.

    Raises:
        ConfigError: missing, of another suffix, or not a table; names the line where there is one.
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
    """Rows as of `read_table`, and in JSON also bare texts, as in the prompt lists of HPSv2.

    Raises:
        ConfigError: as `read_table`.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise ConfigError(f"{path}: a table must be one of {', '.join(TABLES)}")
    if not path.is_file():
        raise ConfigError(f"{path}: {'a folder, not a table' if path.is_dir() else 'no such file'}")
    try:
        if suffix == ".parquet":
            yield from _parquet(path, columns)
        elif suffix in DELIMITERS:
            yield from _delimited(path, DELIMITERS[suffix])
        elif suffix in JSON_LINES:
            yield from _json_lines(path)
        else:
            yield from _json_document(path)
    except PromptError as error:  # from reading the text
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

    A field in quotes is unquoted as in CSV. A field that only begins with a quoted word stays as it
    is: PartiPrompts.tsv of google-research/parti has one ('"G I G G L E" painted in …').
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
    """The fields of a line without their quotes, with further lines where a quoted field goes on.

    Args:
        line: text of the record as far as it is known.
        values: fields of the line with their quotes, for a line that is not quoted as in CSV.
        width: number of columns; 0 before the header.
        lines: what follows.

    Raises:
        ConfigError: a quoted field does not end within 100 lines.
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
    """The lines of a delimited file, which counts those taken; a quoted field spans several."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, 0
        self._lines = numbered_lines(path, newline="")
        self._ahead: list[tuple[int, str]] = []

    def delimiter(self, usual: str) -> str:
        """The delimiter of the first line: the usual one, or the only other that stands there.

        A first line such as "sep=;", which Excel reads, is taken as that and left out.
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
    """The values by column. The nameless first column that pandas writes is its index, left out."""
    if len(values) != len(header):
        hint = (
            "; put texts with a separator into double quotes" if len(values) > len(header) else ""
        )
        raise ConfigError(f"{where}: {len(values)} values for {len(header)} columns{hint}")
    nameless = [
        value for name, value in zip(header[1:], values[1:], strict=True) if not name and value
    ]
    if nameless:
        raise ConfigError(
            f"{where}: the value {shortened(nameless[0])!r} stands in a column without a name"
        )
    return {name: value for name, value in zip(header, values, strict=True) if name}


def _json_lines(path: Path) -> Iterator[tuple[str, Row | str]]:
    """An object a line, never more than one in memory; another JSON text as `_json_document`."""
    lines = ((number, line) for number, line in numbered_lines(path) if not line.isspace())
    first = next(lines, None)
    if first is None:
        return
    if not _is_whole_object(first[1]):
        yield from _json_document(path)
        return
    yield _parsed_line(path, *first)
    for number, line in lines:
        yield _parsed_line(path, number, line)


def _is_whole_object(line: str) -> bool:
    """False for the first line of a list or of an indented object."""
    if not line.lstrip().startswith("{"):
        return False
    try:
        json.JSONDecoder().raw_decode(line.lstrip())
    except json.JSONDecodeError as error:
        return error.pos < len(line.strip())  # a mistake before its end
    except (ValueError, RecursionError):
        return True
    return True


def _parsed_line(path: Path, number: int, line: str) -> tuple[str, Row]:
    where = f"{path}:{number}"
    value = line.strip()
    parsed, end = _decoded(value, 0, path, number)
    if value[end:].strip():
        raise ConfigError(f"{where}: not JSON (text after the end of the object)")
    if not isinstance(parsed, dict):
        raise ConfigError(f"{where}: not a JSON object")
    return where, parsed


def _json_document(path: Path) -> Iterator[tuple[str, Row | str]]:
    """The entries of a JSON text: a list, an object, or one object after the other."""
    text = "".join(line for _, line in numbered_lines(path))
    start = _next(text, 0)
    if start == len(text):
        return
    if text[start] == "[":
        yield from _json_list(text, start, path)
        return
    entries: list[tuple[str, Any]] = []
    place, number = start, 1 + text.count("\n", 0, start)
    while place < len(text):
        value, end = _decoded(text, place, path, number)
        if not isinstance(value, dict):
            raise ConfigError(f"{path}:{number}: not a JSON object")
        entries.append((f"{path}:{number}", value))
        place, number = _advanced(text, place, _next(text, end), number)
    yield from entries if len(entries) > 1 else _object_rows(*entries[0])


def _json_list(text: str, start: int, path: Path) -> Iterator[tuple[str, Row | str]]:
    """The items of the list that begins at `start`, one by one for the sake of their lines."""
    number = 1 + text.count("\n", 0, start)
    place, number = _advanced(text, start, _next(text, start + 1), number)
    while text[place : place + 1] != "]":
        value, end = _decoded(text, place, path, number)
        if not isinstance(value, dict | str):
            raise ConfigError(
                f"{path}:{number}: expected an object or a text, got {shortened(repr(value))}"
            )
        yield f"{path}:{number}", value
        place, number = _advanced(text, place, _next(text, end), number)
        if text[place : place + 1] == ",":
            place, number = _advanced(text, place, _next(text, place + 1), number)
            if text[place : place + 1] == "]":
                raise ConfigError(f"{path}:{number}: not JSON (a comma before the end of the list)")
        elif text[place : place + 1] != "]":
            raise ConfigError(
                f"{path}:{number}: not JSON (a comma or the end of the list is missing)"
            )
    if text[place + 1 :].strip():
        raise ConfigError(f"{path}:{number}: not JSON (text after the end of the list)")


def _next(text: str, place: int) -> int:
    """The place of the first character from `place` on that is no whitespace of JSON."""
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _advanced(text: str, place: int, end: int, number: int) -> tuple[int, int]:
    """The place `end`, and its line's number."""
    return end, number + text.count("\n", place, end)


def _object_rows(where: str, value: dict[str, Any]) -> Iterator[tuple[str, Row]]:
    """The rows of a JSON text that is one object.

    It may be a table under a usual key ("data": [...]), columns of equal length, or a row.
    """
    tables = {key: found for key, found in value.items() if _is_table(found)}
    if tables and set(tables) <= WRAPPERS:
        if len(tables) > 1:
            raise ConfigError(
                f"{where}: several tables ({', '.join(tables)}); keep one of them in the file"
            )
        yield from ((f"{where} ({key})", row) for key, rows in tables.items() for row in rows)
    elif value and all(isinstance(found, list) for found in value.values()):
        yield from _column_rows(where, value)
    elif value and all(isinstance(found, dict) for found in value.values()):
        raise ConfigError(
            f"{where}: an object of objects; a table is a list of objects, one for each row"
        )
    else:
        yield where, value


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _column_rows(where: str, columns: Mapping[str, list[Any]]) -> Iterator[tuple[str, Row]]:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"{where}: columns of different length: {lengths}")
    for place, values in enumerate(zip(*columns.values(), strict=True), 1):
        yield f"{where} (row {place})", dict(zip(columns, values, strict=True))


def _decoded(text: str, place: int, path: Path, number: int) -> tuple[Any, int]:
    """The JSON value at `place` and the place after it; `number` is the line of `place`."""
    try:
        value, end = DECODER.raw_decode(text, place)
    except json.JSONDecodeError as error:
        line = number + text.count("\n", place, error.pos)
        raise ConfigError(f"{path}:{line}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise ConfigError(f"{path}:{number}: JSON that is nested too deeply") from error
    except ValueError as error:  # of the hooks, or a number of thousands of digits
        raise ConfigError(f"{path}:{number}: {shortened(str(error), 100)}") from error
    if "\\u" in text[place:end]:
        _check_escapes(value, f"{path}:{number}")
    return value, end


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"the key {shortened(twice)!r} stands twice in one object")
    return found


def _no_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is not JSON")


def _finite(token: str) -> float:
    if math.isinf(number := float(token)):
        raise ValueError(f"the number {token} is too large")
    return number


DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
)


def _check_escapes(value: Any, where: str) -> None:
    """Refuses NUL characters and halves of surrogate pairs, which only escapes can bring into JSON.

    Raises:
        ConfigError: there is one.
    """
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str):
            bad = next(
                (letter for letter in one if letter == "\0" or "\ud800" <= letter <= "\udfff"), None
            )
            if bad is not None:
                kind = (
                    "a NUL character"
                    if bad == "\0"
                    else "half a surrogate pair, as of an emoji that was cut"
                )
                raise ConfigError(f"{where}: {kind} (\\u{ord(bad):04x})")


def _parquet(path: Path, columns: Collection[str] | None) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = None if columns is None else {name.lower() for name in columns}
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise ConfigError(f"{path}: two columns have the same name: {', '.join(names)}")
            present = [name for name in names if wanted is None or name.lower() in wanted]
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=present):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read as Parquet: {' '.join(str(error).split())}"
        ) from error
