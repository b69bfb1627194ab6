"""Early stopping by the held-out reward: the rule, its false alarms, and a run that it ends."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from ddpo.cli.app import app
from ddpo.cli.training_events import NAMES
from ddpo.errors import ConfigError
from ddpo.io import synced_lines
from ddpo.trainer import TrainConfig, config_from_dict
from ddpo.trainer.loop import resume, train
from ddpo.trainer.monitoring.events import Event, Stopped
from ddpo.trainer.run.stopping import (
    CheckpointScores,
    HeldOutScores,
    find_fall,
    read_scores,
)

PROMPTS = 12
REWARDS = """
def darkness(images):
    return -images.mean((1, 2, 3))

def brightness(images):
    return images.mean((1, 2, 3))
"""


def history(*rows: Any) -> list[CheckpointScores]:
    """Scores of checkpoints after iterations 1, 2, …, with one image per prompt."""
    return [
        CheckpointScores(number, "judge", tuple((float(value),) for value in row))
        for number, row in enumerate(rows, 1)
    ]


def test_a_fall_is_a_t_test_over_prompts_against_the_best_checkpoint() -> None:
    base = np.array([0.1, 0.4, 0.2, 0.6, 0.5, 0.3])
    best = base + 0.5
    later = best - np.array([0.2, 0.25, 0.22, 0.18, 0.21, 0.24])
    last = best - np.array([0.3, 0.35, 0.33, 0.28, 0.31, 0.29])
    p = stats.ttest_1samp(last - best, 0).pvalue
    assert p < 0.05 / 4, "the fall is beyond chance, with room for the choice among four"
    fall = find_fall(history(base, best, later, last), patience=2)
    assert fall is not None
    assert (fall.iteration, fall.best, fall.checkpoints) == (4, 2, 2)
    assert fall.change.mean == pytest.approx(-0.31)
    assert fall.change.p == pytest.approx(p)
    assert fall.text.startswith("the held-out reward fell from iteration 2 to 4 by 0.31 (95 %")
    assert fall.text.endswith("at 2 checkpoints in a row")


@pytest.mark.parametrize(
    ("rows", "patience"),
    [
        ([[1, 2, 3, 4], [0.1, 1.0, 2.1, 3.0]], 2),  # one fallen checkpoint of two
        ([[1, 2, 3, 4], [0, 1, 2, 3], [1, 2, 3, 4.1]], 1),  # it has recovered
        ([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]], 1),  # nothing changes
        ([[1, 2, 3, 4], [9, 0, 1, 0], [-9, 2, 3, 4]], 1),  # too few, too unequal prompts
        ([[1.0], [0.5], [0.1]], 1),  # one prompt tells nothing
        ([], 1),
        ([[math.nan, math.nan], [1, 2]], 1),  # nothing could be scored at first
    ],
)
def test_no_fall(rows: list[list[float]], patience: int) -> None:
    assert find_fall(history(*rows), patience) is None


def test_images_without_a_score_are_left_out_of_the_pairs() -> None:
    best = [1.0, 2.0, math.nan, 4.0, 5.0, 3.0]
    fallen = [0.5, 1.4, -9.0, 3.55, math.nan, 2.45]
    fall = find_fall(history(best, fallen), patience=1)
    assert fall is not None
    assert fall.change.mean == pytest.approx((-0.5 - 0.6 - 0.45 - 0.55) / 4)


def test_false_alarms_are_rare_where_nothing_changes() -> None:
    """Twenty checkpoints that differ by chance alone, in 300 runs of three kinds of noise."""
    rng = np.random.default_rng(0)
    alarms = {1: 0, 2: 0}
    for _ in range(300):
        prompts = rng.normal(size=30)
        scores = prompts + rng.choice([0.05, 0.3, 1.0]) * rng.standard_normal((20, 30))
        for patience in alarms:
            shown = history(*scores)
            alarms[patience] += any(find_fall(shown[:end], patience) for end in range(1, 21))
    assert alarms == {1: 61, 2: 4}, "the numbers of docs/run-folder.md"


def test_a_fall_of_half_a_standard_deviation_is_found() -> None:
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(100):
        prompts = rng.normal(size=45)
        means = np.concatenate([np.linspace(0, 0.5, 5), np.linspace(0.4, 0, 5)])
        scores = prompts + means[:, None] + 0.4 * rng.standard_normal((10, 45))
        found += find_fall(history(*scores), patience=2) is not None
    assert found >= 90


def config_of(model: Path, folder: Path, **changes: Any) -> TrainConfig:
    (folder / "my_rewards.py").write_text(REWARDS)
    lines = [f"a toaster number {number}\n" for number in range(PROMPTS)]
    (folder / "unseen.txt").write_text("".join(lines))
    values: dict[str, Any] = {
        "model": str(model),
        "reward": f"{folder / 'my_rewards.py'}:darkness",
        "held_out": f"{folder / 'my_rewards.py'}:brightness",
        "held_out_prompts": str(folder / "unseen.txt"),
        "stop_when": "held-out-falls",
        "iterations": 12,
        "checkpoint_every": 1,
        "grid_every": 50,
        "sample": {"samples": 8, "per_prompt": 4, "steps": 3, "batch": 8},
        "optim": {"updates": 2, "timesteps": 2, "lr": 1e-2},
    }
    return config_from_dict(values | changes)


@pytest.fixture(scope="module")
def stopped(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """A run on darkness that brightness, which is held out, stops."""
    folder = tmp_path_factory.mktemp("stopped")
    events = list(train(config_of(tiny_model, folder), folder / "run"))
    return folder / "run", events


def iterations(run: Path) -> list[int]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["iteration"] for line in lines]


def test_a_run_ends_where_its_held_out_reward_has_fallen(
    stopped: tuple[Path, list[Event]],
) -> None:
    run, events = stopped
    last = events[-1]
    assert isinstance(last, Stopped)
    assert last.iteration < 12
    assert iterations(run) == list(range(1, last.iteration + 1))
    note = json.loads((run / "stopped.json").read_text())
    assert (note["iteration"], note["best"], note["reason"]) == (
        last.iteration,
        last.best,
        last.reason,
    )
    assert json.loads((run / "checkpoints" / "best.json").read_text())["iteration"] == last.best
    assert (run / "samples" / f"iteration-{last.iteration:06d}.png").exists(), "its last images"
    history = read_scores(run)
    assert [one.iteration for one in history] == iterations(run)
    metrics = (run / "metrics.jsonl").read_text().splitlines()
    assert [one.mean for one in history] == [json.loads(line)["held_out"] for line in metrics]
    assert all(len(one.scores) == PROMPTS and len(one.scores[0]) == 2 for one in history)


def test_the_held_out_scores_are_read_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of checkpoints, and with the scores from before a resumption."""
    list(train(config_of(tiny_model, tmp_path, iterations=1), tmp_path / "run"))
    reads: list[Path] = []
    real = synced_lines.json_lines

    def counted(path: Path, *rest: Any) -> Any:
        reads.append(path)
        return real(path, *rest)

    scores = HeldOutScores(tmp_path / "run")
    assert scores.all() == read_scores(tmp_path / "run")
    monkeypatch.setattr(synced_lines, "json_lines", counted)
    (first,) = scores.all()
    for iteration in (2, 3):
        scores.append(replace(first, iteration=iteration))
        assert [one.iteration for one in scores.all()] == list(range(1, iteration + 1))
    other = replace(first, iteration=4, reward="another")
    scores.append(other)
    assert scores.all() == [other], "those of another reward are not comparable"
    assert reads == []
    assert read_scores(tmp_path / "run") == [other]
    assert reads == [tmp_path / "run" / "held_out.jsonl"]


