"""`report.json` holds the report, and loading it gives the same report."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from report_fixture import make

from ddpo.errors import ConfigError
from ddpo.eval.inputs.runs import read_curve
from ddpo.eval.report.data import load_report, save_report


def test_report_comes_back_as_it_was(tmp_path: Path) -> None:
    report, _ = make(tmp_path / "images")
    path = tmp_path / "new" / "report.json"
    save_report(path, report)
    again = load_report(path)
    assert repr(again) == repr(report)  # repr, since NaN is not equal to itself
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]
    values = json.loads(
        path.read_text(encoding="utf-8"),
        parse_constant=lambda name: pytest.fail(f"{name} is not JSON"),
    )
    assert values["schema_version"] == 2
    first = path.read_bytes()
    save_report(path, again)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema_version": 2, "gains": 3}',
        '{"schema_version": 99}',
        '{"schema_version": 1}',
    ],
)
def test_other_files_are_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_report(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_curve_stops_at_a_torn_line(run_folder: Path, tmp_path: Path) -> None:
    curve = read_curve(run_folder / "metrics.jsonl")
    assert [point.iteration for point in curve] == list(range(1, 21))
    assert (curve[4].queries, curve[4].mean) == (40, -0.45)
    assert read_curve(tmp_path / "none") == ()


def test_numbers_that_do_not_exist_are_null(tmp_path: Path) -> None:
    report, _ = make(tmp_path / "images", prompts=1, seeds=1)  # one prompt: no interval
    path = tmp_path / "report.json"
    save_report(path, report)
    gain = json.loads(path.read_text(encoding="utf-8"))["gains"][0]["paired"]["gain"]
    assert gain["low"] is None
    assert math.isnan(load_report(path).gains[0].paired.gain.low)


def test_every_field_is_documented() -> None:
    """The tables of the docs name every key of the report and every column of the samples."""
    from ddpo.eval.generate.samples import COLUMNS
    from ddpo.eval.report.data import Report

    text = (Path(__file__).parents[2] / "docs" / "evaluation-files.md").read_text(encoding="utf-8")
    missing = [name for name in (*_names(Report), *COLUMNS) if f"`{name}`" not in text]
    assert missing == []


def _names(kind: type) -> Iterator[str]:
    import typing

    hints = typing.get_type_hints(kind).values()
    for field, hint in zip(fields(kind), hints, strict=True):  # type: ignore[arg-type]
        if field.compare:  # else it is not in the file
            yield field.name
        for part in typing.get_args(hint):
            if is_dataclass(part) and kind.__name__ == "Report":
                yield from (inner.name for inner in fields(part))
