"""The settings of a resumed run: its own, but for a few that do not change what is learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ddpo.devices import AUTO
from ddpo.errors import CheckpointError, ConfigError
from ddpo.io.atomic import named_path
from ddpo.policies import policies
from ddpo.policies.checkpoints.folder import BaseFacts
from ddpo.rewards.setting_paths import (
    NAMING,
    absolute_path,
    at_new_place,
    located,
    missing_files,
    moved_path,
    same_but_for_paths,
    setting_words,
    storable,
)
from ddpo.trainer.algorithms import algorithms
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.monitoring.events import Finding
from ddpo.trainer.recipe import config_from_dict, merged
from ddpo.trainer.run.folder import RunFolder
from ddpo.trainer.run.stopping import check_not_stopped
from ddpo.user_code import refuse_unnamed
from ddpo.word_lists import words_of

__all__ = [
    "Changes",
    "base_model",
    "check_length",
    "check_named",
    "merged_config",
    "past_start",
    "warn",
    "with_absolute_paths",
]

FREE: Final = (
    "iterations",
    "checkpoint_every",
    "checkpoint_keep",
    "grid_every",
    "stop_when",
    "stop_patience",
    "adapt.checkpointing",
)
"""Settings that a resumed run may change, and whose result is the same to the bit."""

ROUNDING: Final = ("sample.batch", "device", "compile")
"""Settings that it may change too, with a change of the last digits of all later numbers.

They depend on the machine, its memory and its kernels.
"""

Changes = dict[str, tuple[Any, Any]]
"""Values of changed settings before and now, by name, such as "optim.lr"."""


def merged_config(run: RunFolder, requested: Mapping[str, Any]) -> tuple[TrainConfig, Changes]:
    """The settings of a resumed run, and those of them that are not what they were.

    Another place of a file is no change of its setting; its content is compared later.
    `sample.batch = "auto"` is the number that was found when the run was started.

    Args:
        run: the run.
        requested: plain nested values, as of a recipe. Values that the run has already change
            nothing.

    Raises:
        CheckpointError: a file that a setting names is not there.
        ConfigError: a setting that must not change is requested otherwise, or was changed in
            `config.json`; names all of them with both values.
    """
    manifest = run.manifest()
    written = storable(run.config().to_dict())
    first = storable(manifest.get("config") or written)
    if edited := _fixed(_changes(first, written)):
        raise ConfigError(
            f"{run.path / 'config.json'} was changed after the run was started: "
            f"{_in_words(edited)}; put back what it was"
        )
    old_folder = manifest.get("folder")
    here = at_new_place(written, run.path, old_folder)
    config = with_absolute_paths(config_from_dict(merged(here, _without_auto(requested))))
    if missing := missing_files(config.to_dict()):
        raise CheckpointError(_missing_line(run.path, missing))
    changes = _changes(first, storable(config.to_dict()))
    first_here = config_from_dict(at_new_place(first, run.path, old_folder))
    _check_fixed(with_absolute_paths(first_here), config)
    sources = dict(config.sources) | dict.fromkeys(changes, "--resume")
    return replace(config, sources=sources if config.sources else {}), changes


def check_named(
    run: RunFolder,
    config: TrainConfig,
    model: str,
    requested: Mapping[str, Any],
    trust: Iterable[str],
) -> None:
    """Checks that the user named all code and servers with which a run would resume.

    Args:
        run: the run.
        config: settings with which it would resume.
        model: place of its base model.
        requested: plain nested values that the user gave.
        trust: further words that the user named.

    Raises:
        UntrustedError: the run's files name others; the message says how to name them.
    """
    words = setting_words(config.to_dict() | {"model": model})
    refuse_unnamed(
        run.path / "config.json", words, [*setting_words(requested), *words_of("trust", trust)]
    )


def check_length(path: Path, done: int, config: TrainConfig) -> None:
    """Checks that a run is not to become shorter than it is, nor would stop again at once.

    Raises:
        ConfigError: it has more iterations already, or its rule has stopped it.
    """
    if config.iterations < done:
        raise ConfigError(
            f"{path} has {done} iterations already; --iterations {config.iterations} is less"
        )
    if done < config.iterations:
        check_not_stopped(path, config.stop_when, config.stop_patience, done)


def past_start(config: TrainConfig) -> TrainConfig:
    """The settings of a run with finished iterations, whose state has what began from a LoRA."""
    return replace(config, adapt=replace(config.adapt, start=""))


def _check_fixed(before: TrainConfig, now: TrainConfig) -> None:
    """Checks that no setting has changed but those that may.

    Raises:
        ConfigError: one has.
    """
    other = {
        name: values
        for name, values in _fixed(
            _changes(storable(before.to_dict()), storable(now.to_dict()))
        ).items()
        if name not in NAMING or not same_but_for_paths(name, *values)
    }
    if other:
        *names, last = FREE + ROUNDING
        raise ConfigError(
            f"a run is resumed with the settings that it was started with: {_in_words(other)}; "
            f"only {', '.join(names)} and {last} may change"
        )


def _without_auto(requested: Mapping[str, Any]) -> dict[str, Any]:
    """The values without `sample.batch = "auto"`."""
    sample = requested.get("sample")
    if not isinstance(sample, Mapping) or sample.get("batch") != AUTO:
        return dict(requested)
    rest = {name: value for name, value in sample.items() if name != "batch"}
    return dict(requested) | {"sample": rest}


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same settings with absolute paths, as a run keeps them."""
    values = located(config.to_dict(), {"algorithm": algorithms, "model": policies})
    if config.adapt.start and named_path(config.adapt.start).exists():
        values["adapt"] = values["adapt"] | {"start": str(absolute_path(config.adapt.start))}
    return config_from_dict(values)


