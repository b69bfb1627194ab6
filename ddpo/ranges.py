"""Ranges of numbers that a user can give, each declared beside its setting.

    seeds: Annotated[int, COUNT] = 4

`check_numbers` compares a dataclass of settings with the ranges in its annotations. The options of
the command line use the same ranges. NaN is in no range, and True and False are no numbers here.
"""

from __future__ import annotations

import math
import numbers
import typing
from dataclasses import dataclass
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.text import shortened

__all__ = [
    "BATCH",
    "BILLION",
    "ETA",
    "GUIDANCE",
    "IMAGES",
    "ITERATIONS",
    "MILLION",
    "PORT",
    "SECONDS",
    "SEED",
    "STEPS",
    "Range",
    "check_numbers",
    "finite_or_none",
    "ranges_of",
    "value_text",
]

MILLION: Final = 10**6
BILLION: Final = 10**9
HIGHEST_SHOWN: Final = 100_000  # largest upper bound in a help text
SHOWN: Final = 40  # characters of a refused value


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers that a setting may have.

    Attributes:
        low: Lowest number.
        high: Highest number, where infinity is refused.
        above: True if `low` itself is too low.
        below: True if `high` itself is too high.
        whole: True for integers only.
        infinity: Meaning of infinity, such as "no clipping"; "" if infinity is refused.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False
    infinity: str = ""

    @property
    def text(self) -> str:
        """The range in words, such as "above 0 and at most 1000, or inf for no clipping"."""
        low = f"{'above' if self.above else 'at least'} {_plain(self.low)}"
        if self.infinity:
            return f"{low}, or inf for {self.infinity}"
        return f"{low} and {'below' if self.below else 'at most'} {_plain(self.high)}"

    @property
    def brief(self) -> str:
        """The range for a help text, such as "1 to 1,000"; "" for all that a user expects.

        An upper bound that nobody reaches is left out.
        """
        low = f"{'above ' if self.above else ''}{_plain(self.low)}"
        if self.infinity:
            return f"{low} to inf, {self.infinity}"
        if self.high <= HIGHEST_SHOWN:
            return f"{low} to {'below ' if self.below else ''}{_plain(self.high)}"
        if self.above or self.low not in (0, 1):
            return low if self.above else f"{low} or more"
        return ""

    def checked(self, name: str, value: Any) -> int | float:
        """The value as an `int` or a `float`.

        Args:
            name: Name of the setting for the error, such as "optim.lr" or "--seeds".
            value: Value to check.

        Raises:
            ConfigError: It is no number, or outside the range.
        """
        number = _whole(value) if self.whole else _real(value)
        if number is None:
            kind = "a whole number" if self.whole else "a number"
            raise ConfigError(f"{name} must be {kind}, {self.text}, got {value_text(value)}")
        if not self._holds(number):
            raise ConfigError(f"{name} must be {self.text}, got {value_text(value)}")
        return number

    def _holds(self, number: float) -> bool:
        enough = number > self.low if self.above else number >= self.low
        if self.infinity:
            return enough
        return enough and (number < self.high if self.below else number <= self.high)


ITERATIONS: Final = Range(low=1, high=10**12, whole=True)
"""Iterations of a run; nothing is stored for each of them beforehand."""

SEED: Final = Range(low=0, high=2**63 - 1, whole=True)
"""Seeds; tables store them as integers of 64 bits."""

STEPS: Final = Range(low=1, high=1000, whole=True)
"""Denoising steps: the noise schedules have 1000."""

GUIDANCE: Final = Range(low=1, high=1000)
"""Scales of classifier-free guidance; float16 overflows beyond some thousands."""

ETA: Final = Range(low=0, high=2)
"""Stochasticity of the steps; DDIM takes at most 1 of it."""

BATCH: Final = Range(low=1, high=2**16, whole=True)
"""Images in one call of a model."""

IMAGES: Final = Range(low=1, high=MILLION, whole=True)
"""Images that one command samples; each has a key in memory."""

PORT: Final = Range(low=0, high=65_535, whole=True)  # 0: a free one
SECONDS: Final = Range(low=0, above=True, infinity="no limit")
"""Time limits; those of the operating system end at 9·10⁹ s."""


def finite_or_none(seconds: float | None) -> float | None:
    """A time limit for Python's functions, which take None for none and overflow at infinity."""
    return None if seconds is None or seconds > BILLION else seconds


def check_numbers(settings: Any, table: str = "") -> None:
    """Compares all numbers of a frozen dataclass with their declared ranges, and makes them plain.

    Numbers of NumPy become Python's. None passes where the type allows it.

    Args:
        settings: Dataclass whose annotations have ranges.
        table: Prefix of the names in errors, such as "optim.".

    Raises:
        ConfigError: A number is outside its range.
    """
    for name, (allowed, optional) in ranges_of(type(settings)).items():
        value = getattr(settings, name)
        if value is None and optional:
            continue
        number = allowed.checked(table + name, value)
        if type(value) is not type(number):
            object.__setattr__(settings, name, number)


def ranges_of(kind: type[Any]) -> dict[str, tuple[Range, bool]]:
    """The range of each number of a dataclass, and True where None is allowed too."""
    found = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, Range):
                found[name] = (extra, type(None) in typing.get_args(hint.__origin__))
    return found


def value_text(value: object) -> str:
    """A value on one short line, whatever its size."""
    if isinstance(value, numbers.Integral) and abs(int(value)) >= 10**SHOWN:
        return "a number of more than 40 digits"
    return shortened(repr(value), SHOWN)


def _whole(value: Any) -> int | None:
    """The value as an integer; None for anything that is not one."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return None
    return int(value)


def _real(value: Any) -> float | None:
    """The value as a float; None for NaN and for anything that is no number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf if value == abs(value) else -math.inf
    return None if math.isnan(number) else number


def _plain(number: float) -> str:
    """A bound, in full up to a million."""
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
