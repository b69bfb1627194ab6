"""`ddpo eval` and `ddpo compare` from end to end on the model in closed form."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from analytic import AnalyticPolicy
from PIL import Image
from typer.testing import CliRunner, Result

from ddpo.cli.main import app
from ddpo.errors import ConfigError, MissingResourceError
from ddpo.eval.generate.samples import read_samples
from ddpo.eval.report.data import load_report


def call(*arguments: object) -> Result:
    return CliRunner().invoke(
        app, [str(argument) for argument in arguments], catch_exceptions=False
    )


@pytest.fixture
def lists(tmp_path: Path) -> list[str]:
    """Three short lists as options."""
    (tmp_path / "seen.txt").write_text("a cat\na dog\na horse\na monkey\n")
    (tmp_path / "unseen.txt").write_text("a yak\nan otter\nthe cats\n")
    return [
        "--prompts",
        f"animals={tmp_path / 'seen.txt'}",
        "--prompts",
        f"mine={tmp_path / 'unseen.txt'}",
        "--per-prompt",
        "3",
    ]


def test_eval_writes_a_report_and_resumes_for_free(
    run_folder: Path, loaded: list[AnalyticPolicy], lists: list[str], tmp_path: Path
) -> None:
    result = call("eval", "--checkpoint", run_folder, *lists)
    assert result.exit_code == 0
    said = " ".join(result.output.split())
    assert "animals: 4 prompts" in said
    assert "not in training; 1 of them too near to training prompts" in said
    out = run_folder / "eval" / "iteration-000020"
    assert str(out / "report.html") in result.output
    report = load_report(out / "report.json")
    assert [(split.name, split.role) for split in report.splits] == [
        ("animals", "seen"),
        ("mine", "external"),
    ]
    assert [(leak.heldout, leak.train) for leak in report.splits[1].leaks] == [
        ("the cats", "a cat")
    ]
    first = report.gains[0]
    assert (first.model, first.reward) == ("one", "darkness")
    assert first.paired.gain.high < 0  # brighter images: darkness fell
    assert len(report.curves[0].points) == 20
    rows = read_samples(out / "samples.parquet")
    assert len(rows) == 2 * 3 * 7 * len(report.rewards)
    files = {row.image for row in rows}
    assert all((out / file).is_file() for file in files)
    before = {path: path.read_bytes() for path in out.glob("report.*")}
    drawn = sum(policy.calls for policy in loaded)
    assert call("eval", "--checkpoint", run_folder, *lists).exit_code == 0
    assert sum(policy.calls for policy in loaded) == drawn
    assert {path: path.read_bytes() for path in out.glob("report.*")} == before
    weights = run_folder / "checkpoints" / "iteration-000020" / "pytorch_lora_weights.safetensors"
    weights.write_text(
        "0.1"
    )  # trained further: other images of the tuned model, the same of the base model
    assert call("eval", "--checkpoint", run_folder, *lists).exit_code == 0
    again = {
        (row.model, row.prompt_id, row.index): row.image_sha256
        for row in read_samples(out / "samples.parquet")
    }
    old = {(row.model, row.prompt_id, row.index): row.image_sha256 for row in rows}
    assert {key[0] for key in old if old[key] != again[key]} == {"one"}


def test_without_training_every_gain_is_exactly_zero(
    run_folder: Path, loaded: list[AnalyticPolicy], lists: list[str]
) -> None:
    (
        run_folder / "checkpoints" / "iteration-000020" / "pytorch_lora_weights.safetensors"
    ).write_text("0")
    call("eval", "--checkpoint", run_folder, *lists)
    report = load_report(run_folder / "eval" / "iteration-000020" / "report.json")
    assert report.gains
    assert {gain.paired.gain.mean for gain in report.gains if gain.paired.gain.n} == {0.0}
    assert all(
        change.ratio == pytest.approx(1)
        for change in (*report.diversity, *report.dependence)
        if not math.isnan(change.ratio)
    )
    assert report.readings[0].grade in (
        "no sign",
        "watch",
    )  # "watch" at most, for doing no better than best-of-n


def test_the_history_of_a_run(
    runs: Callable[..., Path], loaded: list[AnalyticPolicy], lists: list[str]
) -> None:
    run = runs("long", 30, 60, 90, reward="darkness")
    call("eval", "--checkpoint", run, *lists, "--history-per-prompt", 1)
    report = load_report(run / "eval" / "iteration-000090" / "report.json")
    (history,) = report.courses
    assert [(point.model, point.iteration, point.queries) for point in history.points] == [
        ("base", 0, 0),
        ("long@30", 30, 240),
        ("long@60", 60, 480),
        ("long", 90, 720),
    ]
    kl = [point.kl.mean for point in history.points]
    assert kl == sorted(kl)
    assert kl[0] == 0 < kl[1]
    assert kl[3] / kl[1] == pytest.approx(
        9, rel=0.05
    )  # the shift grows by thirds, KL with its square
    gains = [point.gains["darkness"].mean for point in history.points]
    assert gains == sorted(gains, reverse=True)
    peak = next(peak for peak in history.peaks if peak.reward == "darkness")
    assert (peak.best_iteration, peak.onset_iteration) == (0, 30)
    assert [best.n for best in history.best_of_n] == [2, 4, 8, 16]
    assert history.beats_best_of == "no"
    assert {gain.model for gain in report.gains} == {"long"}


def test_the_report_names_what_would_tell_more(
    runs: Callable[..., Path], loaded: list[AnalyticPolicy], lists: list[str]
) -> None:
    run = runs("long", 30, 60, 90, reward="darkness")
    result = call("eval", "--checkpoint", run, *lists, "--history", 0)
    report = load_report(run / "eval" / "iteration-000090" / "report.json")
    commands = {one.kind: one.command for one in report.advice}
    assert commands["run history"].endswith(" --history 6")
    assert "What would tell more" in result.output
    arguments = shlex.split(commands["run history"])
    assert arguments[:2] == ["ddpo", "eval"]
    assert call(*arguments[1:]).exit_code == 0  # the command runs, and adds that evidence
    report = load_report(run / "eval" / "iteration-000090" / "report.json")
    evidence = {one.kind: one.grade for one in report.readings[0].evidence}
    assert evidence["run history"] != "not measured"
    assert "run history" not in {one.kind for one in report.advice}


def test_compare_puts_runs_side_by_side_and_seeds_together(
    runs: Callable[..., Path], loaded: list[AnalyticPolicy], lists: list[str], tmp_path: Path
) -> None:
    a = runs("a")
    b = runs("b", seed=1)
    c = runs("c", reward="symmetry")
    d = runs("d", seed=2, optim={"lr": 0.1})  # another recipe is no other seed
    out = tmp_path / "out"
    assert call("compare", a, b, c, d, *lists, "--out", out).exit_code == 0
    report = load_report(out / "report.json")
    assert [model.name for model in report.models] == ["a", "b", "c", "d"]
    assert {reward.id for reward in report.rewards if reward.role == "trained"} == {
        "darkness",
        "symmetry",
    }
    assert report.courses == ()
    assert {found.models for found in report.runs} == {("a", "b")}
    with pytest.raises(ConfigError, match="two runs or more"):
        call("compare", a)


def test_conditions_decide_the_exit_status(
    run_folder: Path, loaded: list[AnalyticPolicy], lists: list[str]
) -> None:
    arguments = ("eval", "--checkpoint", run_folder, *lists, "--fail-if")
    assert call(*arguments, "animals.gain > 0").exit_code == 0
    result = call(*arguments, "mine.gain < 0")
    assert result.exit_code == 3
    assert "condition met: mine.gain < 0: one has -0." in result.output
    undecided = call(*arguments, "animals.share < 0")
    assert undecided.exit_code == 4
    assert (
        "cannot be decided: animals.share < 0: there is no such number for one" in undecided.output
    )
    both = call(*arguments, "animals.share < 0", "--fail-if", "mine.gain < 0")
    assert both.exit_code == 3
    calls = sum(policy.calls for policy in loaded)
    with pytest.raises(ConfigError, match="did you mean 'animals'"):
        call(*arguments, "animal.gain < 0")
    with pytest.raises(ConfigError, match="--format"):
        call("eval", "--checkpoint", run_folder, "--format", "xml")
    assert sum(policy.calls for policy in loaded) == calls


@pytest.mark.parametrize("form", ["github", "json"])
def test_what_is_printed_for_programs_is_alone_on_standard_output(
    form: str, run_folder: Path, loaded: list[AnalyticPolicy], lists: list[str]
) -> None:
    result = CliRunner().invoke(
        app,
        ["eval", "--checkpoint", str(run_folder), *lists, "--format", form],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    if form == "json":
        assert json.loads(result.stdout)["schema_version"] == 2
    else:
        assert result.stdout.startswith("#")
        assert "mine" in result.stdout


def test_missing_weights_are_reported_before_anything_is_sampled(
    run_folder: Path,
    loaded: list[AnalyticPolicy],
    lists: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    with pytest.raises(MissingResourceError, match="aesthetic"):
        call("eval", "--checkpoint", run_folder, *lists, "--reward", "aesthetic")
    assert loaded == []
    assert not (run_folder / "eval").exists()


def test_prompts_may_be_anything(
    run_folder: Path, loaded: list[AnalyticPolicy], tmp_path: Path
) -> None:
    hostile = [
        '<script>alert("x")</script> & a "cat"',
        "a 🦩 and a 🧑‍🚀",
        "very " * 2000 + "long",
        "../../etc/passwd",
        "| a | table |",
    ]
    (tmp_path / "x.txt").write_text("\n".join(hostile), encoding="utf-8")
    out = tmp_path / "out"
    assert (
        call(
            "eval",
            "--checkpoint",
            run_folder,
            "--prompts",
            tmp_path / "x.txt",
            "--per-prompt",
            2,
            "--out",
            out,
        ).exit_code
        == 0
    )
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert {row.prompt for row in read_samples(out / "samples.parquet")} == set(hostile)
    assert {path.relative_to(out).parts[0] for path in out.rglob("*.png")} == {"images"}


def test_images_of_another_trainer(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, shift in (("before", 0), ("after", 60)):
        for prompt in ("a cat", "a dog", "a yak"):
            folder = tmp_path / name / prompt.replace(" ", "-")
            folder.mkdir(parents=True)
            for index in range(3):
                pixels = np.clip(random.integers(0, 120, (12, 12, 3)) + shift, 0, 255).astype(
                    np.uint8
                )
                Image.fromarray(pixels).save(folder / f"{index}.png")
    (tmp_path / "prompts.txt").write_text("a cat\na dog\na yak\n")
    (tmp_path / "after" / "a-yak" / "1.png").write_bytes(b"no image")
    out = tmp_path / "out"
    images = ("--images", f"base={tmp_path / 'before'}", "--images", f"mine={tmp_path / 'after'}")
    assert (
        call(
            "eval",
            *images,
            "--prompts",
            tmp_path / "prompts.txt",
            "--reward",
            "darkness",
            "--out",
            out,
        ).exit_code
        == 0
    )
    report = load_report(out / "report.json")
    gain = report.gains[0].paired.gain
    assert gain.mean == pytest.approx(-60 / 255, abs=0.02)
    assert (gain.n, gain.excluded) == (8, 1)
    errors = {row.error for row in read_samples(out / "samples.parquet") if row.error}
    assert len(errors) == 1
    assert report.seed == -1
    assert {change.measure for change in report.diversity} == {"pixels", "seed spread"}