def _missing_line(run: Path, missing: Mapping[str, str]) -> str:
    """The first missing file and the option that names its new place."""
    setting, path = next(iter(missing.items()))
    option = f"--{setting.replace('_', '-')}"
    if setting == "held_out_prompts":
        option = "--set held_out_prompts="
    return (
        f"{run}: the file {path} of its setting {setting} is not there; "
        f"if it was moved, give its new place with {option} PATH"
    )


def base_model(run: RunFolder, requested: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The present place of a run's base model, and the requested values without that place.

    A place of another model stays among the values.

    Args:
        run: the run.
        requested: plain nested values, as of a recipe.

    Raises:
        CheckpointError: the run's files are damaged.
        ConfigError: the denoiser at the model's place has changed.
    """
    manifest = run.manifest()
    base = BaseFacts.of(run.config().model, manifest.get("base") or {})
    word = str(requested.get("model", base.word))
    if word != base.word and not base.is_model(word):
        return word, dict(requested)  # another model, refused with all other changes
    if word == base.word:
        word = base.usable()
        moved = moved_path(word, run.path, manifest.get("folder"))
        word = moved or word
    if base.is_at(word) and not base.is_model(word):
        raise ConfigError(
            f"the run cannot be resumed: the denoiser of the model {word!r} has changed since it "
            "was started; give a copy of the old one with --model"
        )
    return word, {name: value for name, value in requested.items() if name != "model"}


def warn(changes: Changes) -> Finding | None:
    """A warning about settings that change the last digits; None if none has changed."""
    rounding = {name: values for name, values in changes.items() if name in ROUNDING}
    if not rounding:
        return None
    text = (
        f"with another setting: {_in_words(rounding)}. "
        "The run is no longer the same to the bit: sums are rounded differently"
    )
    return Finding("resumed", text, good=False)


def _fixed(changes: Changes) -> Changes:
    """The changes of settings that must not change."""
    return {name: values for name, values in changes.items() if name not in FREE + ROUNDING}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """Settings that both have, with different values.

    One that only one of them has came with another version of the program, and is its default.
    """
    old = dict(_flat(before))
    new = dict(_flat(now))
    return {
        name: (old[name], value)
        for name, value in new.items()
        if name in old and old[name] != value
    }


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Settings of nested values, under names such as "optim.lr"."""
    for name, value in values.items():
        if name == "sources" and not above:  # the sources of values are no setting
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, value


def _in_words(changes: Changes) -> str:
    """Each changed setting with both values."""
    return ", ".join(
        f"{name} is {now!r} and was {before!r}" for name, (before, now) in changes.items()
    )
