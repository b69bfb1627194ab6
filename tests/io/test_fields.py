"""Kinds of values: what an object of JSON must have, and the fault in words."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ddpo.io.fields import (
    COUNT,
    DIGEST,
    FILE_NAME,
    NAME,
    SHORT,
    Items,
    ListOf,
    MapOf,
    Maybe,
    Real,
    Text,
    Whole,
    fault_of,
)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, COUNT),
        (2**53 - 1, COUNT),
        (-3, Whole(-3, 3)),
        (3, Real(0, 3)),
        (math.nan, float),
        (3, float),
        (True, bool),
        (True, object),
        ("a" * 64, DIGEST),
        ("iteration-000020", NAME),
        ("unet/model.safetensors", FILE_NAME),
        (None, Maybe(COUNT)),
        ([1, 2], ListOf(COUNT, 2, 2)),
        (["a", 1], Items((str, int))),
        ({"a": 1.5, "b": None}, MapOf(Maybe(Real()))),
        ({"a": 1, "other": "x"}, {"a": COUNT, "absent": Maybe(str)}),
        ("inf", (float, Text(test=("inf",).__contains__))),
    ],
)
def test_sound_values(value: Any, kind: Any) -> None:
    assert fault_of(value, kind) == ""


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (-1, COUNT),
        (2**53, COUNT),
        (10**19, COUNT),
        (True, COUNT),
        (1.0, COUNT),
        ("1", COUNT),
        (True, float),
        (1, bool),
        (math.inf, Real()),
        (math.nan, Real(0)),
        ("x" * 10_001, SHORT),
        ("a\0b", SHORT),
        ("A" * 64, DIGEST),
        ("a" * 63, DIGEST),
        ("..", NAME),
        (".", NAME),
        ("", NAME),
        ("a/b", NAME),
        ("x" * 256, NAME),
        ("a/../../b", FILE_NAME),
        ("/etc/passwd", FILE_NAME),
        ("", FILE_NAME),
        ([1], ListOf(COUNT, 2, 2)),
        ([1, -1], ListOf(COUNT)),
        ("ab", ListOf(str)),
        (["a"], Items((str, int))),
        (["a", "b"], Items((str, int))),
        ({}, MapOf(str, fewest=1)),
        ({"../x": 1}, MapOf(int, FILE_NAME)),
        ([], {"a": COUNT}),
        ("nan", (float, Text(test=("inf",).__contains__))),
    ],
)
def test_other_values(value: Any, kind: Any) -> None:
    fault = fault_of(value, kind, "value")
    assert fault.startswith(("its value", "it has no"))
    assert len(fault) < 200
    assert "\n" not in fault


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({}, "it has no best"),
        ({"best": {"score": 1}}, "it has no best.runs"),
        ({"best": {"score": "x", "runs": []}}, 'its best.score cannot be "x"'),
        ({"best": {"score": 1, "runs": [1, None]}}, "its best.runs[1] cannot be null"),
        ({"best": [1]}, "its best cannot be [1]"),
    ],
)
def test_a_fault_is_named_by_its_place(value: Any, fault: str) -> None:
    assert fault_of(value, {"best": {"score": float, "runs": ListOf(int)}}) == fault
