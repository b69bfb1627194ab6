"""`ddpo eval` from end to end on the model in closed form, and what it says to a wrong request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from analytic import AnalyticPolicy
from typer.testing import CliRunner

from ddpo.cli.evaluate import evaluate_command
from ddpo.errors import CheckpointError, ConfigError, PromptError, RunExistsError, UnknownNameError
from ddpo.eval import job
from ddpo.eval.report import load_report
from ddpo.eval.samples import read_samples
from ddpo.prompts import load_prompts


@pytest.fixture
def brighter(monkeypatch: pytest.MonkeyPatch) -> AnalyticPolicy:
    """The policy that every checkpoint loads: pictures are brighter, so darkness falls."""
    policy = AnalyticPolicy(0.4)
    monkeypatch.setattr(job, "load_policy", lambda *_, **__: policy)
    return policy


@pytest.fixture
def call() -> typer.Typer:
    app = typer.Typer()
    app.command()(evaluate_command)
    return app


def test_eval_writes_a_report_and_goes_on_for_free(run_folder: Path, brighter: AnalyticPolicy, call: typer.Typer, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("the cats\na lighthouse\n", encoding="utf-8")
    arguments = ["--checkpoint", str(run_folder), "--prompts", "animals", "--prompts", "objects", "--prompts", str(own), "--seeds", "1"]
    result = CliRunner().invoke(call, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    said = " ".join(result.output.split())
    assert "animals: 45 prompts, built-in list 'animals', seen in training" in said
    assert f"own: 2 prompts, file {own}, not in training; 1 of them too near to training prompts" in said
    assert str(run_folder / "eval" / "iteration-000020" / "report.html") in result.output
    report = load_report(run_folder / "eval" / "iteration-000020" / "report.json")
    assert [(split.name, split.role) for split in report.splits] == [("animals", "seen"), ("objects", "objects"), ("own", "external")]
    assert [(leak.heldout, leak.train) for leak in report.splits[2].leaks] == [("the cats", "a cat")]
    assert report.gains[0].paired.gain.high < 0  # darkness fell
    assert len(report.curve) == 20
    assert "| animals |" in (run_folder / "eval" / "iteration-000020" / "report.md").read_text(encoding="utf-8")
    rows = read_samples(run_folder / "eval" / "iteration-000020" / "samples.parquet")
    assert len(rows) == 2 * (45 + 50 + 2)
    sampled = brighter.calls
    assert CliRunner().invoke(call, arguments, catch_exceptions=False).exit_code == 0
    assert brighter.calls == sampled
    weights = run_folder / "checkpoints" / "iteration-000020" / "pytorch_lora_weights.safetensors"
    weights.write_bytes(b"trained further")
    with pytest.raises(RunExistsError, match="weights"):
        CliRunner().invoke(call, arguments, catch_exceptions=False)


def test_defaults_come_from_the_run(run_folder: Path) -> None:
    work = job.plan(job.Request(checkpoint=run_folder))
    assert [split.name for split in work.splits] == ["animals", "unseen_animals", "objects"]
    assert [split.role for split in work.splits] == ["seen", "unseen_animals", "objects"]
    assert [reward.card.id for reward in work.rewards] == ["darkness"]
    assert (work.sampler.steps, work.sampler.batch) == (4, 8)
    assert work.out == run_folder / "eval" / "iteration-000020"
    assert not any(work.leaks.values())
    changed = job.plan(job.Request(checkpoint=run_folder, steps=7, rewards=("symmetry",), out=run_folder / "x"))
    assert (changed.sampler.steps, changed.rewards[0].card.id, changed.out) == (7, "symmetry", run_folder / "x")


def test_roles_follow_what_was_trained_on_not_the_name(run_folder: Path) -> None:
    trained = [prompt.text for prompt in load_prompts("objects").prompts]
    (run_folder / "manifest.json").write_text(json.dumps({"prompts": {"list": trained}}))
    work = job.plan(job.Request(checkpoint=run_folder))
    assert [split.role for split in work.splits] == ["external", "unseen_animals", "seen"]


def test_a_file_wins_over_a_built_in_list(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unseen_animals.txt").write_text("a yak\n")
    for name, count, source in (("unseen_animals.txt", 1, "file"), ("unseen_animals", 38, "built-in")):
        work = job.plan(job.Request(checkpoint=run_folder, prompts=(name,)))
        assert len(work.splits[0].prompts) == count
        assert work.sources["unseen_animals"].startswith(source)


def test_a_checkpoint_outside_a_run_says_what_is_not_known(run_folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    (run_folder / "checkpoints" / "iteration-000020").rename(alone)
    with pytest.raises(ConfigError, match="--reward"):
        job.plan(job.Request(checkpoint=alone))
    work = job.plan(job.Request(checkpoint=alone, rewards=("darkness",)))
    assert work.splits[0].role == "seen"
    assert "not known" in work.notes[0]


def test_a_changed_reward_is_said(run_folder: Path) -> None:
    manifest = {"reward": {"card": {"id": "darkness"}, "signature": "reward:darkness|version:0"}}
    (run_folder / "manifest.json").write_text(json.dumps(manifest))
    assert "version:0" in job.plan(job.Request(checkpoint=run_folder)).notes[0]


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        ({"prompts": ("unseen_animal",)}, PromptError, "unseen_animals"),
        ({"rewards": ("darknes",)}, UnknownNameError, "darkness"),
        ({"eta": 2.0}, ConfigError, "eta"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_loaded(
    run_folder: Path, request_: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        job.plan(job.Request(checkpoint=run_folder, **request_))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not (run_folder / "eval").exists()


def test_damaged_run_files_are_named(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        job.plan(job.Request(checkpoint=run_folder))
    with pytest.raises(CheckpointError, match="no such"):
        job.plan(job.Request(checkpoint=tmp_path / "none"))


def test_a_rank_within_a_batch_is_reported_by_its_parts(run_folder: Path, tmp_path: Path) -> None:
    work = job.plan(job.Request(checkpoint=run_folder, rewards=("pareto(darkness, symmetry)", "symmetry"), out=tmp_path / "out"))
    assert [reward.card.id for reward in work.rewards] == ["darkness", "symmetry"]


def test_what_judges_a_group_is_left_out_of_a_comparison_of_two_models() -> None:
    from ddpo.rewards.zoo import resolve

    found = [resolve("pareto(compressibility, darkness)"), resolve("colorfulness + vendi:0.1:features=pixels")]
    assert [reward.card.id for reward in job._of_single_pictures(found)] == ["compressibility", "darkness", "colorfulness"]
    with pytest.raises(ConfigError, match="'vendi' judges pictures as a group"):
        job._of_single_pictures([resolve("vendi:features=pixels")])
