"""Checks of an evaluation's arguments that import no torch, so that a typo answers at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ddpo.cli.early import (
    check_checkpoint,
    check_named_weights,
    check_prompt_list,
    check_reward,
)
from ddpo.device_words import check_device_name
from ddpo.errors import ConfigError

if TYPE_CHECKING:
    from ddpo.eval.inputs.checkpoints import NamedCheckpoint
    from ddpo.eval.report.fail_if import Condition
    from ddpo.types import Prompt

__all__ = ["check_evaluation", "check_preferences"]


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


def check_evaluation(
    options: dict[str, Any], conditions: Sequence[Condition] = ()
) -> list[NamedCheckpoint] | None:
    """Checks the names of an evaluation: its models, rewards, prompts, device and conditions.

    Args:
        options: Fields of `EvalConfig` by name.
        conditions: Conditions on the report.

    Returns:
        The checkpoints that were found; None for an evaluation of images.

    Raises:
        UserError: A name, file or folder cannot be found, or two options exclude each other.
    """
    from ddpo.eval.config import check_models_given, check_nothing_to_sample
    from ddpo.eval.inputs.named_folders import named_folders

    checkpoints: Sequence[str] = options.get("checkpoints") or ()
    images: Sequence[str] = options.get("images") or ()
    rewards: Sequence[str] = options.get("rewards") or ()
    if options["leaks"] not in ("report", "drop"):
        raise ConfigError(f"--leaks must be report or drop, got {options['leaks']!r}")
    check_models_given(checkpoints, images, rewards)
    check_nothing_to_sample(options)
    check_device_name(options.get("device"))
    if images:
        named_folders(images)
    for file in options.get("preferences") or ():
        check_preferences(file)
    for expression in rewards:
        check_reward(expression)
    for text in (*(options.get("prompts") or ()), options.get("trained_prompts") or ""):
        if text and not os.path.exists(text):
            check_prompt_list(text.rpartition("=")[2])
    for expression in rewards:
        check_named_weights(expression)
    if options.get("out") is not None:
        from ddpo.io.atomic import check_folder_writable

        check_folder_writable(options["out"])
    return _check_checkpoints(checkpoints, options, conditions) if checkpoints else None


def _check_checkpoints(
    checkpoints: Sequence[str], options: Mapping[str, Any], conditions: Sequence[Condition]
) -> list[NamedCheckpoint]:
    """Finds the checkpoints, and checks their base models, rewards and prompt lists.

    Raises:
        UserError: One cannot be found, or a condition names an unknown prompt list.
    """
    from ddpo.eval.inputs.checkpoints import find_named

    found = find_named(checkpoints, options.get("base"), options.get("trust") or ())
    check_checkpoint(found[0].info)
    for one in found:
        if isinstance(reward := one.run.config.get("reward"), str):
            check_named_weights(reward)
    if any(condition.split for condition in conditions):
        _check_conditions(conditions, found, options)
    return found


def _check_conditions(
    conditions: Sequence[Condition], found: Sequence[NamedCheckpoint], options: Mapping[str, Any]
) -> None:
    """Checks the prompt lists that conditions name; models and rewards are checked by the plan."""
    from ddpo.eval.inputs.splits import load_splits
    from ddpo.prompts import load_prompts

    trained: list[Prompt] | None = [prompt for one in found for prompt in one.run.trained or ()]
    if options.get("trained_prompts"):
        trained = list(load_prompts(options["trained_prompts"]).prompts)
    elif any(one.run.trained is None for one in found):
        trained = None
    splits = load_splits(
        options.get("prompts") or (),
        trained,
        model=found[0].info.model,
        leaks=options["leaks"],
        limit=options.get("limit"),
    )
    names = [split.name for split, _ in splits]
    for condition in conditions:
        condition.check([condition.model], names, [condition.reward])
