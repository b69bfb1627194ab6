"""How a reward is named on the command line: `name`, `./file.py:MyReward`, `pkg.module:Attr`, each with `:option=value,option=value`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ddpo.errors import ConfigError
from ddpo.registry import nearest
from ddpo.rewards.card import RewardOption

__all__ = ["RewardSpec", "parse_spec", "resolve_options"]

Value = str | float | int | bool | None


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """A parsed specification; `attribute` is empty for a registered name."""

    kind: Literal["name", "file", "object"]
    target: str  # the id, the path of the file, or the module
    attribute: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


def parse_spec(text: str) -> RewardSpec:
    """Reads a specification.

    Raises:
        ConfigError: it has none of the forms above.
    """
    target, options = text.strip(), ""
    if found := re.search(r":(?=\w+=)", target):
        target, options = target[: found.start()], target[found.end() :]
    given: dict[str, str] = {}
    for part in options.split(",") if options else []:
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"reward {text!r}: {part!r} is not of the form option=value")
        given[name.strip()] = value.strip()
    if found := re.fullmatch(r"(.+\.py)(?::(\w+))?", target):
        return RewardSpec("file", found[1], found[2] or "", given)
    if found := re.fullmatch(r"(\w+(?:\.\w+)*):(\w+(?:\.\w+)*)", target):
        return RewardSpec("object", found[1], found[2], given)
    if not target or ":" in target or target.endswith(("/", "\\")):
        raise ConfigError(f"reward {text!r} is not of the form name, ./file.py:Attribute or package.module:Attribute, with :option=value,…")
    return RewardSpec("name", target, "", given)


def resolve_options(reward: str, known: Sequence[RewardOption], given: Mapping[str, Any]) -> dict[str, Value]:
    """Every option of a reward with the given or the default value, of the default's type.

    Raises:
        ConfigError: an option that the reward does not have (names the nearest), or a value of the wrong type.
    """
    table = {option.name: option for option in known}
    for name in given:
        if name not in table:
            near = nearest(name, table)
            hint = f"did you mean {near!r}?" if near else f"it has {', '.join(table) or 'no options'}"
            raise ConfigError(f"reward {reward!r} has no option {name!r}; {hint}")
    return {name: _typed(reward, option, given[name]) if name in given else option.default for name, option in table.items()}


def _typed(reward: str, option: RewardOption, value: Any) -> Value:
    wanted = type(option.default)
    try:
        if isinstance(option.default, bool):
            return value if isinstance(value, bool) else {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        if isinstance(option.default, int):
            return int(value)
        if isinstance(option.default, float):
            return float(value)
    except (KeyError, ValueError, TypeError):
        raise ConfigError(f"reward {reward!r}: option {option.name!r} must be {wanted.__name__}, got {value!r}") from None
    return None if value is None else str(value)
