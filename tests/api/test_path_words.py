"""Functions take a path as a word too, in which `~` is the home folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpo.eval import EvalConfig, load_report
from ddpo.prompts import listed_prompts
from ddpo.trainer import config_for, resume, train
from ddpo.trainer.loop import dry_run

SMALL = {
    "reward": "darkness",
    "iterations": 1,
    "sample": {"samples": 8, "per_prompt": 8, "steps": 2, "batch": 8},
    "optim": {"updates": 1, "timesteps": 1},
}


def test_words_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddpo.eval import evaluate

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "prompts.txt").write_text("a cat\na cat\n", encoding="utf-8")
    assert [prompt.text for prompt in listed_prompts("~/prompts.txt")] == ["a cat", "a cat"]
    config = config_for(SMALL)
    list(dry_run(config, "~/run"))
    list(train(config, "~/run"))
    list(resume("~/run", 2))
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    settings = EvalConfig(
        checkpoints=("~/run",),
        prompts=("~/prompts.txt",),
        seeds=2,
        history=0,
        best_of=0,
        held_out=False,
        out="~/report",
    )
    written = evaluate(settings)
    assert load_report("~/report/report.json").models == written.models
