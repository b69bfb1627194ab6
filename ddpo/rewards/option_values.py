"""The values of a reward's options, in the types of their defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ddpo.devices import AUTO
from ddpo.errors import ConfigError
from ddpo.ranges import Range, value_text
from ddpo.registry import nearest
from ddpo.rewards.card import PLACEMENT, RewardOption
from ddpo.rewards.spec import STEPS

__all__ = ["resolve_options"]

Value = str | float | int | bool | None

WHOLE: Final = Range(low=-(2**63), high=2**63 - 1, whole=True)
BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}


def resolve_options(
    reward: str, known: Sequence[RewardOption], given: Mapping[str, Any]
) -> dict[str, Value]:
    """Every option of a reward with the given or the default value, in the type of the default.

    A device that is not given is "auto": that of the run, or the accelerator of this machine.

    Raises:
        ConfigError: The reward has no such option (the message names the nearest), or a value has
            the wrong type.
    """
    table = {option.name: option for option in known}
    for name in given:
        if name not in table:
            near = nearest(name, [*table, *STEPS])
            hint = (
                f"did you mean {near!r}?" if near else f"it has {', '.join(table) or 'no options'}"
            )
            raise ConfigError(f"reward {reward!r} has no option {name!r}; {hint}")
    values: dict[str, Value] = {}
    for name, option in table.items():
        if name in given:
            values[name] = _typed(reward, option, given[name])
        else:
            values[name] = AUTO if name in PLACEMENT else option.default
    return values


def _not_nan(value: Any) -> float:
    """The value as a float.

    Raises:
        ValueError: It is NaN or no number.
    """
    number = float(value)
    if math.isnan(number):
        raise ValueError
    return number


def _typed(reward: str, option: RewardOption, value: Any) -> Value:
    """A value in the type of the option's default."""
    try:
        if isinstance(option.default, bool):
            return value if isinstance(value, bool) else BOOLEANS[str(value).lower()]
        if isinstance(option.default, int):
            return WHOLE.checked(option.name, int(value) if isinstance(value, str) else value)
        if isinstance(option.default, float):
            return _not_nan(value)
    except (KeyError, ValueError, TypeError, OverflowError):
        wanted = type(option.default).__name__
        raise ConfigError(
            f"reward {reward!r}: option {option.name!r} must be {wanted}, got {value_text(value)}"
        ) from None
    return None if value is None else str(value)
