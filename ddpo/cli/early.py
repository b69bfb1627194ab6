"""Checks of a command's arguments that import no torch, so that a typo answers at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo.device_words import check_device_name
from ddpo.errors import CheckpointError, ImageError, MissingResourceError
from ddpo.inputs.address import refuse_address

if TYPE_CHECKING:
    from ddpo.policies.checkpoints.folder import CheckpointInfo
    from ddpo.rewards.scoring.resolve import ResolvedReward
    from ddpo.trainer.config import TrainConfig

__all__ = [
    "check_checkpoint",
    "check_device_name",
    "check_fetched",
    "check_model",
    "check_named_weights",
    "check_places",
    "check_prompt_list",
    "check_resumed",
    "check_reward",
    "check_reward_weights",
    "check_settings",
    "check_trackers",
    "check_training",
]

READ_BYTES: Final = 1_000_000
"""Size of a prompt list up to which it is read before anything else."""

Layers = Sequence[tuple[str, dict[str, Any]]]


def check_reward(expression: str) -> None:
    """Finds the rewards of an expression, unless a server must be asked for one.

    Raises:
        UserError: As for `resolve`.
    """
    from ddpo.rewards.spec import parse_expression
    from ddpo.rewards.zoo import resolve

    _, terms = parse_expression(expression)
    if all(term.kind != "url" for term in terms):
        resolve(expression)


def check_fetched(found: Iterable[ResolvedReward]) -> None:
    """Refuses rewards whose weights are missing, where nothing may be fetched.

    Raises:
        MissingResourceError: As for `check_weights`.
    """
    from ddpo.rewards.tools.needed_weights import check_weights

    check_weights(found)


def check_places(paths: Iterable[Path]) -> None:
    """Refuses a file or folder that does not exist.

    Raises:
        ImageError: It does not.
    """
    for path in paths:
        refuse_address(path)
        if not os.path.lexists(path.expanduser()) and not os.path.lexists(path):
            raise ImageError(f"{path}: no such file or folder")


def check_prompt_list(name: str) -> None:
    """Refuses a word that is neither a file nor a built-in list of prompts; reads a short one.

    Raises:
        PromptError: It is neither, or the list cannot be read.
    """
    from ddpo.io.atomic import named_path
    from ddpo.prompts import load_prompts

    path = named_path(name)
    if os.path.isdir(path):
        quick = next(path.glob("*.parquet"), None) is None
    else:
        quick = not os.path.isfile(path) or path.stat().st_size < READ_BYTES
    if quick:
        load_prompts(name)


def check_model(word: str) -> None:
    """Finds the place of a base model, without reading its weights.

    Of a hub id the small files are fetched. Where fetching is off, its weights must be here.

    Raises:
        UserError: There is no such name, file, folder or model of the hub, or it is no model.
    """
    from ddpo.policies.base_model import check_described, model_folder
    from ddpo.policies.model_place import locate

    place = locate(word)
    if place.kind in ("folder", "file"):
        model_folder(word)
    elif place.kind == "hub":
        check_described(place.place)
    elif place.path is not None and not place.path.is_file():
        raise MissingResourceError(f"model file {word}: No such file or directory")


def check_checkpoint(info: CheckpointInfo) -> None:
    """Checks the base model of a checkpoint if that is a hub id; its own files are read later.

    Raises:
        MissingResourceError: The model cannot be fetched.
    """
    from ddpo.policies.base_model import check_described
    from ddpo.policies.model_place import place_of

    place = place_of(info.model)
    if place is not None and place.kind == "hub":
        check_described(place.place)


def check_run_folder(path: Path) -> None:
    """Refuses a folder that holds no run.

    Raises:
        CheckpointError: It holds none.
    """
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path} is not a run folder: it has no config.json")


def check_training(layers: Layers, out: Path, trackers: Sequence[str]) -> TrainConfig:
    """Checks the settings and names of a new run, in the order in which a run uses them.

    Raises:
        UserError: A setting, name, file or folder does not fit.
    """
    check_trackers(trackers)
    from ddpo.trainer.run.folder import RunFolder

    RunFolder.check_new(out)
    RunFolder.check_writable(out)
    given = {name: value for _, layer in layers for name, value in layer.items()}
    if isinstance(device := given.get("device"), str):
        check_device_name(device)
    if isinstance(model := given.get("model"), str):
        check_model(model)
    from ddpo.trainer.settings import written_config

    config = written_config(layers)
    check_settings(config)
    return config


def check_reward_weights(config: TrainConfig) -> None:
    """Checks that the weights of a run's rewards are here, or can be fetched.

    Raises:
        MissingResourceError: They are not.
    """
    for expression in filter(None, (config.reward, config.held_out)):
        check_named_weights(expression)


def check_settings(config: TrainConfig) -> None:
    """Checks the names in the settings of a run, but for that of its model.

    Raises:
        UserError: A name or file does not fit.
    """
    check_device_name(config.device)
    check_prompt_list(config.prompts)
    check_reward(config.reward)
    if config.held_out:
        check_reward(config.held_out)
        check_prompt_list(config.held_out_prompts)
        _check_held_out(config)
    if config.adapt.start:
        from ddpo.policies.checkpoints.folder import find_checkpoint

        find_checkpoint(config.adapt.start, config.model)


def _check_held_out(config: TrainConfig) -> None:
    """Refuses a held-out reward that is trained on, unless a server must be asked for one.

    Raises:
        ConfigError: It is trained on.
    """
    from ddpo.rewards.spec import parse_expression
    from ddpo.rewards.zoo import resolve
    from ddpo.trainer.independent import check_not_trained

    expressions = (config.held_out, config.reward)
    terms = [term for one in expressions for term in parse_expression(one)[1]]
    if all(term.kind != "url" for term in terms):
        held_out, reward = map(resolve, expressions)
        check_not_trained(held_out, reward, *expressions)


def check_resumed(folder: Path, requested: Mapping[str, Any], trust: Iterable[str]) -> None:
    """Checks the settings with which a run is resumed, and the weights that it needs.

    Args:
        folder: Run folder.
        requested: Plain nested values that the user gave.
        trust: Code and servers that the run may name.

    Raises:
        UserError: The folder holds no run, a setting must not change, or weights are missing.
    """
    check_run_folder(folder)
    from ddpo.trainer.run.folder import RunFolder
    from ddpo.trainer.run.resume import base_model, check_named, merged_config

    with closing(RunFolder.open(folder)) as run:
        model, others = base_model(run, requested)
        config, _ = merged_config(run, others)
        check_named(run, config, model, requested, trust)
    check_device_name(config.device)
    check_reward_weights(config)


def check_named_weights(expression: str) -> None:
    """Checks that the weights of the rewards that an expression names are here, or can be fetched.

    Rewards of files, modules and servers are left to the run.

    Raises:
        MissingResourceError: They are not.
    """
    from ddpo.rewards.spec import parse_expression
    from ddpo.rewards.tools.needed_weights import check_weights
    from ddpo.rewards.zoo import resolve

    _, terms = parse_expression(expression)
    check_weights(resolve(term.target, **term.options) for term in terms if term.kind == "name")


def check_trackers(names: Iterable[str]) -> None:
    """Refuses an unknown tracker.

    Raises:
        UnknownNameError: There is no tracker of that name.
    """
    from ddpo.registry import unknown_name
    from ddpo.trainer.monitoring.tracking import TRACKERS

    for name in names:
        if name not in TRACKERS:
            raise unknown_name("tracker", name, TRACKERS)
