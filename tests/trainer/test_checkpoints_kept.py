"""The checkpoints that stay, and the best of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ddpo.errors import CheckpointError, ConfigError
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.policies.sampler import SampleKey, sample_images
from ddpo.prompts import load_prompts
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.zoo import resolve
from ddpo.trainer import TrainConfig, config_from_dict
from ddpo.trainer.loop import resume, train
from ddpo.trainer.rollout import sampler_settings
from ddpo.trainer.run.checkpoints import keep_best, prune


def config_of(model: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "model": str(model),
        "reward": "darkness",
        "iterations": 4,
        "checkpoint_every": 1,
        "grid_every": 9,
        "sample": {"samples": 8, "per_prompt": 2, "steps": 2, "batch": 8},
        "optim": {"updates": 1, "timesteps": 1, "lr": 1e-2},
    }
    return config_from_dict(values | changes)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that keeps its last checkpoint and the best by colorfulness on two held-out prompts."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "unseen.txt").write_text("a toaster\na kettle\n")
    config = config_of(
        tiny_model,
        held_out="colorfulness",
        held_out_prompts=str(folder / "unseen.txt"),
        checkpoint_keep=1,
    )
    list(train(config, folder / "run"))
    return folder / "run"


def test_the_best_by_the_held_out_reward_and_the_last_stay(finished: Path) -> None:
    values = [line["held_out"] for line in lines(finished)]
    assert len(set(values)) == 4
    best = max(range(4), key=values.__getitem__) + 1
    record = json.loads((finished / "checkpoints" / "best.json").read_text())
    assert record.pop("reward") == resolve("colorfulness").signature
    assert record == {
        "folder": f"iteration-{best:06d}",
        "iteration": best,
        "value": values[best - 1],
    }
    assert names(finished) == sorted({"best.json", f"iteration-{best:06d}", "iteration-000004"})
    assert find_checkpoint(finished).iteration == 4
    assert (
        find_checkpoint(finished / "best").iteration
        == find_checkpoint(finished / "checkpoints" / "best").iteration
        == best
    )


def test_the_held_out_score_is_that_of_the_checkpoint_on_the_held_out_prompts(
    finished: Path,
) -> None:
    """Computed again from the files: checkpoint, prompts, settings."""
    config = config_from_dict(json.loads((finished / "config.json").read_text()))
    policy = load_policy(config.model, finished)
    keys = [
        SampleKey(prompt, -1000 - copy)
        for prompt in load_prompts(config.held_out_prompts).prompts
        for copy in range(2)
    ]
    scorer = make_scorer(resolve("colorfulness"))
    scores = [
        s
        for batch in sample_images(policy, keys, sampler_settings(config.sample), 0)
        for s in scorer.score(batch).values.tolist()
    ]
    assert sum(scores) / len(scores) == pytest.approx(lines(finished)[-1]["held_out"], rel=1e-12)


def test_a_held_out_reward_changes_nothing_of_the_training(
    finished: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """And a run that was resumed, with its own look before the first iteration, is the same run."""
    plain = tmp_path / "plain"
    list(train(config_of(tiny_model, iterations=2), plain))
    list(resume(plain, 4))
    kept = ("reward_mean", "loss", "grad_norm")
    assert [[line[name] for name in kept] for line in lines(plain)] == [
        [line[name] for name in kept] for line in lines(finished)
    ]
    assert {line["held_out"] for line in lines(plain)} == {None}
    assert len(names(plain)) == 4
    with pytest.raises(CheckpointError, match="has no best checkpoint"):
        find_checkpoint(plain / "best")


@pytest.mark.parametrize(
    "training",
    ["colorfulness", "darkness + colorfulness:0.2", "min(darkness:1, colorfulness:0.01)"],
)
def test_the_reward_that_is_trained_on_is_not_held_out(
    tiny_model: Path, tmp_path: Path, training: str
) -> None:
    with pytest.raises(
        ConfigError, match=r"held_out = 'colorfulness' is trained on .*; name another reward"
    ):
        list(
            train(config_of(tiny_model, reward=training, held_out="colorfulness"), tmp_path / "run")
        )
    assert not (tmp_path / "run").exists()


def test_only_whole_checkpoints_are_left_by_pruning(tmp_path: Path) -> None:
    for iteration in (2, 4, 6, 8):
        (tmp_path / f"iteration-{iteration:06d}").mkdir()
    (tmp_path / ".iteration-000010.tmp").mkdir()  # a kill during a write
    keep_best(tmp_path / "iteration-000002", 2, "darkness", 0.5)
    keep_best(tmp_path / "iteration-000004", 4, "darkness", 0.5)  # as good is not better
    keep_best(tmp_path / "iteration-000006", 6, "darkness", 0.4)
    prune(tmp_path, 0)
    assert len(list(tmp_path.glob("iteration-*"))) == 4
    prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.json",
        "iteration-000002",
        "iteration-000006",
        "iteration-000008",
    ]


def test_a_damaged_record_of_the_best_is_reported(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "best.json").write_text('{"folder": "iteration-000099"}')
    with pytest.raises(CheckpointError, match="names iteration-000099, which is not there"):
        find_checkpoint(tmp_path / "run" / "best")
    (tmp_path / "run" / "checkpoints" / "best.json").write_text("[]")
    with pytest.raises(CheckpointError, match="damaged"):
        find_checkpoint(tmp_path / "run" / "best")
