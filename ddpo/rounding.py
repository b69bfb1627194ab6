"""Numbers for people: three significant digits, or the digits that an interval supports."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["number", "rounded", "rounded_range"]

DIGITS: Final = 3  # significant digits of a number without an interval
LARGE: Final = 1e6  # from here on, and below SMALL, numbers have an exponent
SMALL: Final = 1e-4
ERROR: Final = 1e-9  # share of a number below which a width is an error of arithmetic


def number(value: float, digits: int = DIGITS, signed: bool = False) -> str:
    """`value` with `digits` significant digits and a true minus sign; "–" for NaN."""
    if not math.isfinite(value):
        return _not_finite(value)
    size = abs(value)
    if size >= 10 ** (digits + 3) or 0 < size < SMALL:
        return _with_sign(f"{size:.{digits - 1}e}", value, signed)
    magnitude = math.floor(math.log10(size)) if size else 0
    return _with_sign(f"{size:.{max(0, digits - 1 - magnitude)}f}", value, signed)


def rounded(value: float, low: float, high: float, signed: bool = False) -> str:
    """`value` rounded to the second significant digit of the width of an interval.

    Further digits say nothing that the interval supports. Ends of one interval and the scores
    beside it are rounded alike. Without an interval, `number` rounds.

    Args:
        value: number to write: an estimate, an end of its interval, or a score beside it.
        low: lower end of the 95 % interval.
        high: upper end of the interval; NaN, infinite or next to `low` where there is none.
        signed: True for a plus sign before positive numbers.

    Source: two digits of the uncertainty, JCGM 100:2008 (GUM), section 7.2.6.
    """
    width = abs(high - low)
    largest = max(abs(value), abs(low), abs(high))
    if not math.isfinite(value) or not math.isfinite(width) or width <= ERROR * largest:
        return number(value, signed=signed)
    place = int(f"{width:.1e}".partition("e")[2]) - 1  # power of ten of the second digit
    if not SMALL <= largest < LARGE:
        return _with_exponent(value, place, signed)
    size = abs(value) if place < 0 else 10**place * round(abs(value) / 10**place)
    return _with_sign(f"{size:.{max(0, -place)}f}", value, signed)


def rounded_range(low: float, high: float, signed: bool = True) -> str:
    """Both ends of an interval, rounded as by `rounded`."""
    return f"{rounded(low, low, high, signed)} to {rounded(high, low, high, signed)}"


def _with_exponent(value: float, place: int, signed: bool) -> str:
    """`value` rounded at 10^`place`, as a power of ten."""
    exponent = math.floor(math.log10(abs(value))) if value else place
    if exponent < place:  # it rounds to one unit of the place, or to 0
        units = round(abs(value) / 10.0**place)
        return _with_sign(f"{units}e{place:+03d}" if units else "0", value, signed)
    return _with_sign(f"{abs(value):.{exponent - place}e}", value, signed)


def _with_sign(text: str, value: float, signed: bool) -> str:
    """The text of |value| with its sign; a text of 0 has none."""
    if float(text) == 0:
        return text
    if value < 0:
        return f"\N{MINUS SIGN}{text}"
    return f"+{text}" if signed else text


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "∞" if value > 0 else "−∞"
