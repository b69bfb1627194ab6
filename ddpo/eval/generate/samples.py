"""The pictures of an evaluation and their scores as rows, and `samples.parquet`, one row per picture and reward, for further study."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.eval.generate.image_store import image_path
from ddpo.eval.generate.rows import Row
from ddpo.eval.generate.scoring import ScoreJournal
from ddpo.io.atomic import atomic_path, storing
from ddpo.rewards.card import RewardCard
from ddpo.types import Prompt

__all__ = ["Sample", "SignedReward", "make_rows", "read_samples", "write_samples"]

COLUMNS: Final = (
    "model",
    "split",
    "prompt_id",
    "prompt",
    "index",
    "image_sha256",
    "image",
    "reward",
    "signature",
    "score",
    "parts",
    "error",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of the evaluation."""

    model: str  # "base", or the name of a tuned model
    split: str
    prompt: Prompt
    index: int
    sha256: str  # of the stored picture; "" where there is none
    error: str | None = None  # why there is none


@dataclass(frozen=True, slots=True)
class SignedReward:
    """A reward of the evaluation, with the lines that fix its scores."""

    card: RewardCard
    signature: str  # for the reader
    identity: str  # for the journal


def make_rows(
    samples: Sequence[Sample], rewards: Sequence[SignedReward], journal: ScoreJournal
) -> tuple[Row, ...]:
    """The rows of all pictures, in order, each with its rewards in order.

    Raises:
        ConfigError: the journal lacks a score.
    """
    rows = []
    for sample in samples:
        for reward in rewards:
            value, parts, error = math.nan, {}, sample.error
            if sample.sha256:
                found = journal.get(reward.identity, reward.card, (sample.sha256, sample.prompt))
                if found is None:
                    raise ConfigError(
                        f"the picture {image_path(sample.sha256)} was not scored by {reward.card.id!r}: run it again"
                    )
                value, parts, error = found.value, dict(found.parts), found.error
            row = Row(
                sample.model,
                sample.split,
                sample.prompt.id,
                sample.prompt.text,
                sample.index,
                sample.sha256,
                image_path(sample.sha256) if sample.sha256 else "",
                reward.card.id,
                reward.signature,
                value,
                parts,
                error,
            )
            rows.append(row)
    return tuple(rows)


def write_samples(path: Path, rows: Sequence[Row], models: Mapping[str, tuple[str, str]]) -> None:
    """Writes the rows atomically. An unscorable picture has a null score.

    Args:
        path: of the Parquet file.
        rows: what to write.
        models: model → its run and checkpoint; "" and "" for models that are not named.

    Raises:
        StorageFailure: the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    origins = [models.get(row.model, ("", "")) for row in rows]
    columns: dict[str, Any] = {
        "run": [run for run, _ in origins],
        "checkpoint": [checkpoint for _, checkpoint in origins],
    }
    columns |= {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    columns["score"] = [None if math.isnan(row.score) else row.score for row in rows]
    columns["parts"] = [_parts_text(row.parts) for row in rows]
    kinds = {name: pa.string() for name in columns} | {"index": pa.int64(), "score": pa.float32()}
    table = pa.table(columns, schema=pa.schema([(name, kinds[name]) for name in columns]))
    with storing(path), atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_samples(path: Path) -> list[Row]:
    """The rows of a file that `write_samples` wrote.

    Raises:
        ConfigError: no such file, not Parquet, or other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        records = pq.read_table(path, columns=list(COLUMNS)).to_pylist()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(
            f"{path} is not a samples.parquet: {str(error).splitlines()[0]}"
        ) from error
    return [_row(record) for record in records]


def _row(record: dict[str, Any]) -> Row:
    parts = {
        name: math.nan if value is None else float(value)
        for name, value in json.loads(record["parts"]).items()
    }
    return Row(
        **{
            **record,
            "score": math.nan if record["score"] is None else record["score"],
            "parts": parts,
        }
    )


def _parts_text(parts: Mapping[str, float]) -> str:
    return json.dumps(
        {name: value if math.isfinite(value) else None for name, value in parts.items()},
        ensure_ascii=False,
    )