def test_a_resumed_run_stops_where_the_uninterrupted_one_does(
    stopped: tuple[Path, list[Event]], tiny_model: Path, tmp_path: Path
) -> None:
    run, events = stopped
    list(train(config_of(tiny_model, tmp_path, iterations=2), tmp_path / "run"))
    resumed = list(resume(tmp_path / "run", iterations=12, trust=["./my_rewards.py"]))
    assert resumed[-1] == events[-1]
    ours, theirs = (read_scores(one) for one in (tmp_path / "run", run))
    assert [(one.iteration, one.scores) for one in ours] == [
        (one.iteration, one.scores) for one in theirs
    ]


def test_a_stopped_run_goes_on_only_when_asked_to(tiny_model: Path, tmp_path: Path) -> None:
    config = config_of(tiny_model, tmp_path)
    events = list(train(config, tmp_path / "run"))
    end = iterations(tmp_path / "run")[-1]
    trust = ["./my_rewards.py"]
    with pytest.raises(ConfigError, match=r"has stopped: .* add --stop-when never"):
        list(resume(tmp_path / "run", trust=trust))
    assert isinstance(events[-1], Stopped)
    longer = {"stop_when": "never", "iterations": end + 1}
    list(resume(tmp_path / "run", settings=longer, trust=trust))
    assert iterations(tmp_path / "run")[-1] == end + 1
    assert not (tmp_path / "run" / "stopped.json").exists()


def test_the_rule_needs_a_held_out_reward_and_a_known_word() -> None:
    for word in ("", "none"):
        with pytest.raises(ConfigError, match=r"--held-out, such as clip_score:model=emoji$"):
            TrainConfig(stop_when="held-out-falls", held_out=word)
    with pytest.raises(ConfigError, match=r"name one with --held-out$"):
        TrainConfig(stop_when="held-out-falls", model="mine/model")
    assert TrainConfig(held_out="none").held_out == ""
    with pytest.raises(ConfigError, match=r"stop_when must be never or held-out-falls"):
        config_from_dict({"stop_when": "held-out-rises"})


def test_the_command_line_names_the_reason_and_the_best_checkpoint(
    tiny_model: Path, tmp_path: Path
) -> None:
    config = config_of(tiny_model, tmp_path)
    words = ["train", "--model", str(tiny_model), "--reward", config.reward]
    words += ["--held-out", config.held_out, "--stop-when", "held-out-falls"]
    words += ["--out", str(tmp_path / "run"), "--iterations", "12"]
    for setting in (
        f"held_out_prompts={tmp_path / 'unseen.txt'}",
        "checkpoint_every=1",
        "sample.samples=8",
        "sample.per_prompt=4",
        "sample.steps=3",
        "sample.batch=8",
        "optim.updates=2",
        "optim.timesteps=2",
        "optim.lr=0.01",
    ):
        words += ["--set", setting]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "Stopped after iteration" in done.output
    assert f"Next: ddpo eval --checkpoint {tmp_path / 'run' / 'best'}" in done.output
    words[words.index(str(tmp_path / "run"))] = str(tmp_path / "other")
    lines = CliRunner().invoke(app, [*words, "--json"]).stdout.splitlines()
    *_, early, finished = (json.loads(line) for line in lines)
    note = json.loads((tmp_path / "other" / "stopped.json").read_text())
    assert early == {"event": "early_stop"} | {name: note[name] for name in early if name in note}
    assert early["best"] == note["best"]
    assert finished["event"] == "finished"


def test_every_event_has_a_name_in_json_but_progress() -> None:
    classes = {one.__name__ for one in get_args(Event)}
    assert classes - set(NAMES) == {"Progress"}
