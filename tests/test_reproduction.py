"""The page of the paper's comparison: its figure is in its place, and the page is filled."""

from __future__ import annotations

import math
import re
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"


def test_curves_and_intervals_are_where_they_should_be() -> None:
    """One panel from 0 to 4: 2 is in the middle of its height, the last query at its right edge."""
    tool = runpy.run_path(str(ROOT / "tools" / "curves_figure.py"))
    curves = [
        tool["Curve"]("a & b", [0, 10], [(0.0, 0.0), (2.0, 2.0)]),
        tool["Curve"]("one seed", [0, 10], [(0.0, math.nan), (1.0, math.nan)]),
    ]
    root = ET.fromstring(tool["curves_figure"]({"reward": curves, "none": []}))
    (box,) = root.iter(f"{SVG}rect")
    left, top, width, height = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
    lines = [
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        for line in root.iter(f"{SVG}polyline")
    ]
    assert lines[0] == [
        pytest.approx((left, top + height), abs=0.1),
        pytest.approx((left + width, top + height / 2), abs=0.1),
    ]
    assert lines[1][-1][1] == pytest.approx(top + height * 3 / 4, abs=0.1)
    first = next(root.iter(f"{SVG}polygon")).attrib["points"].split()
    assert [float(point.split(",")[1]) for point in first[1:3]] == pytest.approx(
        [top, top + height], abs=0.1
    )  # 4 and 0
    assert "a & b" in [text.text for text in root.iter(f"{SVG}text")]


def test_the_page_is_filled() -> None:
    text = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    for block in ("methods", "control", "guidance"):
        table = text.partition(f"<!-- {block}:begin -->")[2].partition(f"<!-- {block}:end -->")[0]
        assert len(re.findall(r"^\| ", table, re.MULTILINE)) > 1
        assert "not run" not in table
    for link in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", text):
        name = "".join(link)
        assert "://" in name or (ROOT / "docs" / name).exists(), name
