"""Peft's settings of a LoRA: their files, those that ddpo accepts, and the scale that they set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ddpo.errors import CheckpointError
from ddpo.io.fields import COUNT, Fields, MapOf, Maybe, Real, shown
from ddpo.io.json_files import JsonError, check_fields, parse_foreign, read_foreign_json
from ddpo.policies.pipelines import TRANSFORMER, UNET

__all__ = ["PEFT_CONFIG", "PEFT_FILE", "alpha_of", "peft_settings"]

PEFT_FILE: Final = "adapter_model.safetensors"  # the name that peft uses
PEFT_CONFIG: Final = "adapter_config.json"
PLAIN_PATTERN: Final = re.compile(r"\^?(?:[\w.-]|\\[.-])+\$?")  # peft reads keys as patterns
PEFT_SETTINGS: Final[Mapping[str, tuple[Any, ...] | None]] = {
    "peft_type": ("LORA", None),
    "bias": ("none", None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
    **dict.fromkeys(
        (
            "r",
            "lora_alpha",
            "rank_pattern",
            "alpha_pattern",
            "use_rslora",
            "target_modules",
            "exclude_modules",
            "layers_to_transform",
            "layers_pattern",
            "lora_dropout",
            "fan_in_fan_out",
            "task_type",
            "auto_mapping",
            "peft_version",
            "base_model_name_or_path",
            "revision",
            "inference_mode",
            "megatron_core",
            "qalora_group_size",
            "eva_config",
            "runtime_config",
            "velora_config",
            "ensure_weight_tying",
        )
    ),
}
"""The accepted values of peft's settings; None accepts any value.

Settings with None are honoured or do not affect a finished adapter. Settings that are not listed
must be unset. Other values of `init_lora_weights`, such as "pissa", change the base weights.
"""
SETTINGS: Final[Fields] = {
    "r": Maybe(COUNT),
    "lora_alpha": Maybe(Real()),
    "alpha_pattern": Maybe(MapOf(Real())),
}
"""The kinds of peft's settings that scale a LoRA."""


def peft_settings(file: Path, facts: Mapping[str, str]) -> dict[str, Any]:
    """The settings beside a LoRA or in its header; {} without any.

    Args:
        file: Safetensors file.
        facts: Metadata of its header.

    Raises:
        CheckpointError: The settings are damaged, missing beside a file with peft's name, or of an
            adapter that ddpo does not support.
    """
    settings = _of_config(file) or _of_header(file, facts)
    _check_settings(file, settings)
    return settings


def alpha_of(layer: str, rank: int, settings: Mapping[str, Any]) -> float:
    """The alpha of a layer by peft's settings; its rank if they state none."""
    from peft.utils.other import get_pattern_key

    patterns = dict(settings.get("alpha_pattern") or {})
    if odd := sorted(pattern for pattern in patterns if not PLAIN_PATTERN.fullmatch(pattern)):
        raise CheckpointError(
            f"the key {shown(odd[0])} of alpha_pattern is no name of a layer, "
            "and ddpo reads no other regular expressions"
        )
    alpha = patterns.get(get_pattern_key(list(patterns), layer), settings.get("lora_alpha"))
    return float(rank if alpha is None else alpha)


def _of_config(file: Path) -> dict[str, Any]:
    """The `adapter_config.json` that peft writes beside the weights; {} without one.

    Raises:
        CheckpointError: The config is damaged, or missing beside a file with peft's name.
    """
    path = file.with_name(PEFT_CONFIG)
    if file.name != PEFT_FILE:
        return {}
    if not path.exists():
        raise CheckpointError(
            f"{file} lacks {PEFT_CONFIG} beside it, which says by how much its layers are scaled"
        )
    return read_foreign_json(path, SETTINGS)


def _of_header(file: Path, facts: Mapping[str, str]) -> dict[str, Any]:
    """Peft's settings from the file's header, where newer diffusers write them; {} without any."""
    try:
        found = parse_foreign(facts.get("lora_adapter_metadata", "{}"))
        check_fields(found, {})
        settings = {
            key.removeprefix(f"{UNET}.").removeprefix(f"{TRANSFORMER}."): value
            for key, value in found.items()
            if not key.startswith("text_encoder")
        }
        check_fields(settings, SETTINGS)
    except JsonError as error:
        raise CheckpointError(
            f"{file} is damaged: its header says lora_adapter_metadata, but {error}"
        ) from error
    return settings


def _check_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Raises for settings of peft with an output other than W x + alpha / rank · B A x."""
    for name, value in settings.items():
        accepted = PEFT_SETTINGS.get(name, (None, False, "", [], {}))
        if accepted is not None and value not in accepted:
            raise CheckpointError(
                f"{file} is no plain LoRA: it was made with {name} = {value!r}, "
                "which ddpo does not support"
            )
