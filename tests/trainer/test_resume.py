"""Resuming: a run that was killed at any moment becomes the run that it would have been.

It resumes with its own settings or not at all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddpo.errors import ConfigError
from ddpo.io.tensors import load_tensors
from ddpo.trainer import TrainConfig, config_from_dict
from ddpo.trainer.loop import resume, train
from ddpo.trainer.monitoring.events import Checked, IterationDone
from tests.warm_start import run_program

Run = Callable[..., tuple[int, str, str]]


def config_of(model: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "model": str(model),
        "reward": "darkness",
        "iterations": 1,
        "grid_every": 2,
        "checkpoint_every": 2,
        "sample": {"samples": 8, "per_prompt": 4, "steps": 3, "batch": 4},
        "optim": {"updates": 2, "timesteps": 2, "lr": 1e-2},
        "advantage": {"kind": "per_prompt", "min_count": 2},
    }
    return config_from_dict(values | changes)


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the time they took."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not name.startswith("seconds")}
        for line in lines
    ]


def files(run: Path) -> dict[str, object]:
    """The files of a run without their times: state, checkpoints, best.json and images.

    Tensors count, not the order of a header.
    """
    found: dict[str, object] = {}
    for path in run.rglob("*"):
        if path.suffix == ".safetensors":
            tensors, metadata = load_tensors(path)
            found[str(path.relative_to(run))] = (
                {name: value.numpy().tobytes() for name, value in tensors.items()},
                metadata,
            )
        elif path.is_file() and path.name not in ("metrics.jsonl", "manifest.json"):
            found[str(path.relative_to(run))] = path.read_bytes()
    return found


def start_and_stop(config: TrainConfig, run: Path) -> None:
    """Starts a run, and stops it after its first iteration."""
    events = train(config, run)
    for event in events:
        if isinstance(event, IterationDone):
            break
    events.close()


def assert_same_run(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    left = files(one), files(other)
    assert left[0].keys() == left[1].keys()
    assert [name for name, content in left[0].items() if left[1][name] != content] == []


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has PyTorch loaded")
def test_a_run_that_is_killed_at_random_moments_equals_a_straight_one(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Real kills, some while a file is replaced: all files of the run are equal to the bit."""
    (tmp_path / "unseen.txt").write_text("a toaster\n")
    held_out = {"held_out": "colorfulness", "held_out_prompts": str(tmp_path / "unseen.txt")}
    config = config_of(tiny_model, iterations=4, checkpoint_every=1, checkpoint_keep=2, **held_out)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    worker = Path(__file__).with_name("kill_worker.py")
    done = run_program(worker, tmp_path / "config.json", tmp_path, 5, 5)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert sum(counts.values()) >= 1, counts  # a fast run may end before a kill
    assert_same_run(tmp_path / "straight", tmp_path / "killed")


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one iteration."""
    out = tmp_path_factory.mktemp("finished") / "run"
    list(train(config_of(tiny_model), out))
    return out


def test_other_settings_are_refused_and_all_named_with_both_values(
    ddpo: Run, finished: Path
) -> None:
    before = (finished / "config.json").read_bytes()
    code, _, errors = ddpo(
        "train",
        "--resume",
        finished,
        "--set",
        "optim.lr=1e-3",
        "--reward",
        "compressibility",
        "--seed",
        "3",
        "--set",
        "sample.steps=3",
    )
    assert code == 2
    assert len(errors.strip().splitlines()) == 1
    assert "optim.lr is 0.001 and was 0.01" in errors
    assert "reward is 'compressibility' and was 'darkness'" in errors
    assert "seed is 3 and was 0" in errors
    assert "sample.steps" not in errors
    assert (finished / "config.json").read_bytes() == before


def test_what_a_run_has_already_may_be_said_again(
    ddpo: Run, finished: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "same.toml").write_text('reward = "darkness"\n[optim]\nlr = 0.01\nupdates = 2\n')
    options = (
        "--recipe",
        tmp_path / "same.toml",
        "--model",
        tiny_model,
        "--set",
        "sample.steps=3",
        "--set",
        "checkpoint_keep=7",
    )
    code, output, errors = ddpo("train", "--resume", finished, *options)
    assert code == 0, errors
    assert "resumed after iteration 1" in output
    assert json.loads((finished / "config.json").read_text())["checkpoint_keep"] == 7
    assert len(metrics(finished)) == 1


def test_unknown_settings_and_another_place_are_refused_as_ever(ddpo: Run, finished: Path) -> None:
    for arguments, message in (
        (("--set", "optim.lrr=1"), "did you mean 'optim.lr'"),
        (("--out", "elsewhere", "--dry-run"), "leave out --out and --dry-run"),
        (("--iterations", "0"), "iterations must be at least 1"),
    ):
        code, _, errors = ddpo("train", "--resume", finished, *arguments)
        assert code == 2
        assert message in errors


def test_a_config_that_was_edited_by_hand_is_found_out(tiny_model: Path, tmp_path: Path) -> None:
    list(train(config_of(tiny_model), tmp_path / "run"))
    file = tmp_path / "run" / "config.json"
    true = json.loads(file.read_text())
    file.write_text(json.dumps(true | {"seed": 5, "optim": true["optim"] | {"clip_range": 0.5}}))
    with pytest.raises(
        ConfigError,
        match=r"was changed after the run was started: seed is 5 and was 0, "
        r"optim.clip_range is 0.5 and was 0.002",
    ):
        list(resume(tmp_path / "run", 2))
    file.write_text(json.dumps(true | {"iterations": 2}))
    list(resume(tmp_path / "run"))
    assert len(metrics(tmp_path / "run")) == 2


def test_a_lower_batch_is_allowed_said_and_recorded(tiny_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    list(train(config_of(tiny_model), run))
    findings = [
        event.findings
        for event in resume(run, 2, {"sample": {"batch": 2}})
        if isinstance(event, Checked)
    ]
    assert (
        "sample.batch is 2 and was 4. The run is no longer the same to the bit"
        in findings[0][-1].text
    )
    assert not findings[0][-1].good
    manifest = json.loads((run / "manifest.json").read_text())
    assert [(note["after"], note["changed"]) for note in manifest["resumed"]] == [
        (1, {"iterations": [1, 2], "sample.batch": [4, 2]})
    ]
    assert metrics(run)[1]["ratio_first_deviation"] == 0
    list(resume(run, 3))  # it resumes with its present settings, and says nothing about them
    manifest = json.loads((run / "manifest.json").read_text())
    assert [note["changed"] for note in manifest["resumed"][1:]] == [{"iterations": [2, 3]}]
    straight = tmp_path / "straight"
    list(train(config_of(tiny_model, iterations=3), straight))
    differ = [
        abs(one["loss"] - other["loss"])
        for one, other in zip(metrics(run), metrics(straight), strict=True)
    ]
    assert differ[0] == 0
    assert max(differ) < 1e-4
