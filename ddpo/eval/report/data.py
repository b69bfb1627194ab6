"""The report as data: the content of `report.json` and the source of every rendering.

The names of the fields are the keys of the file. A number that does not exist, such as the interval
of one prompt, is NaN here and `null` in the file.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.eval.analysis.diversity import DiversityChange
from ddpo.eval.analysis.hacking import HackingAssessment
from ddpo.eval.analysis.history import RunHistory
from ddpo.eval.analysis.prompt_dependence import Dependence
from ddpo.eval.analysis.tables import Gain, RunsGain, Transfer
from ddpo.eval.inputs.models import ModelFacts
from ddpo.eval.inputs.runs import CurvePoint
from ddpo.eval.inputs.splits import LeakFacts, SplitFacts
from ddpo.io.atomic import write_json
from ddpo.io.fields import fault_of, shown
from ddpo.io.json_files import JsonError, read_json

__all__ = [
    "SCHEMA_VERSION",
    "Curve",
    "LeakFacts",
    "Report",
    "RewardFacts",
    "SplitFacts",
    "load_report",
    "save_report",
]

SCHEMA_VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class RewardFacts:
    """A reward that scored the images, with the signature that fixes its scores."""

    id: str
    signature: str
    card: Mapping[str, Any]
    role: str  # "trained", "heldout", "artefact" or "asked"
    noise_floor: float  # largest median change under edits that no viewer minds; NaN if unknown


@dataclass(frozen=True, slots=True)
class Curve:
    """The trained reward over the iterations of one run."""

    model: str  # the run's last checkpoint here
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything for judging the models except the images and their single scores."""

    schema_version: int
    ddpo_version: str
    base: str  # id or folder of the base model, or the folder of its images
    models: tuple[ModelFacts, ...]
    seeds: int  # images per prompt and model
    seed: int  # of the noise; -1 where the images were not sampled here
    sampler: Mapping[str, Any]  # empty where the images were not sampled here
    rewards: tuple[RewardFacts, ...]
    splits: tuple[SplitFacts, ...]
    gains: tuple[Gain, ...]  # without earlier checkpoints
    transfers: tuple[Transfer, ...]
    runs: tuple[RunsGain, ...]  # over runs that differ only in their training seed
    diversity: tuple[DiversityChange, ...]
    dependence: tuple[Dependence, ...]
    courses: tuple[RunHistory, ...]  # run histories
    readings: tuple[HackingAssessment, ...]  # one per model other than earlier checkpoints
    curves: tuple[Curve, ...]
    manifests: Mapping[str, Any]  # model → facts about its run; "evaluation" → those of this report
    notes: tuple[str, ...]

    def role(self, split: str) -> str:
        """The role of a split."""
        return next(facts.role for facts in self.splits if facts.name == split)

    @property
    def compared(self) -> tuple[ModelFacts, ...]:
        """The models other than earlier checkpoints."""
        return tuple(model for model in self.models if not model.history)


def save_report(path: Path, report: Report) -> None:
    """Writes `report.json` atomically."""
    write_json(path, _plain(asdict(report)))


def load_report(path: Path) -> Report:
    """Reads a `report.json`.

    Raises:
        ConfigError: the file is missing, is not a report, or has another schema version.
    """
    values = read_json(path, error=ConfigError)
    found = values.get("schema_version")
    if found != SCHEMA_VERSION:
        raise ConfigError(
            f"{path} has schema version {shown(found)}, this ddpo reads {SCHEMA_VERSION}"
        )
    try:
        return typing.cast(Report, _build(Report, values, ""))
    except JsonError as error:
        raise ConfigError(f"{path} is not a report of ddpo: {error}") from error


def _plain(value: Any) -> Any:
    """JSON values with `null` for numbers that do not exist, and infinities as text."""
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        return "inf" if value > 0 else "-inf"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _build(hint: Any, value: Any, name: str) -> Any:
    """The value of type `hint` from plain JSON values: the reverse of `_plain`.

    Raises:
        JsonError: the value cannot be of that type.
    """
    origin = typing.get_origin(hint)
    if is_dataclass(hint):
        return _build_record(hint, value, name)
    if origin in (tuple, Mapping):
        return _build_many(hint, value, name)
    if origin in (types.UnionType, typing.Union):
        (kind,) = (one for one in typing.get_args(hint) if one is not type(None))
        return None if value is None else _build(kind, value, name)
    if hint is float and value in (None, "inf", "-inf"):
        return math.nan if value is None else float(value)
    if origin is typing.Literal:
        sound = value in typing.get_args(hint)
    else:
        sound = hint is Any or not fault_of(value, hint)
    if not sound:
        raise JsonError(f"its {name} cannot be {shown(value)}")
    return float(value) if hint is float else value


def _build_record(hint: Any, value: Any, name: str) -> Any:
    """An instance of a dataclass from an object of JSON."""
    if not isinstance(value, Mapping):
        raise JsonError(f"its {name} cannot be {shown(value)}")
    hints = typing.get_type_hints(hint)
    arguments: dict[str, Any] = {}
    for field in fields(hint):
        place = f"{name}.{field.name}" if name else field.name
        if field.name not in value:
            raise JsonError(f"it has no {place}")
        arguments[field.name] = _build(hints[field.name], value[field.name], place)
    return hint(**arguments)


def _build_many(hint: Any, value: Any, name: str) -> Any:
    """A tuple or mapping from a list or object of JSON."""
    kinds = typing.get_args(hint)
    if typing.get_origin(hint) is Mapping:
        if not isinstance(value, Mapping):
            raise JsonError(f"its {name} cannot be {shown(value)}")
        return {key: _build(kinds[1], item, f"{name}.{key}") for key, item in value.items()}
    if not isinstance(value, list):
        raise JsonError(f"its {name} cannot be {shown(value)}")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise JsonError(f"its {name} cannot have {len(value)} items")
    return tuple(
        _build(kind, item, f"{name}[{place}]")
        for place, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )
