"""The report as data: the content of `report.json` and the source of every rendering.

The names of the fields are the keys of the file. A number that does not exist, such as the interval
of one prompt, is NaN here and `null` in the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import ConfigError
from ddpo.eval.analysis.diversity import DiversityChange
from ddpo.eval.analysis.hacking import HackingAssessment
from ddpo.eval.analysis.history import RunHistory
from ddpo.eval.analysis.people import People
from ddpo.eval.analysis.prompt_dependence import Dependence
from ddpo.eval.analysis.tables import Gain, RunsGain, Transfer
from ddpo.eval.inputs.models import ModelFacts
from ddpo.eval.inputs.runs import CurvePoint
from ddpo.eval.inputs.splits import LeakFacts, SplitFacts
from ddpo.eval.report.advice import Advice
from ddpo.io.atomic import named_path, write_json
from ddpo.io.fields import shown
from ddpo.io.json_files import JsonError, read_json
from ddpo.io.records import record_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SCHEMA_VERSION",
    "Curve",
    "LeakFacts",
    "Report",
    "RewardFacts",
    "SplitFacts",
    "dated",
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


@dataclass(frozen=True, slots=True, repr=False)
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
    advice: tuple[Advice, ...] = ()  # sources of further evidence
    folder: Path | None = field(default=None, compare=False)  # of its files; not in report.json
    command: str = ""  # command line that repeats the evaluation, without secrets
    made: str = ""  # time of the first report with these findings, ISO 8601 in UTC
    people: People | None = None  # None, and absent from report.json, if nobody judged the images

    def gains_df(self) -> pd.DataFrame:
        """One row per model, split and reward: means, gain, interval, p-values and win rate."""
        from ddpo.eval.report.frames import gains_frame

        return gains_frame(self)

    def samples_df(self) -> pd.DataFrame:
        """One row per image and reward, from `samples.parquet`.

        Raises:
            ConfigError: the report was not read from a folder, or its table is damaged.
        """
        from ddpo.eval.report.frames import samples_frame

        return samples_frame(self)

    def __repr__(self) -> str:
        from ddpo.eval.report.frames import report_line

        return report_line(self)

    def _repr_html_(self) -> str:
        from ddpo.eval.report.notebook import report_html

        return report_html(self)

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        from ddpo.eval.report.findings import report_sentence

        return report_sentence(self)

    def role(self, split: str) -> str:
        """The role of a split."""
        return next(facts.role for facts in self.splits if facts.name == split)

    @property
    def compared(self) -> tuple[ModelFacts, ...]:
        """The models other than earlier checkpoints."""
        return tuple(model for model in self.models if not model.history)


def save_report(path: Path, report: Report) -> None:
    """Writes `report.json` atomically."""
    write_json(path, _values(report))


def dated(report: Report, path: Path, now: datetime) -> Report:
    """The report with its time; the earlier time, if the file holds the same findings.

    Args:
        report: report without a time.
        path: `report.json` of an earlier evaluation; it may be missing.
        now: present time in UTC.
    """
    try:
        before = read_json(path, error=ConfigError)
    except ConfigError:
        before = {}
    made = before.get("made")
    if isinstance(made, str) and before == _values(replace(report, made=made)):
        return replace(report, made=made)
    return replace(report, made=now.isoformat(timespec="seconds"))


def load_report(path: Path | str) -> Report:
    """Reads a `report.json`.

    Raises:
        ConfigError: the file is missing, is not a report, or has another schema version.
    """
    path = named_path(path)
    values = read_json(path, error=ConfigError)
    found = values.get("schema_version")
    if found != SCHEMA_VERSION:
        raise ConfigError(
            f"{path} has schema version {shown(found)}, this ddpo reads {SCHEMA_VERSION}"
        )
    try:
        return replace(record_of(Report, values, _number), folder=path.parent)
    except JsonError as error:
        raise ConfigError(f"{path} is not a report of ddpo: {error}") from error


def _values(report: Report) -> dict[str, Any]:
    """The content of `report.json`."""
    from ddpo.eval.report.findings import answer_values

    values = asdict(report)
    del values["folder"]
    if report.people is None:
        del values["people"]
    plain: dict[str, Any] = _plain({**values, "answer": answer_values(report)})
    return plain


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


def _number(value: Any, name: str) -> float:
    """A number of `_plain`."""
    if value is None:
        return math.nan
    if not isinstance(value, bool) and (isinstance(value, int | float) or value in ("inf", "-inf")):
        return float(value)
    raise JsonError(f"its {name} cannot be {shown(value)}")
