"""Recipes and assignments as plain nested values, and the `TrainConfig` that they make."""

from __future__ import annotations

import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from ddpo.errors import ConfigError, one_line
from ddpo.policies.image_size import Size, checked_size
from ddpo.ranges import value_text
from ddpo.recipes import SUFFIX, read_builtin, recipe_names
from ddpo.registry import nearest
from ddpo.trainer.config import INFINITY, TrainConfig

__all__ = ["config_from_dict", "merged", "read_recipe", "recipe_of", "set_value"]

UNSUPPORTED: Final[Mapping[str, str]] = {
    "true_cfg_scale": "ddpo has no true CFG of FLUX.1, whose guidance is an input of the denoiser "
    "(sample.guidance)",
    "negative_prompt": "ddpo has no negative prompts: guidance is away from the empty prompt",
    "cfg_normalization": "ddpo has no normalisation of guided outputs",
    "cfg_truncation": "ddpo has no guidance of some steps alone",
}
"""Settings of diffusers' pipelines that a user may look for, with the reason for refusing them."""
DELETE: Final = "\x7f"  # which TOML wants escaped, unlike JSON


def config_from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """The settings that plain values describe; those that are left out keep their defaults.

    Raises:
        ConfigError: a key is unknown (names the nearest), or a value is of a wrong type or out of
            range.
    """
    settings = {name: value for name, value in values.items() if name != "sources"}
    config = typing.cast(TrainConfig, _build(TrainConfig, settings, ""))
    return replace(config, sources=dict(values.get("sources", {})))


def _build(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """A dataclass of settings from plain values; `where` is the table's name with a dot."""
    hints = typing.get_type_hints(kind)
    hints.pop("sources", None)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key in UNSUPPORTED:
            raise ConfigError(f"setting {where + key!r}: {UNSUPPORTED[key]}")
        if key not in hints:
            near = nearest(key, hints)
            known = f"did you mean {where + near!r}?" if near else f"known: {', '.join(hints)}"
            raise ConfigError(f"unknown setting {where + key!r}; {known}")
        if is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"setting {where + key!r} must be a table, got {value_text(value)}"
                )
            arguments[key] = _build(typing.cast("type[Any]", hints[key]), value, f"{where}{key}.")
        else:
            arguments[key] = _typed(hints[key], value, where + key)
    return kind(**arguments)


def _typed(hint: Any, value: Any, key: str) -> Any:
    """A value in the type of its setting.

    Raises:
        ConfigError: it is of another type.
    """
    wanted = str if typing.get_origin(hint) in (Literal, types.UnionType) else hint
    if wanted is float and value == INFINITY:
        return math.inf
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return value  # made a float by the range of the setting
    if hint == Size:
        return checked_size(value, key)
    if typing.get_origin(hint) is tuple:
        is_list = isinstance(value, (list, tuple)) and len(value) > 0
        if not is_list or not all(isinstance(name, str) for name in value):
            raise ConfigError(
                f'setting {key!r} must be a list of names, such as ["to_q", "to_v"], got {value!r}'
            )
        return tuple(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigError(f"setting {key!r} must be {wanted.__name__}, got {value_text(value)}")
    return value


def read_recipe(recipe: Path | str) -> dict[str, Any]:
    """The plain values of a recipe.

    Args:
        recipe: a TOML file, or the name of a recipe of the package.

    Raises:
        ConfigError: there is no such file or name (the message has the nearest), or the file is not
            TOML in UTF-8.
    """
    path = Path(recipe).expanduser()
    if not path.is_file() and str(recipe) in recipe_names():
        return read_builtin(str(recipe))
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        near = nearest(path.name.removesuffix(SUFFIX), recipe_names())
        known = f"did you mean {near!r}?" if near else f"built in: {', '.join(recipe_names())}"
        raise ConfigError(f"{recipe}: no such recipe; {known}") from error
    except RecursionError as error:
        raise ConfigError(f"{recipe}: its values are nested too deeply") from error
    except (OSError, ValueError) as error:  # of Unicode, TOML, or a number of thousands of digits
        raise ConfigError(f"{recipe}: {one_line(error)}") from error


def recipe_of(config: TrainConfig) -> str:
    """All settings as a recipe in TOML, which `read_recipe` reads back.

    Texts, numbers, truth values and lists of texts are the same in JSON and in TOML.
    """
    values = config.to_dict()
    values.pop("sources", None)
    tables = {name: table for name, table in values.items() if isinstance(table, Mapping)}
    lines = [_toml_line(name, value) for name, value in values.items() if name not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(_toml_line(key, value) for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml_line(name: str, value: object) -> str:
    text = json.dumps(value, ensure_ascii=False).replace(DELETE, "\\u007f")
    return f"{name} = {text}"


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Plain nested values of `above`, completed by those of `below`."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            value = merged(under, value)
        result[key] = value
    return result


def set_value(values: dict[str, Any], assignment: str) -> None:
    """Applies an assignment to plain values, in place.

    Args:
        values: plain nested values.
        assignment: such as "optim.lr=1e-4". The right side is read as TOML, or else as text.

    Raises:
        ConfigError: there is no "=", or a part of the key is not a table.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"--set {assignment!r} is not of the form key=value, such as optim.lr=1e-4"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except RecursionError as error:
        raise ConfigError(f"--set {key.strip()}: its value is nested too deeply") from error
    except ValueError:  # also of integers with thousands of digits
        value = text.strip()
    *tables, last = key.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {assignment!r}: {table!r} is not a table")
    values[last] = value
