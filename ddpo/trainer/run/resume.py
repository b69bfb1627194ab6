"""The settings with which a run goes on: those that it was started with, but for a few that do not change what is learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ddpo.devices import AUTO
from ddpo.errors import CheckpointError, ConfigError
from ddpo.policies import policies
from ddpo.policies.checkpoints.folder import BaseFacts
from ddpo.rewards.setting_paths import (
    NAMING,
    at_new_place,
    located,
    missing_files,
    moved_path,
    same_but_for_paths,
)
from ddpo.trainer.algorithms import algorithms
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.monitoring.events import Finding
from ddpo.trainer.recipe import config_from_dict, merged
from ddpo.trainer.run.folder import RunFolder

__all__ = ["Changes", "base_model", "continued", "remark", "with_absolute_paths"]

FREE: Final = (
    "iterations",
    "checkpoint_every",
    "checkpoint_keep",
    "grid_every",
    "adapt.checkpointing",
)
"""What may change when a run is resumed: how long it is, what it leaves behind, and how much memory it takes for the same bits."""

ROUNDING: Final = ("sample.batch", "device", "compile")
"""May change too, but with the last digits of all numbers that follow: another machine, too little memory, other kernels."""

Changes = dict[str, tuple[Any, Any]]
"""Name of a setting, as "optim.lr" → its value before and now."""


def continued(run: RunFolder, asked: Mapping[str, Any]) -> tuple[TrainConfig, Changes]:
    """The settings of a run that is resumed, and which of them are not what they were.

    Args:
        run: the run.
        asked: plain nested values, as of a recipe. Those that the run has already change nothing.

    Another place of a file is no change of the setting; that its content is the same is checked later.
    `sample.batch = "auto"` is the number that was found when the run was started.

    Raises:
        CheckpointError: a file that a setting names is not there.
        ConfigError: a setting is asked for that must not change, or was changed in `config.json`; names all of them with both values.
    """
    manifest = run.manifest()
    written = run.config().to_dict()
    begun = manifest.get("config", written)
    if edited := _fixed(_changes(begun, written)):
        raise ConfigError(
            f"{run.path / 'config.json'} was changed after the run was started: {_told(edited)}; put back what it was"
        )
    here = at_new_place(written, run.path, manifest.get("folder"))
    config = with_absolute_paths(config_from_dict(merged(here, _without_auto(asked))))
    if missing := missing_files(config.to_dict()):
        raise CheckpointError(_missing_line(run.path, missing))
    changes = _changes(begun, config.to_dict())
    before = with_absolute_paths(
        config_from_dict(at_new_place(begun, run.path, manifest.get("folder")))
    ).to_dict()
    other = _fixed(_changes(before, config.to_dict()))
    other = {
        name: values
        for name, values in other.items()
        if name not in NAMING or not same_but_for_paths(name, *values)
    }
    if other:
        *names, last = FREE + ROUNDING
        raise ConfigError(
            f"a run is resumed with the settings that it was started with: {_told(other)}; only {', '.join(names)} and {last} may change"
        )
    sources = dict(config.sources) | dict.fromkeys(changes, "--resume")
    return replace(config, sources=sources if config.sources else {}), changes


def _without_auto(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The values without `sample.batch = "auto"`."""
    sample = asked.get("sample")
    if not isinstance(sample, Mapping) or sample.get("batch") != AUTO:
        return dict(asked)
    return dict(asked) | {
        "sample": {name: value for name, value in sample.items() if name != "batch"}
    }


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same settings with absolute paths, as a run keeps them."""
    return config_from_dict(located(config.to_dict(), {"algorithm": algorithms, "model": policies}))


def _missing_line(run: Path, missing: Mapping[str, str]) -> str:
    """The first missing file and the option that names its new place."""
    setting, path = next(iter(missing.items()))
    option = (
        f"--{setting.replace('_', '-')}"
        if setting != "held_out_prompts"
        else "--set held_out_prompts="
    )
    return f"{run}: the file {path} of its setting {setting} is not there; if it was moved, give its new place with {option} PATH"


def base_model(run: RunFolder, asked: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The word that finds the base model of a run from here, and what is asked for without a new word for the same model.

    Args:
        run: the run.
        asked: plain nested values, as of a recipe.

    Raises:
        CheckpointError: the run's files are damaged.
        ConfigError: the denoiser at the model's place has changed.
    """
    manifest = run.manifest()
    base = BaseFacts.of(run.config().model, manifest.get("base", {}))
    word = str(asked.get("model", base.word))
    if word != base.word and not base.is_model(word):
        return word, dict(asked)  # another model, which is refused with all other changes
    if word == base.word:
        word = base.usable()
        moved = moved_path(word, run.path, manifest.get("folder"))
        word = moved or word
    if base.is_at(word) and not base.is_model(word):
        raise ConfigError(
            f"the run cannot be resumed: the denoiser of the model {word!r} has changed since it was started; "
            "give a copy of the old one with --model"
        )
    return word, {name: value for name, value in asked.items() if name != "model"}


def remark(changes: Changes) -> Finding | None:
    """What the user should know of the changes before the run goes on, if anything."""
    if not (rounding := {name: values for name, values in changes.items() if name in ROUNDING}):
        return None
    text = f"with another setting: {_told(rounding)}. The run is no longer the same to the bit: sums are rounded otherwise"
    return Finding("resumed", text, good=False)


def _fixed(changes: Changes) -> Changes:
    return {name: values for name, values in changes.items() if name not in FREE + ROUNDING}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """Settings that differ. One that only one of them has came with another version of the program, and is its default."""
    old = dict(_flat(before))
    new = dict(_flat(now))
    return {
        name: (old[name], value)
        for name, value in new.items()
        if name in old and old[name] != value
    }


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name == "sources" and not above:  # where values came from is no setting
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, value


def _told(changes: Changes) -> str:
    return ", ".join(
        f"{name} is {now!r} and was {before!r}" for name, (before, now) in changes.items()
    )
