"""Numbers beside an interval are rounded to the second digit of its width; values by hand."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from pathlib import Path

import pytest

from ddpo.rounding import number, rounded, rounded_range

NAN = math.nan
INF = math.inf


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.6161, 0.5708, 0.6612, "0.616"),  # width 0.0904: thousandths
        (0.5872, 0.5331, 0.6413, "0.59"),  # width 0.1082: hundredths
        (148.2, 139.1, 157.2, "148"),  # width 18.1: ones
        (1.2345, -0.61, 3.08, "1.2"),  # width 3.69: tenths
        (12345.0, 11700.0, 12900.0, "12300"),  # width 1200: hundreds
        (12345.0, 12345 - 7, 12345 + 7, "12345"),  # width 14: ones
        (99.96, 99.5, 100.5, "100.0"),  # width 1.0: tenths
        (0.05, 0.0, 0.0999, "0.05"),  # width 0.10 when rounded: hundredths
        (0.0, -0.5, 0.5, "0.0"),
        (-0.04, -0.9, 0.8, "0.0"),  # no sign before 0
        (-0.31, -0.9, 0.3, "−0.3"),
        (4e-7, -1e-7, 9e-7, "4e-07"),  # tiny: width 1.0e-06
        (4e-9, -1e-7, 9e-7, "0"),
        (-2.3 - 3e-16, -2.3 - 7e-16, -2.3 + 4e-16, "−2.30"),  # a width of arithmetic alone
        (-6e-8, -1e-7, 9e-7, "−1e-07"),
        (3.21e9, 3.0e9, 3.42e9, "3.21e+09"),  # huge: width 4.2e+08
        (3.0e6, 1e5, 5.9e6, "3.0e+06"),
        (5.2, -3e-9, 4e-9, "5.2000000000"),  # a score beside a tiny change
    ],
)
def test_the_interval_decides_the_digits(value: float, low: float, high: float, text: str) -> None:
    assert rounded(value, low, high) == text
    assert rounded(value, high, low) == text


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.12345, NAN, NAN, "0.123"),  # one prompt
        (0.12345, -INF, INF, "0.123"),
        (0.12345, 0.12345, 0.12345, "0.123"),  # no spread
        (NAN, 0.1, 0.2, "–"),
        (INF, 0.1, 0.2, "∞"),
        (-INF, NAN, NAN, "−∞"),
        (0.0, NAN, NAN, "0.00"),
        (0.0, 0.0, 0.0, "0.00"),
    ],
)
def test_without_an_interval_there_are_three_digits(
    value: float, low: float, high: float, text: str
) -> None:
    assert rounded(value, low, high) == text == number(value)


def test_both_ends_have_the_place_of_the_second_digit() -> None:
    assert rounded_range(0.5708, 0.6612) == "+0.571 to +0.661"
    assert rounded_range(-0.0123, 0.2) == "−0.01 to +0.20"
    assert rounded_range(139.1, 157.2, signed=False) == "139 to 157"
    assert rounded_range(-INF, 0.25) == "−∞ to +0.250"
    assert rounded_range(NAN, NAN) == "– to –"


@pytest.mark.parametrize("exponent", range(-300, 300, 7))
def test_any_size_is_within_half_a_unit_of_the_second_digit(exponent: int) -> None:
    low, value, high = (digits * 10.0**exponent for digits in (1.07, 2.71828, 4.57))
    text = rounded(value, low, high)  # width 3.5: the second digit is a tenth
    assert abs(float(text) - value) <= 0.0501 * 10.0**exponent
    assert len(text) <= 9


@pytest.mark.parametrize("page", ["generalisation.md", "reading-a-report.md"])
def test_the_pages_end_a_gain_at_the_second_digit_of_its_interval(page: str) -> None:
    """Read from the text alone: the last digit of all three numbers is that of the width."""
    text = (Path(__file__).parents[1] / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r"([+−][\d.]+) \(([+−][\d.]+) to ([+−][\d.]+)\)", text)
    assert found
    for numbers in found:
        values = [Decimal(one.replace("−", "-")) for one in numbers]
        width = values[2] - values[1]
        digits = {one.as_tuple().exponent for one in values}
        assert len(digits) == 1, numbers
        assert 9 <= width.scaleb(-digits.pop()) <= 100, numbers  # 10 to 99 of its last digit


def test_the_tool_writes_a_gain_as_the_report_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "tools")
    monkeypatch.syspath_prepend(Path(__file__).parent / "eval")
    from archetypes import ARCHETYPES, report_of
    from generalisation import gains_table

    table = gains_table(report_of(*ARCHETYPES["healthy"]))
    cells = table.splitlines()[-1].strip("| ").split(" | ")
    assert cells[0] == "proxy"
    assert len(cells) == 4
    for cell, share in zip(cells[1:], ("", "; 94\u00a0%", "; 85\u00a0%"), strict=True):
        number = r"\+\d\.\d\d\d"
        assert re.fullmatch(rf"{number} \({number} to {number}\){share}", cell)
