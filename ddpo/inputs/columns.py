"""Column names of prompts, files, indices and metadata in common tables.

Names are compared without regard to case. Sources: `file_name` and `text` are of the `imagefolder`
layout of Hugging Face datasets, `TEXT` of LAION, `Prompt` of PartiPrompts, `Prompts` of DrawBench,
`caption` of Pick-a-Pic and COCO, `image_path` of HPDv2.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, time
from functools import lru_cache
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.inputs.json_rows import parse_json
from ddpo.inputs.tables import Row
from ddpo.text import shortened

__all__ = [
    "FILE",
    "FILE_NAMES",
    "IMAGE",
    "INDEX",
    "METADATA",
    "PROMPT",
    "WEIGHT",
    "column_of",
    "explicit_metadata",
    "metadata_of",
    "text_of",
    "value_of",
]

PROMPT: Final = ("prompt", "prompts", "text", "caption")
FILE: Final = (
    "file_name",
    "filename",
    "file",
    "image",
    "image_path",
    "path",
    "filepath",
    "file_path",
    "image_file",
    "img_path",
    "img",
)
FILE_NAMES: Final = f"{', '.join(FILE[:-1])} or {FILE[-1]}"
"""The names of `FILE` as a list in words, for messages."""
IMAGE: Final = ("image", "img", "jpg", "jpeg", "png", "webp")
"""Columns of encoded images: bytes, or the {bytes, path} of Hugging Face datasets."""
INDEX: Final = ("index", "seed")
METADATA: Final = ("metadata",)
PANDAS_INDEX: Final = "__index_level_0__"  # pandas' name for an index in Parquet
WEIGHT: Final = ("weight",)


def column_of(row: Row, names: Sequence[str], where: str) -> str | None:
    """The row's own spelling of the first of `names` with a value; None if none has a value.

    The order of `names` decides between columns such as "prompt" and "caption".

    Raises:
        ConfigError: One name has several spellings ("prompt", "Prompt"), each with a value.
    """
    spellings = _spellings(tuple(row))
    for name in names:
        filled = [own for own in spellings.get(name, ()) if not _is_missing(row[own])]
        if len(filled) > 1:
            raise ConfigError(
                f"{where}: two columns of one name: {' and '.join(map(repr, filled))}"
            )
        if filled:
            return filled[0]
    return None


def value_of(row: Row, names: Sequence[str], where: str) -> Any:
    """The value of `column_of`, or None."""
    column = column_of(row, names, where)
    return None if column is None else row[column]


def text_of(row: Row, names: Sequence[str], where: str) -> str | None:
    """The text under the first of `names` with a value; None if none has a value.

    Raises:
        ConfigError: The value is no text.
    """
    column = column_of(row, names, where)
    if column is None:
        return None
    value = row[column]
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {column!r} must be a text, got {shortened(repr(value))}")
    return value


def metadata_of(row: Row, used: Collection[str], where: str) -> dict[str, Any]:
    """The metadata of a prompt, plain JSON values that a reward may read.

    They are the object under "metadata" if there is such a column, else all other columns with a
    value. Images and other bytes are left out.

    Args:
        row: Row of a table.
        used: Names of columns with another meaning (prompt, weight, file), in any case.
        where: Place of the row in messages, "file:line".

    Raises:
        ConfigError: "metadata" is no object.
    """
    explicit = explicit_metadata(row, where)
    if explicit is not None:
        return explicit
    taken = {name.lower() for name in (*used, *METADATA, PANDAS_INDEX)}
    others = {name: value for name, value in row.items() if name.strip().lower() not in taken}
    plain = {name: _plain(value) for name, value in others.items() if not _is_missing(value)}
    return {name: value for name, value in plain.items() if value is not None}


def explicit_metadata(row: Row, where: str) -> dict[str, Any] | None:
    """The object under "metadata", perhaps as JSON text; None without such a column.

    Raises:
        ConfigError: The value is no object.
    """
    if not any(name in _spellings(tuple(row)) for name in METADATA):
        return None
    value = value_of(row, METADATA, where)
    if value is None:
        return {}
    if isinstance(value, str):
        value = parse_json(value, f"{where}: metadata")
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: metadata must be an object, got {shortened(repr(value))}")
    return {str(key): _plain(part) for key, part in value.items()}


def _plain(value: Any) -> Any:
    """The value in JSON's types; None for images, other bytes and NaN."""
    if isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, Mapping):
        if set(value) == {"bytes", "path"}:  # an image of Hugging Face datasets
            return None
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _is_missing(value: Any) -> bool:
    """True for an empty cell: null, an empty text, or NaN, pandas' form of null."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


@lru_cache(maxsize=64)
def _spellings(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Lower-case name → its spellings among `names`."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.strip().lower(), []).append(name)
    return found
