"""Checks of a command's arguments that import no torch, so that a typo answers at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo.devices import AUTO
from ddpo.errors import CheckpointError, ConfigError, ImageError, MissingResourceError
from ddpo.inputs.address import refuse_address

if TYPE_CHECKING:
    from ddpo.rewards.scoring.resolve import ResolvedReward

__all__ = [
    "check_device_name",
    "check_evaluation",
    "check_fetched",
    "check_model",
    "check_places",
    "check_preferences",
    "check_prompt_list",
    "check_reward",
    "check_run_folder",
    "check_trackers",
    "check_training",
]

DEVICES: Final = re.compile(
    r"(cpu|cuda|ipu|xpu|mkldnn|opengl|opencl|ideep|hip|ve|fpga|maia|xla|lazy|vulkan|mps|meta|hpu"
    r"|mtia|npu|musa|privateuseone)(:\d+)?"
)
"""Devices that torch or an extension of it can know."""

Layers = Sequence[tuple[str, dict[str, Any]]]


def check_device_name(device: str | None) -> None:
    """Refuses a word that is no torch device on any machine; None and "auto" pass.

    Raises:
        ConfigError: The word is none.
    """
    if device is None or device == AUTO:
        return
    if not DEVICES.fullmatch(device):
        raise ConfigError(
            f"device {device!r} cannot be used: give auto, cpu, cuda, cuda:1, mps or xpu"
        )


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
    """Refuses rewards whose weights are not on this machine, where nothing may be fetched.

    Raises:
        MissingResourceError: Weights are missing; the message names the command that fetches them.
    """
    from ddpo.rewards.scoring.resolve import single_rewards
    from ddpo.weights import offline

    if not offline():
        return
    from ddpo.rewards.tools.availability import weight_state

    for reward in (one for each in found for one in single_rewards(each)):
        changed = [
            one.name
            for one in reward.card.options
            if one.name != "device" and reward.options.get(one.name) != one.default
        ]
        if changed:
            continue  # options may choose other weights, or none
        states = [weight_state(weight) for weight in reward.card.weights]
        # a repository that is partly here may have all that the reward reads
        missing = [each.weight for each in states if each.path is None and not each.bytes]
        if missing:
            named = " and ".join(weight.source for weight in missing)
            raise MissingResourceError(
                f"reward {reward.card.id!r}: its weights are not here ({named}), and fetching is "
                f"off (DDPO_OFFLINE or HF_HUB_OFFLINE); with a network, run "
                f"`ddpo rewards download {reward.card.id}`"
            )


def check_places(paths: Iterable[Path]) -> None:
    """Refuses a file or folder that does not exist.

    Raises:
        ImageError: It does not.
    """
    for path in paths:
        refuse_address(path)
        if not os.path.lexists(path.expanduser()) and not os.path.lexists(path):
            raise ImageError(f"{path}: no such file or folder")


def check_preferences(name: str) -> None:
    """Refuses a file of people's choices that does not exist or is no table.

    Raises:
        ConfigError: It does not, or is none.
    """
    from ddpo.inputs.tables import TABLES
    from ddpo.io.atomic import named_path

    path = named_path(name)
    if not os.path.exists(path):
        raise ConfigError(f"--preferences {name}: no such file; `ddpo label` writes one")
    if not path.is_dir() and path.suffix.lower() not in TABLES:
        known = ", ".join(TABLES)
        raise ConfigError(f"--preferences {name}: a table of choices must be one of {known}")


def check_prompt_list(name: str) -> None:
    """Refuses a word that is neither a file nor a built-in list of prompts.

    Raises:
        PromptError: It is neither.
    """
    from ddpo.io.atomic import named_path
    from ddpo.prompts import load_prompts

    if not os.path.exists(named_path(name)):
        load_prompts(name)


def check_model(word: str) -> None:
    """Finds the place of a base model, without reading its weights.

    Raises:
        UserError: There is no such name, file or folder, or the folder is no model.
    """
    from ddpo.policies.base_model import model_folder
    from ddpo.policies.model_place import locate

    place = locate(word)
    if place.kind in ("folder", "file"):
        model_folder(word)
    elif place.path is not None and not place.path.is_file():
        raise MissingResourceError(f"model file {word}: No such file or directory")


def check_run_folder(path: Path) -> None:
    """Refuses a folder that holds no run.

    Raises:
        CheckpointError: It holds none.
    """
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path} is not a run folder: it has no config.json")


def check_training(layers: Layers, out: Path, trackers: Sequence[str]) -> None:
    """Checks the settings and names of a new run, in the order in which a run uses them.

    Raises:
        UserError: A setting, name, file or folder does not fit.
    """
    from ddpo.trainer.settings import written_config

    check_trackers(trackers)
    config = written_config(layers)
    check_device_name(config.device)
    check_prompt_list(config.prompts)
    check_reward(config.reward)
    if config.held_out:
        check_reward(config.held_out)
        check_prompt_list(config.held_out_prompts)
    check_model(config.model)
    from ddpo.trainer.run.folder import RunFolder

    RunFolder.check_new(out)


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


def check_evaluation(options: dict[str, Any]) -> None:
    """Checks the names of an evaluation: its models, rewards, prompts and device.

    Args:
        options: Fields of `EvalConfig` by name.

    Raises:
        UserError: A name, file or folder cannot be found, or two options exclude each other.
    """
    from ddpo.eval.config import check_models_given
    from ddpo.policies.checkpoints.folder import find_checkpoint

    checkpoints: Sequence[str] = options.get("checkpoints") or ()
    images: Sequence[str] = options.get("images") or ()
    if options["leaks"] not in ("report", "drop"):
        raise ConfigError(f"--leaks must be report or drop, got {options['leaks']!r}")
    check_models_given(checkpoints, images, options.get("rewards") or ())
    check_device_name(options.get("device"))
    for text in images:
        name, equals, place = text.partition("=")
        refuse_address(place)
        if not equals or not name or not Path(place).exists():
            raise ConfigError(
                f"--images {text!r} is not NAME=FOLDER with an existing folder, table or archive"
            )
    for checkpoint in checkpoints:
        if _is_local(checkpoint):
            find_checkpoint(checkpoint, options.get("base"), options.get("trust") or ())
    for file in options.get("preferences") or ():
        check_preferences(file)
    for expression in options.get("rewards") or ():
        check_reward(expression)
    for text in (*(options.get("prompts") or ()), options.get("trained_prompts") or ""):
        if text and not os.path.exists(text):
            check_prompt_list(text.rpartition("=")[2])


def _is_local(checkpoint: str) -> bool:
    """True for a path that exists, or a word that is no hub id."""
    return os.path.exists(os.path.expanduser(checkpoint)) or checkpoint.count("/") != 1
