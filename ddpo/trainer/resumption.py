"""The settings with which a run goes on: those that it was started with, but for a few that do not change what is learned."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.policies.checkpoint import BaseFacts
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.events import Finding
from ddpo.trainer.recipe import config_from_dict, merged
from ddpo.trainer.run_folder import RunFolder

__all__ = ["Changes", "base_model", "continued", "remark"]

FREE: Final = ("iterations", "checkpoint_every", "checkpoint_keep", "grid_every", "adapt.checkpointing")
"""What may change when a run is resumed: how long it is, what it leaves behind, and how much memory it takes for the same bits."""

ROUNDING: Final = ("sample.batch",)
"""What may change too, but with the last digits of all numbers that follow: memory may not have sufficed."""

Changes = dict[str, tuple[Any, Any]]
"""Name of a setting, as "optim.lr" → its value before and now."""


def continued(run: RunFolder, asked: Mapping[str, Any]) -> tuple[TrainConfig, Changes]:
    """The settings of a run that is resumed, and which of them are not what they were.

    Args:
        run: the run.
        asked: plain nested values, as of a recipe. Those that the run has already change nothing.

    Raises:
        ConfigError: a setting is asked for that must not change, or was changed in `config.json`; names all of them with both values.
    """
    config = run.config()
    written = json.loads(json.dumps(config.to_dict()))
    begun = run.manifest().get("config", written)
    if edited := _fixed(_changes(begun, written)):
        raise ConfigError(f"{run.path / 'config.json'} was changed after the run was started: {_told(edited)}; put back what it was")
    config = config_from_dict(merged(written, asked))
    if other := _fixed(_changes(begun, config.to_dict())):
        names = f"{', '.join(FREE)} and {', '.join(ROUNDING)}"
        raise ConfigError(f"a run is resumed with the settings that it was started with: {_told(other)}; only {names} may change")
    return config, _changes(begun, config.to_dict())


def base_model(run: RunFolder, asked: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The word that finds the base model of a run from here, and what is asked for without a new word for the same model.

    Args:
        run: the run.
        asked: plain nested values, as of a recipe.

    Raises:
        CheckpointError: the run's files are damaged.
    """
    base = BaseFacts.of(run.config().model, run.manifest().get("base", {}))
    word = str(asked.get("model", base.word))
    if word == base.word:
        return base.usable(), dict(asked)
    if base.is_model(word):
        return word, {name: value for name, value in asked.items() if name != "model"}
    return word, dict(asked)


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
    old, new = dict(_flat(before)), dict(_flat(now))
    return {name: (old[name], value) for name, value in new.items() if name in old and old[name] != value}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, value


def _told(changes: Changes) -> str:
    return ", ".join(f"{name} is {now!r} and was {before!r}" for name, (before, now) in changes.items())
