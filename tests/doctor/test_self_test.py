"""The whole self-test at its tiny size, its report and its command."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpo.doctor.budget import Budget, Check, run_checks
from ddpo.doctor.machine import examine_machine
from ddpo.doctor.report import Report, SelfTestRecord
from ddpo.doctor.row import Outcome, Row
from ddpo.doctor.self_test import SelfTest
from ddpo.doctor.table import markdown
from ddpo.errors import ConfigError
from ddpo.rewards.cards import CARDS

Run = Callable[..., tuple[int, str, str]]
STATUSES = {"ok", "failed", "measured", "did not fit", "skipped"}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """All rows but the last: compiling the denoiser takes minutes on a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        return list(run_checks(SelfTest("cpu", "tiny").checks(Path(folder))[:-1], Budget(1000)))


def of(rows: list[Row], part: str) -> dict[str, Row]:
    return {row.subject: row for row in rows if row.part == part}


@pytest.mark.slow
def test_a_sound_machine_passes(rows: list[Row]) -> None:
    assert [row for row in rows if row.status in ("failed", "did not fit")] == []
    parts = "ratio, resume, scores, peak, denoiser, training, reward speed"
    assert ", ".join(dict.fromkeys(row.part for row in rows)) == parts
    ratios = of(rows, "ratio")
    assert set(ratios) == {"tiny, float32", "tiny, bfloat16", "tiny, float16"}
    assert [row.values["largest_ratio_deviation"] for row in ratios.values()] == [0, 0, 0]
    assert [row.values["largest_difference"] for row in of(rows, "resume").values()] == [0, 0]


@pytest.mark.slow
def test_every_reward_has_a_row_or_a_reason(rows: list[Row]) -> None:
    scores = of(rows, "scores")
    reasons = " ".join(row.note for row in scores.values() if row.status == "skipped")
    assert [name for name in CARDS if name not in scores and name not in reasons] == []
    assert scores["darkness"].status == "ok"
    random = scores["pickscore on random tiny CLIP"]
    assert random.status == "ok"
    assert float(random.values["largest_score"] or 0) > 0.1  # there is something to compare


@pytest.mark.slow
def test_the_report_has_every_row(rows: list[Row]) -> None:
    report = Report(
        examine_machine(), [], [], SelfTestRecord("cpu", "tiny", 1000.0, rows, finished=True)
    )
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert set(values) == {
        "schema",
        "ddpo",
        "created",
        "problems",
        "machine",
        "libraries",
        "rewards",
        "self_test",
    }
    assert set(values["self_test"]) == {"device", "size", "budget_s", "finished", "rows"}
    for row in values["self_test"]["rows"]:
        assert set(row) == {"part", "subject", "status", "values", "note", "seconds"}
        assert row["status"] in STATUSES
    page = markdown(values)
    table = [line for line in page.splitlines() if line.startswith("| ")]
    assert all(
        any(f"| {row.part} | {row.subject} | {row.status} |" in line for line in table)
        for row in rows
    )


def test_without_time_everything_is_skipped_in_words() -> None:
    rows = list(SelfTest("cpu", "tiny").rows(0))
    assert len(rows) > 15
    assert rows[-1].subject == "tiny, bfloat16, compiled"
    assert {row.status for row in rows} == {"skipped"}
    assert {row.note for row in rows} == {"the time budget of 0 s has ended"}


def outcome_of_compilation(test: SelfTest) -> Outcome:
    return test.checks(Path("unused"))[-1].measure()


