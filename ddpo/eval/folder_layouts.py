"""How others lay out folders of pictures: which prompt each picture was made from, and which of that prompt's pictures it is.

table       `prompts.jsonl`, `metadata.jsonl` or another table in the folder names the file, the prompt and perhaps the index or seed
captions    each picture has a `.txt` or `.caption` file of its name beside it, as for kohya's scripts
subfolders  one folder per prompt, called by the prompt's id or its words: `a_red_fox/0.png`
numbers     `00012_3.png`: the number of the prompt in the list, and which picture of it

The first that fits is taken, in this order.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError, PromptError
from ddpo.inputs.tables import read_table
from ddpo.inputs.text import read_text
from ddpo.types import Prompt

__all__ = ["Placed", "place_by_captions", "place_by_numbers", "place_by_subfolders", "place_by_table"]

FILE_NAMES: Final = ("file_name", "file", "image", "image_path", "path")
PROMPT_NAMES: Final = ("prompt", "text", "caption")
INDEX_NAMES: Final = ("index", "seed")
TABLES: Final = ("prompts.jsonl", "metadata.jsonl", "metadata.csv", "prompts.json", "metadata.json")
CAPTIONS: Final = (".txt", ".caption")
NUMBERED: Final = re.compile(r"(\d+)\D(?:.*\D)?(\d+)")


@dataclass(frozen=True, slots=True)
class Placed:
    """A picture file and where it belongs."""

    path: Path
    text: str  # of the prompt
    index: int | None  # which picture of the prompt; None where the layout does not say


def place_by_table(folder: Path, files: Sequence[Path]) -> list[Placed] | None:
    """By a table in the folder; None if there is none.

    Raises:
        ConfigError: a table that cannot be read, or a row of it without file or prompt.
    """
    for name in (*TABLES, *sorted(path.name for path in folder.glob("*.json*") if path.name not in TABLES)):
        if (folder / name).is_file() and (rows := _rows(folder / name, name in TABLES)):
            return [_placed(where, row, folder) for where, row in rows]
    return None


def _rows(table: Path, named: bool) -> list[tuple[str, Mapping[str, Any]]]:
    """The rows of a table; none of a file that has a name of its own and is no such table."""
    try:
        rows = [*_json_rows(table)] if table.suffix == ".json" else [*read_table(table)]
    except ConfigError:
        if named:
            raise
        return []
    fits = bool(rows) and _value(rows[0][1], FILE_NAMES) is not None and _value(rows[0][1], PROMPT_NAMES) is not None
    return rows if fits or named else []


def _json_rows(table: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A JSON list of objects, or one object per line."""
    text = read_text(table)
    try:
        try:
            values = json.loads(text)
        except ValueError:
            values = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise ConfigError(f"{table}: not JSON ({error})") from error
    for number, value in enumerate(values if isinstance(values, list) else [values], 1):
        if not isinstance(value, dict):
            raise ConfigError(f"{table}:{number}: not a JSON object")
        yield f"{table}:{number}", value


def _placed(where: str, row: Mapping[str, Any], folder: Path) -> Placed:
    file, text, index = _value(row, FILE_NAMES), _value(row, PROMPT_NAMES), _value(row, INDEX_NAMES)
    if file is None or text is None:
        raise ConfigError(f'{where}: expected "file_name" (the picture) and "prompt" (its text), and perhaps "index" or "seed"')
    try:
        return Placed(folder / str(file), str(text), None if index is None else int(index))
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: the index or seed must be a whole number, got {index!r}") from None


def _value(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first of `names` that the row has a value for."""
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def place_by_captions(folder: Path, files: Sequence[Path]) -> list[Placed] | None:
    """By a text file beside each picture; None if no picture has one.

    Raises:
        PromptError: one has none, or it cannot be read.
    """
    beside = {path: next((found for end in CAPTIONS if (found := path.with_suffix(end)).is_file()), None) for path in files}
    if not any(beside.values()):
        return None
    bare = next((path for path, caption in beside.items() if caption is None), None)
    if bare is not None:
        raise PromptError(f"{bare} has no caption beside it ({bare.stem}.txt), while other pictures of {folder} have one")
    return [Placed(path, " ".join(read_text(caption).split()), None) for path, caption in beside.items() if caption is not None]


def place_by_subfolders(folder: Path, files: Sequence[Path], prompts: Sequence[Prompt]) -> list[Placed] | None:
    """By folders that are called by prompts of the lists; None if none is. Other folders are passed over.

    Raises:
        ConfigError: the name of a folder stands for several prompts.
    """
    slugs = Counter(_slug(prompt.text) for prompt in prompts)
    texts = {_slug(prompt.text): prompt.text for prompt in prompts} | {prompt.id: prompt.text for prompt in prompts}
    found: dict[str, list[Path]] = {}
    for path in files:
        if path.parent == folder:
            continue
        name = path.relative_to(folder).parts[0]
        key = name if name in texts else _slug(name)
        if slugs[key] > 1:
            raise ConfigError(f"the name of the folder {folder / name} stands for {slugs[key]} prompts: call it by the prompt's id")
        if key in texts:
            found.setdefault(texts[key], []).append(path)
    placed = [one for text, paths in found.items() for one in _numbered(text, paths)]
    return placed or None


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "_", text.casefold()).strip("_")


def _numbered(text: str, paths: Sequence[Path]) -> Iterator[Placed]:
    """With the numbers at the end of the names as indices, if all names end in different numbers."""
    ends = [re.search(r"(\d+)$", path.stem) for path in paths]
    numbers = [int(end[1]) for end in ends if end is not None]
    known = len(set(numbers)) == len(paths)
    yield from (Placed(path, text, numbers[place] if known else None) for place, path in enumerate(paths))


def place_by_numbers(folder: Path, files: Sequence[Path], prompts: Sequence[Prompt]) -> list[Placed] | None:
    """By names such as `00012_3.png`; None if a picture has another name. Prompts may be counted from 0 or from 1.

    Raises:
        ConfigError: it cannot be told from where they are counted, or there are not so many prompts.
    """
    found = [NUMBERED.fullmatch(path.stem) for path in files]
    pairs = [(int(match[1]), int(match[2])) for match in found if match is not None]
    if len(pairs) < len(files) or any(path.parent != folder for path in files):
        return None
    low, high = min(number for number, _ in pairs), max(number for number, _ in pairs)
    if (low == 0 and high >= len(prompts)) or high > len(prompts):
        raise ConfigError(f"{folder}: the pictures are of prompts {low} to {high} by their names, but there are {len(prompts)} prompts")
    if low > 0 and high < len(prompts):
        raise ConfigError(
            f"{folder}: the names of the pictures go from prompt {low} to {high} of {len(prompts)}: it cannot be told whether they count "
            "from 0 or from 1; give the prompts in a metadata.jsonl"
        )
    first = 0 if low == 0 else 1
    return [Placed(path, prompts[number - first].text, index) for path, (number, index) in zip(files, pairs, strict=True)]
