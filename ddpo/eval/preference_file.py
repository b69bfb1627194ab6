"""Human choices between two pictures, read from a table, a row at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.inputs.tables import read_table
from ddpo.registry import nearest
from ddpo.types import Prompt

__all__ = ["FORMAT", "Choice", "PairRow", "read_preferences"]

IMAGE_A: Final = ("image_a", "image_0", "jpg_0")
IMAGE_B: Final = ("image_b", "image_1", "jpg_1")
PROMPT: Final = ("prompt", "caption", "text")
CHOICE: Final = ("label", "preference", "choice")
SHARE_OF_A: Final = ("label_a", "label_0")
"""Names under which data sets in use hold them; caption, jpg_0, jpg_1 and label_0 are those of Pick-a-Pic."""

FORMAT: Final = (
    "each row needs image_a, image_b (or image_0, image_1; jpg_0, jpg_1), label (a, b or tie; or the number of the preferred image, "
    "0, 1, or 0.5 for a tie), and prompt (or caption)"
)
WORDS: Final = {
    "a": 1.0,
    "image_a": 1.0,
    "b": 0.0,
    "image_b": 0.0,
    "tie": 0.5,
    "image_0": 1.0,
    "image_1": 0.0,
    "0": 1.0,
    "1": 0.0,
    "0.5": 0.5,
}

Choice = float
"""1: the first image was preferred; 0: the second; 0.5: a tie."""


@dataclass(frozen=True, slots=True)
class PairRow:
    """One row of a preference file. An image is a path, or the bytes of an encoded picture."""

    where: str  # "file:row", from 1
    image_a: Path | bytes
    image_b: Path | bytes
    choice: Choice
    prompt: Prompt | None


def read_preferences(path: Path, root: Path | None = None) -> Iterator[PairRow]:
    """The rows of a `.jsonl` or `.parquet` file.

    Args:
        path: the file. Images are paths; in Parquet also bytes, or the struct of bytes and path of Hugging Face image columns.
        root: the folder that image paths are relative to; that of the file if None.

    Raises:
        ConfigError: no such file, another suffix, or a row that cannot be understood (names the row).
    """
    folder = path.parent if root is None else root
    for where, record in read_table(path, (*IMAGE_A, *IMAGE_B, *PROMPT, *CHOICE, *SHARE_OF_A, "metadata")):
        yield PairRow(
            where,
            _image(record, IMAGE_A, folder, where),
            _image(record, IMAGE_B, folder, where),
            _choice(record, where),
            _prompt(record, where),
        )


def _field(record: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _image(record: Mapping[str, Any], names: tuple[str, ...], folder: Path, where: str) -> Path | bytes:
    found = _field(record, names)
    if isinstance(found, Mapping):
        found = found.get("bytes") or found.get("path")
    if isinstance(found, bytes) and found:
        return found
    if isinstance(found, str) and found:
        return folder / found
    near = nearest(names[0], [name for name in record if name not in (*IMAGE_A, *IMAGE_B)]) if found is None else None
    hint = f"; did you mean its {near!r}?" if near else f"; {FORMAT}"
    raise ConfigError(f"{where}: no {names[0]}{hint}")


def _choice(record: Mapping[str, Any], where: str) -> Choice:
    share = _field(record, SHARE_OF_A)
    if isinstance(share, int | float) and share in (0, 0.5, 1):
        return float(share)
    found = _field(record, CHOICE)
    word = f"{found:g}" if isinstance(found, int | float) and found is not True and found is not False else str(found).strip().lower()
    if found is None or word not in WORDS:
        given = "no label" if found is None and share is None else f"the label {found if share is None else share!r} is not one"
        raise ConfigError(f"{where}: {given}; {FORMAT}")
    return WORDS[word]


def _prompt(record: Mapping[str, Any], where: str) -> Prompt | None:
    text = _field(record, PROMPT)
    if text is None:
        return None
    metadata = record.get("metadata")
    if not isinstance(text, str) or not isinstance(metadata, Mapping | None):
        raise ConfigError(f"{where}: prompt must be a text and metadata, if any, an object")
    return Prompt(text, dict(metadata or {}))