def test_the_compiled_denoiser_is_compared_with_the_eager_one() -> None:
    """The compiler takes minutes on a CPU, so here it runs the functions uncompiled."""
    test = SelfTest("cpu", "tiny")
    with torch.compiler.set_stance("force_eager"):
        found = outcome_of_compilation(test)
    assert found.status == "measured"
    assert found.values["items_per_call"] == 2
    assert all(
        float(found.values[name] or 0) > 0.1 for name in ("forward_speedup", "training_speedup")
    )


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no C++ compiler"),
        ImportError("no C++ compiler"),
        NotImplementedError("no C++ compiler"),
    ],
)
def test_a_machine_without_a_compiler_is_not_broken(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("ddpo.doctor.self_test.compiled_cost", fails)
    found = outcome_of_compilation(SelfTest("cpu", "tiny"))
    assert found.status == "skipped"
    assert (
        found.note == f"torch.compile does not work here: {type(error).__name__}: no C++ compiler"
    )


def test_the_full_size_has_all_parts_of_the_published_models() -> None:
    checks = SelfTest("cpu", "full").checks(Path("unused"))
    subjects = {(check.part, check.subject) for check in checks}
    assert {("ratio", f"sd15, {dtype}") for dtype in ("float32", "bfloat16", "float16")} <= subjects
    assert ("training", "sd15, bfloat16, LoRA") in subjects
    assert ("training", "sdxl, bfloat16, LoRA") in subjects
    assert ("reward speed", "pickscore on random ViT-L/14, bfloat16") in subjects
    assert checks[-1].subject == "sd15, bfloat16, compiled"  # the longest comes last


def failing(self: SelfTest, folder: Path) -> list[Check]:
    def fine() -> Outcome:
        return Outcome("ok", {"largest_ratio_deviation": 0.0})

    def red() -> Outcome:
        return Outcome("failed", {"largest_ratio_deviation": 0.25}, "the ratio | must be [1]")

    return [Check("ratio", "good", 0, fine), Check("ratio", "bad", 0, red)]


def test_a_failed_check_is_exit_code_1_and_in_both_files(
    ddpo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SelfTest, "checks", failing)
    code, out, err = ddpo(
        "doctor", "--gpu", "--device", "cpu", "--models", "tiny", "--out", tmp_path / "report.md"
    )
    assert code == 1
    assert "ratio good: ok largest_ratio_deviation 0" in out
    assert "ratio bad: failed largest_ratio_deviation 0.25; the ratio | must be [1]" in out
    assert "problem: ratio, bad: the ratio | must be [1]" in err
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["problems"] == ["ratio, bad: the ratio | must be [1]"]
    assert [row["status"] for row in values["self_test"]["rows"]] == ["ok", "failed"]
    assert values["self_test"]["finished"] is True
    page = (tmp_path / "report.md").read_text()
    assert (
        "| ratio | bad | failed | largest_ratio_deviation 0.25 | the ratio \\| must be [1] |"
        in page
    )
    assert "- **ratio, bad: the ratio | must be [1]**" in page


def test_rows_are_on_disk_before_the_test_ends(
    ddpo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def reading(self: SelfTest, folder: Path) -> list[Check]:
        def look() -> Outcome:
            seen.append(json.loads((tmp_path / "report.json").read_text())["self_test"])
            return Outcome("ok")

        return [Check("a", "first", 0, lambda: Outcome("ok")), Check("b", "second", 0, look)]

    monkeypatch.setattr(SelfTest, "checks", reading)
    code, _, _ = ddpo(
        "doctor", "--gpu", "--device", "cpu", "--models", "tiny", "--out", tmp_path / "report"
    )
    assert code == 0
    assert ([row["subject"] for row in seen[0]["rows"]], seen[0]["finished"]) == (["first"], False)


def test_json_alone_is_on_standard_output(ddpo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SelfTest, "checks", failing)
    code, out, err = ddpo("doctor", "--gpu", "--device", "cpu", "--json")
    assert code == 1
    assert json.loads(out)["self_test"]["size"] == "full"
    assert "ratio good: ok" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--models", "tiny"], "--models belongs to the self-test: add --gpu"),
        (["--device", "cpu"], "--device belongs to the self-test: add --gpu"),
        (["--minutes", "1"], "--minutes belongs to the self-test: add --gpu"),
        (["--gpu", "--device", "meta"], "device 'meta' cannot be used; "),
        (["--gpu", "--device", "nonsense"], "device 'nonsense' cannot be used: "),
        (["--gpu", "--device", ""], "device '' cannot be used: "),
        (["--gpu", "--device", "cuda:99"], "device 'cuda:99' cannot be used; "),
        (
            ["--gpu", "--device", "cpu", "--minutes", "inf"],
            "--minutes must be at least 0 and at most 1,000,000, got inf",
        ),
        (["--out", "report.txt"], "--out report.txt: the report is a .json and a .md file"),
        (["--out", "taken.json"], "taken.json is a folder, not a file to write"),
        (["--out", "file/report"], "cannot be written"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], says: str, ddpo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.json").mkdir()
    (tmp_path / "file").write_text("")
    code, _, err = ddpo("doctor", *arguments)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process"):
        SelfTest("cpu", "tiny")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator here")
def test_without_an_accelerator_the_command_says_what_to_do(ddpo: Run) -> None:
    code, _, err = ddpo("doctor", "--gpu")
    assert code == 2
    assert (
        "torch finds no accelerator on this machine; `ddpo doctor --gpu --device cpu --models tiny`"
        in err
    )
