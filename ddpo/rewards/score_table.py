"""Table files of scores: .parquet, .csv or .jsonl, written to a temporary name and renamed. And the prompt file that goes with images."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError, PromptError
from ddpo.files import atomic_path
from ddpo.prompts import read_text
from ddpo.registry import nearest
from ddpo.rewards.scored_files import ScoreRow
from ddpo.types import Prompt

__all__ = ["check_table_path", "read_image_prompts", "write_table"]


def check_table_path(path: Path) -> None:
    """Makes sure that a table can be written to `path`, before hours are spent on what goes into it.

    Raises:
        ConfigError: another suffix (names the nearest), a folder, or a place that cannot be written.
    """
    if path.suffix.lower() not in WRITERS:
        near = nearest(path.suffix.lower(), WRITERS)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(WRITERS)}"
        raise ConfigError(f"{path}: unknown table format {path.suffix!r}; {hint}")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, not a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def write_table(rows: Sequence[ScoreRow], path: Path, signature: str) -> None:
    """Writes one line per file: file, prompt, score, error, every part as `part_NAME`, and the signature. Replaces `path` atomically.

    Raises:
        ConfigError: as `check_table_path`.
    """
    check_table_path(path)
    parts = list(dict.fromkeys(name for row in rows for name in row.parts))
    records = [
        {"file": row.file, "prompt": row.prompt, "score": row.score, "error": row.error}
        | {f"part_{name}": row.parts.get(name) for name in parts}
        | {"signature": signature}
        for row in rows
    ]
    with atomic_path(path) as temporary:
        WRITERS[path.suffix.lower()](records, temporary)


def _write_csv(records: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]) if records else ["file", "prompt", "score", "error", "signature"])
        writer.writeheader()
        writer.writerows(records)


def _write_jsonl(records: list[dict[str, Any]], path: Path) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def _write_parquet(records: list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(records[0]) if records else ["file", "prompt", "score", "error", "signature"]
    texts = ("file", "prompt", "error", "signature")
    schema = pa.schema([(name, pa.string() if name in texts else pa.float64()) for name in names])
    pq.write_table(pa.Table.from_pylist(records, schema=schema), path)


Writer = Callable[[list[dict[str, Any]], Path], None]
WRITERS: Final[dict[str, Writer]] = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}


def read_image_prompts(path: Path, images: Sequence[Path]) -> list[Prompt]:
    """The prompt of each image: a `.txt` file with one line per image in their order, or `.jsonl` objects with "file" and "prompt".

    In `.jsonl`, "file" is the image's path or its name; "metadata" is optional.

    Raises:
        PromptError: missing, not UTF-8, malformed, or an image without a prompt.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if path.suffix.lower() == ".jsonl":
        return _by_file(path, lines, images)
    if len(lines) != len(images):
        raise PromptError(f"{path} has {len(lines)} prompts for {len(images)} images; one line per image is needed, in their order")
    return [Prompt(line.strip()) for line in lines]


def _by_file(path: Path, lines: Sequence[str], images: Sequence[Path]) -> list[Prompt]:
    table: dict[str, Prompt] = {}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            table[str(record["file"])] = Prompt(str(record["prompt"]), dict(record.get("metadata", {})))
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise PromptError(f'{path}:{number}: expected an object with "file" and "prompt"') from error
    found = [table.get(str(image), table.get(image.name)) for image in images]
    for image, prompt in zip(images, found, strict=True):
        if prompt is None:
            raise PromptError(f"{path} has no prompt for {image}")
    return [prompt for prompt in found if prompt is not None]
