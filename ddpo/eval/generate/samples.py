"""The images of an evaluation, their scores as rows, and the table `samples.parquet`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.eval.generate.image_store import StoredImage, image_path
from ddpo.eval.generate.scoring import ScoreJournal
from ddpo.io.atomic import atomic_path, storing
from ddpo.io.fields import COUNT, Fields, MapOf, Maybe, Real
from ddpo.io.json_files import JsonError, check_fields, parse_json
from ddpo.rewards.card import RewardCard
from ddpo.text import shortened
from ddpo.types import Prompt

__all__ = [
    "EvalImages",
    "Row",
    "Sample",
    "SignedReward",
    "make_row",
    "make_rows",
    "read_samples",
    "write_samples",
]

REASON: Final = 200  # characters to show of a library's message
PARTS: Final[Fields] = {"parts": MapOf(Maybe(Real()))}
ROW: Final[Fields] = {
    "model": str,
    "split": str,
    "prompt_id": str,
    "prompt": str,
    "index": COUNT,
    "image_sha256": str,
    "image": str,
    "reward": str,
    "signature": str,
    "score": Maybe(float),
    "parts": str,
    "error": Maybe(str),
}
COLUMNS: Final = tuple(ROW)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of the evaluation."""

    model: str  # "base", or the name of a tuned model
    split: str
    prompt: Prompt
    index: int
    sha256: str  # of the stored image; "" where there is none
    error: str | None = None  # why there is none


@dataclass(frozen=True, slots=True)
class EvalImages:
    """The images of all models, sampled or given, with the facts that sampling recorded.

    Attributes:
        compared: images of the comparison, model by model (the base model first), split by split.
        facts: (model, prompt id, index) → facts about an image.
        swapped: (model, id of the prompt of the noise, id of the prompt sampled) → image of the
            swap test.
        choice: images of the base model for best-of-n; they are in no table.
    """

    compared: tuple[Sample, ...]
    facts: Mapping[tuple[str, str, int], Mapping[str, Any]] = field(default_factory=dict)
    swapped: Mapping[tuple[str, str, str], StoredImage] = field(default_factory=dict)
    choice: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True)
class SignedReward:
    """A reward of the evaluation, with the lines that fix its scores."""

    card: RewardCard
    signature: str  # for the reader
    identity: str  # for the journal


@dataclass(frozen=True, slots=True)
class Row:
    """One score of one image; NaN, with a reason in `error`, where there is no score.

    Images of one index share all noise, whatever the model.
    """

    model: str  # "base", or the name of a tuned model
    split: str
    prompt_id: str
    prompt: str
    index: int  # 0-based number of the image among those of its prompt
    image_sha256: str  # of the decoded pixels, uint8 `[height, width, 3]`
    image: str  # file, relative to the output folder
    reward: str
    signature: str
    score: float
    parts: Mapping[str, float] = field(default_factory=dict)  # named sub-scores, if any
    error: str | None = None


def make_row(
    sample: Sample,
    reward: str,
    signature: str,
    score: float,
    parts: Mapping[str, float] | None = None,
    error: str | None = None,
) -> Row:
    """The row of one image and one reward.

    Args:
        sample: image of the row.
        reward: id of the reward.
        signature: signature of the reward.
        score: score of the image; NaN where there is none.
        parts: named sub-scores.
        error: reason for a missing score.
    """
    return Row(
        model=sample.model,
        split=sample.split,
        prompt_id=sample.prompt.id,
        prompt=sample.prompt.text,
        index=sample.index,
        image_sha256=sample.sha256,
        image=image_path(sample.sha256) if sample.sha256 else "",
        reward=reward,
        signature=signature,
        score=score,
        parts=dict(parts or {}),
        error=error,
    )


def make_rows(
    samples: Sequence[Sample], rewards: Sequence[SignedReward], journal: ScoreJournal
) -> tuple[Row, ...]:
    """The rows of all images, in order, each with its rewards in order.

    Raises:
        ConfigError: the journal lacks a score.
    """
    return tuple(_scored_row(sample, reward, journal) for sample in samples for reward in rewards)


def write_samples(path: Path, rows: Sequence[Row], models: Mapping[str, tuple[str, str]]) -> None:
    """Writes the rows atomically; an image without a score has a null score.

    Args:
        path: Parquet file to write.
        rows: rows of the table.
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
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_samples(path: Path) -> list[Row]:
    """The rows of a file that `write_samples` wrote.

    Raises:
        ConfigError: there is no such file, it is not Parquet, or it has other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(COLUMNS), page_checksum_verification=True)
        records = table.to_pylist()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = shortened(str(error), REASON)
        raise ConfigError(f"{path} is not a samples.parquet: {reason}") from error
    return [_read_row(record, path, number) for number, record in enumerate(records, 1)]


def _scored_row(sample: Sample, reward: SignedReward, journal: ScoreJournal) -> Row:
    id = reward.card.id
    if not sample.sha256:
        return make_row(sample, id, reward.signature, math.nan, error=sample.error)
    found = journal.get(reward.identity, reward.card, (sample.sha256, sample.prompt))
    if found is None:
        raise ConfigError(
            f"the image {image_path(sample.sha256)} was not scored by {id!r}: run it again"
        )
    return make_row(sample, id, reward.signature, found.value, found.parts, found.error)


def _read_row(record: dict[str, Any], path: Path, number: int) -> Row:
    try:
        check_fields(record, ROW)
        found = parse_json(record["parts"])
        check_fields({"parts": found}, PARTS)
    except JsonError as error:
        raise ConfigError(f"{path} is damaged: row {number}: {error}") from error
    parts = {name: math.nan if value is None else float(value) for name, value in found.items()}
    score = math.nan if record["score"] is None else record["score"]
    return Row(**{**record, "score": score, "parts": parts})


def _parts_text(parts: Mapping[str, float]) -> str:
    finite = {name: value if math.isfinite(value) else None for name, value in parts.items()}
    return json.dumps(finite, ensure_ascii=False)
