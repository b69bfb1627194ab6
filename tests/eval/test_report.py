"""The files of a report say what was computed, and reading gives back what was written."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from ddpo.errors import ConfigError
from ddpo.eval.protocol import Evaluation
from ddpo.eval.report import Report, load_report, read_curve, save_report
from ddpo.eval.samples import read_samples, write_samples
from ddpo.eval.tables import Pair


def test_report_comes_back_as_it_was(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    save_report(path, report)
    again = load_report(path)
    assert repr(again) == repr(report)  # repr, since NaN is not equal to itself
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]
    values = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert values["schema_version"] == 1
    lonely = next(gain for gain in values["gains"] if gain["split"] == "mine" and gain["reward"] == "brightness")
    assert lonely["paired"]["gain"]["low"] is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 1, "gains": 3}', '{"schema_version": 99}'])
def test_other_files_are_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_report(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_gains_can_be_recomputed_from_the_samples_alone(
    report: Report, evaluated: tuple[Evaluation, list[Pair], Path], tmp_path: Path
) -> None:
    found, _, _ = evaluated
    path = tmp_path / "samples.parquet"
    write_samples(path, found.rows, run="one", checkpoint="iteration-000020")
    table = pd.read_parquet(path)
    assert len(table) == 2 * 2 * 3 * 11  # policies, rewards, seeds, prompts
    assert set(table["run"]) == {"one"}
    wide = table.pivot_table(index=["split", "reward", "prompt_id", "index"], columns="policy", values="score")
    means = (wide["tuned"] - wide["base"]).groupby(["split", "reward"]).mean()
    for gain in report.gains:
        assert means[gain.split, gain.reward] == pytest.approx(gain.paired.gain.mean, rel=1e-5)
    missing = table[table["score"].isna()]
    assert len(missing) == 6
    assert set(missing["error"]) == {"not allowed"}


def test_samples_come_back(evaluated: tuple[Evaluation, list[Pair], Path], tmp_path: Path) -> None:
    found, _, _ = evaluated
    write_samples(tmp_path / "samples.parquet", found.rows, run="one", checkpoint="x")
    again = read_samples(tmp_path / "samples.parquet")
    assert [{**asdict(row), "score": str(row.score)} for row in again] == [{**asdict(row), "score": str(row.score)} for row in found.rows]
    (tmp_path / "broken.parquet").write_bytes(b"no")
    for name in ("broken.parquet", "none.parquet"):
        with pytest.raises(ConfigError, match=name):
            read_samples(tmp_path / name)


def test_curve_stops_at_a_torn_line(run_folder: Path, tmp_path: Path) -> None:
    curve = read_curve(run_folder / "metrics.jsonl")
    assert [point.iteration for point in curve] == list(range(1, 21))
    assert curve[-1].mean == pytest.approx(-0.3)
    assert read_curve(tmp_path / "none.jsonl") == ()


def test_every_mean_of_the_report_is_a_number(report: Report) -> None:
    assert len(report.gains) == 6
    assert all(math.isfinite(gain.paired.gain.mean) for gain in report.gains)
