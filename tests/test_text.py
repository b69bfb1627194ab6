"""The formatters of text for people, against texts written by hand."""

from __future__ import annotations

import math

import pytest

from ddpo.text import (
    byte_size,
    capital,
    count,
    duration,
    listed,
    percent,
    shortened,
    shortened_middle,
    shortest_number,
    single_line,
)


def test_white_space_becomes_one_space() -> None:
    assert single_line("  a\n\tred   fox \r\n") == "a red fox"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("ab", "ab"),
        ("a\n b", "a b"),
        ("abcd", "abc…"),
        ("ab cd", "ab…"),
        ("a" + " " * 100, "a…"),
    ],
)
def test_long_texts_are_cut(text: str, result: str) -> None:
    assert shortened(text, 3) == result


def test_the_middle_of_a_long_text_is_left_out() -> None:
    assert shortened_middle("one two\nthree", 5, 5) == "one two three"
    assert shortened_middle("one two three four", 5, 4) == "one t … four"


@pytest.mark.parametrize(
    ("items", "text"),
    [([], ""), (["A"], "A"), (["A", "B"], "A and B"), (["A", "B", "C"], "A, B and C")],
)
def test_a_list_reads_as_english(items: list[str], text: str) -> None:
    assert listed(items) == text


def test_only_one_takes_the_singular() -> None:
    assert [count(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert count(3, "batch") == "3 batches"


def test_a_capital_leaves_the_other_letters() -> None:
    assert [capital(text) for text in ("", "the CLIP score", "ÿ")] == ["", "The CLIP score", "Ÿ"]


@pytest.mark.parametrize(
    ("share", "decimals", "text"),
    [(0.125, 0, "12 %"), (-0.031, 1, "−3.1 %"), (1.0, 2, "100.00 %"), (math.nan, 1, "–")],
)
def test_shares_in_percent(share: float, decimals: int, text: str) -> None:
    assert percent(share, decimals) == text


def test_the_space_before_the_percent_sign_can_be_left_out() -> None:
    assert percent(0.5, space="") == "50%"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2"),
        (0.1, "0.1"),
        (-1e-7, "-1e-07"),
        (1 / 3, "0.3333333333333333"),
        (1234567.0, "1234567.0"),
    ],
)
def test_the_shortest_number_reads_back_exactly(value: float, text: str) -> None:
    assert shortest_number(value) == text
    assert float(text) == value


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (25_300_000_000, "25.3 GB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_sizes_have_decimal_units(size: float, text: str) -> None:
    assert byte_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (89.4, "89 s"),
        (90.0, "2 min"),
        (484.0, "8 min"),
        (5399.0, "90 min"),
        (5400.0, "1.5 h"),
        (86400.0, "24.0 h"),
    ],
)
def test_durations_have_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text
