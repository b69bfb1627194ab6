"""The facts that a run folder records: settings, prompts, reward and reward curve of training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ddpo.io.fields import COUNT, SHORT, Fields, ListOf, Maybe, Whole
from ddpo.io.json_files import JsonLine, json_lines, read_json, warn_of_damage
from ddpo.prompts import load_prompts
from ddpo.rewards.setting_paths import at_new_place
from ddpo.types import Prompt

__all__ = ["CurvePoint", "RunFacts", "nested", "read_curve", "read_run"]


NOT_LEARNT_FROM: Final = ("seed", "iterations", "checkpoint_every", "checkpoint_keep", "grid_every")
"""Settings in which runs of one recipe may differ; their length is compared by itself."""


CONFIG: Final[Fields] = {"seed": Maybe(Whole(-(2**63), 2**64)), "prompts": Maybe(SHORT)}
MANIFEST: Final[Fields] = {
    "folder": Maybe(SHORT),
    "prompts": Maybe({"list": Maybe(ListOf(str))}),
    "reward": Maybe({"card": Maybe({"id": Maybe(SHORT)})}),
}
METRICS: Final[Fields] = {
    "iteration": COUNT,
    "reward_queries": COUNT,
    "reward_mean": float,
    "reward_se": Maybe(float),
}


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The mean reward of one iteration of training."""

    iteration: int
    queries: int  # reward queries since the start
    mean: float
    se: float


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The facts about a run; all empty for a checkpoint outside a run folder."""

    name: str = ""  # of the folder
    config: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()
    trained: tuple[Prompt, ...] | None = None  # the training prompts; None if unknown

    @property
    def trained_on(self) -> str:
        """The id of the reward; "" if unknown."""
        return str(nested(self.manifest, "reward", "card").get("id") or "")

    @property
    def training_seed(self) -> int:
        """The seed of the training; -1 if unknown."""
        seed = self.config.get("seed")
        return -1 if seed is None else int(seed)

    def queries(self, iteration: int) -> int:
        """Reward queries up to and including an iteration; -1 if unknown."""
        return next((point.queries for point in self.curve if point.iteration == iteration), -1)

    @property
    def recipe(self) -> str:
        """Sixteen hexadecimal digits shared by runs that differ only in seed; "" if unknown."""
        if not self.config:
            return ""
        values = {name: value for name, value in self.config.items() if name not in NOT_LEARNT_FROM}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def read_run(run: Path | None) -> RunFacts:
    """The facts about a run folder.

    Args:
        run: the run folder; None for a checkpoint outside one.

    Raises:
        CheckpointError: a file of the run is damaged.
        PromptError: the prompts of the configuration cannot be read, and the manifest does not
            list them.
    """
    if run is None:
        return RunFacts()
    config = _read(run / "config.json", CONFIG)
    manifest = _read(run / "manifest.json", MANIFEST)
    config = at_new_place(config, run, manifest.get("folder"))
    curve = read_curve(run / "metrics.jsonl")
    return RunFacts(run.resolve().name, config, manifest, curve, _trained(config, manifest))


def read_curve(metrics: Path) -> tuple[CurvePoint, ...]:
    """The reward curve of a `metrics.jsonl`, without damaged lines; () without one."""
    points: list[CurvePoint] = []
    if not metrics.is_file():
        return ()
    damaged: list[JsonLine] = []
    for line in json_lines(metrics, METRICS):
        if line.record is None:
            damaged += [] if line.cut_short else [line]
            continue
        se = line.record.get("reward_se")
        points.append(
            CurvePoint(
                line.record["iteration"],
                line.record["reward_queries"],
                float(line.record["reward_mean"]),
                math.nan if se is None else float(se),
            )
        )
    warn_of_damage(metrics, damaged, "the reward curve lacks its iteration")
    return tuple(points)


def nested(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A nested object of JSON values; empty if there is none."""
    for key in keys:
        found = values.get(key)
        values = found if isinstance(found, Mapping) else {}
    return dict(values)


def _read(file: Path, fields: Fields) -> dict[str, Any]:
    """A JSON object with some fields; empty if there is no such file."""
    return read_json(file, fields) if file.exists() else {}


def _trained(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> tuple[Prompt, ...] | None:
    """The training prompts of the manifest, otherwise those that the configuration names."""
    listed = nested(manifest, "prompts").get("list")
    if isinstance(listed, list) and listed:
        return tuple(map(Prompt, listed))
    if not config.get("prompts"):
        return None
    return load_prompts(config["prompts"]).first(config.get("prompt_limit") or None).prompts
