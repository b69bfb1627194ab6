"""The report as data: what `report.json` holds and every rendering is made from.

A number that does not exist (an interval of one prompt, a share of nothing) is NaN here and `null` in the file.
"""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.eval.protocol import Evaluation
from ddpo.eval.tables import Gain, Pair, Transfer, gain_table, transfer_table
from ddpo.files import write_json

__all__ = ["CurvePoint", "LeakFacts", "Report", "RewardFacts", "SplitFacts", "build_report", "load_report", "read_curve", "save_report"]

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class RewardFacts:
    """A reward that pictures were scored with: its card, and the signature that fixes its scores."""

    id: str
    signature: str
    card: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LeakFacts:
    """A held-out prompt that a training prompt gives away."""

    heldout: str
    train: str
    reason: str


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """A prompt list: what it is for, where it came from, and what of it leaked into training."""

    name: str
    role: str
    source: str
    prompts: int
    leaks: tuple[LeakFacts, ...]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One iteration of training."""

    iteration: int
    queries: int  # reward queries since the start
    mean: float
    se: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a reader needs to judge a checkpoint, but for the pictures and their single scores."""

    schema_version: int
    ddpo_version: str
    model: str
    checkpoint: str
    kind: str  # "lora" or "full"
    iteration: int
    trained_on: str  # the reward of the run; "" if unknown
    seeds: int  # pictures per prompt and policy
    seed: int
    sampler: Mapping[str, Any]
    rewards: tuple[RewardFacts, ...]
    splits: tuple[SplitFacts, ...]
    gains: tuple[Gain, ...]
    transfers: tuple[Transfer, ...]
    curve: tuple[CurvePoint, ...]
    manifest: Mapping[str, Any]
    notes: tuple[str, ...]

    def role(self, split: str) -> str:
        """The role of a split."""
        return next(facts.role for facts in self.splits if facts.name == split)


def build_report(
    evaluation: Evaluation, pairs: Sequence[Pair], *, model: str, checkpoint: str, kind: str, iteration: int, trained_on: str = "",
    sources: Mapping[str, str] | None = None, leaks: Mapping[str, Sequence[LeakFacts]] | None = None, curve: Sequence[CurvePoint] = (),
    manifest: Mapping[str, Any] | None = None, notes: Sequence[str] = (),
) -> Report:  # fmt: skip
    """The report of an evaluation.

    Args:
        evaluation: what was sampled and scored.
        pairs: its matched pairs.
        model: the base model's id or folder.
        checkpoint: the checkpoint, as the user named it.
        kind: "lora" or "full".
        iteration: of the checkpoint.
        trained_on: id of the reward that the run was trained on, if known.
        sources: split name → where its prompts came from.
        leaks: split name → its leaks.
        curve: the reward over training.
        manifest: facts about the run, plain JSON values.
        notes: sentences that the reader must see.
    """
    known, leaked = sources or {}, leaks or {}
    return Report(
        schema_version=SCHEMA_VERSION,
        ddpo_version=_own_version(),
        model=model,
        checkpoint=checkpoint,
        kind=kind,
        iteration=iteration,
        trained_on=trained_on,
        seeds=evaluation.seeds,
        seed=evaluation.seed,
        sampler=asdict(evaluation.sampler),
        rewards=tuple(RewardFacts(id, evaluation.signatures[id], card.to_dict()) for id, card in evaluation.cards.items()),
        splits=tuple(
            SplitFacts(split.name, split.role, known.get(split.name, ""), len(split.prompts), tuple(leaked.get(split.name, ())))
            for split in evaluation.splits
        ),
        gains=gain_table(evaluation, pairs),
        transfers=transfer_table(evaluation, pairs),
        curve=tuple(curve),
        manifest=dict(manifest or {}),
        notes=tuple(notes),
    )


def read_curve(metrics: Path) -> tuple[CurvePoint, ...]:
    """The reward curve of a run's `metrics.jsonl`; empty if there is none. Reading stops at a line that a kill cut short."""
    points: list[CurvePoint] = []
    if not metrics.is_file():
        return ()
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            se = math.nan if record["reward_se"] is None else float(record["reward_se"])
            point = CurvePoint(int(record["iteration"]), int(record["reward_queries"]), float(record["reward_mean"]), se)
        except (ValueError, KeyError, TypeError):
            break
        points.append(point)
    return tuple(points)


def save_report(path: Path, report: Report) -> None:
    """Writes `report.json` atomically."""
    write_json(path, _plain(asdict(report)))


def load_report(path: Path) -> Report:
    """Reads a `report.json`.

    Raises:
        ConfigError: missing, not a report, or of another schema version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if (found := values["schema_version"]) != SCHEMA_VERSION:
            raise ConfigError(f"{path} has schema version {found}, this ddpo reads {SCHEMA_VERSION}")
        return typing.cast(Report, _build(Report, values))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not a report of ddpo: {type(error).__name__} {error}") from error


def _own_version() -> str:
    try:
        return version("ddpo")
    except PackageNotFoundError:
        return "not installed"


def _plain(value: Any) -> Any:
    """JSON values with `null` for numbers that do not exist, and infinities as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _build(hint: Any, value: Any) -> Any:
    """The value of type `hint` that plain JSON values describe: dataclasses, tuples of one type, floats, and what JSON has itself."""
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return typing.cast("type[Any]", hint)(**{field.name: _build(hints[field.name], value[field.name]) for field in fields(hint)})
    if typing.get_origin(hint) is tuple:
        return tuple(_build(typing.get_args(hint)[0], item) for item in value)
    if hint is float:
        return math.nan if value is None else float(value)
    if hint in (str, int) and not isinstance(value, hint):
        raise TypeError(f"expected {hint.__name__}, got {value!r}")
    return value
