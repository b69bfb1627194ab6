"""The advice on a run history: the command of the training that keeps more checkpoints."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ddpo.eval.config import EvalConfig
from ddpo.eval.plan import plan
from ddpo.eval.stages.advice import _trainings
from ddpo.trainer import config_for, train


@pytest.fixture(scope="module")
def run_of_two(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one checkpoint, and settings of several kinds."""
    values = {
        "reward": "darkness + clip_score:model=emoji",
        "model": str(tiny_model),
        "prompts": "objects",
        "prompt_limit": 3,
        "iterations": 2,
        "checkpoint_every": 2,
        "sample": {"samples": 4, "per_prompt": 2, "steps": 2, "batch": 4},
        "optim": {"updates": 1, "timesteps": 1, "guidance": False},
        "adapt": {"targets": ["to_q", "to_v"]},
    }
    folder = tmp_path_factory.mktemp("advice") / "run"
    list(train(config_for(values), folder))
    return folder


def test_the_training_with_more_checkpoints_is_that_of_the_run(run_of_two: Path) -> None:
    """A run of two iterations has an earlier checkpoint only if it keeps every one."""
    ((name, command),) = _trainings(plan(EvalConfig(checkpoints=(str(run_of_two),))))
    assert name == "run"
    words = shlex.split(command)
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["--reward"] == "darkness + clip_score:model=emoji"
    assert (options["--prompts"], options["--limit"]) == ("objects", "3")
    assert options["--iterations"] == "2"
    given = dict(word.split("=", 1) for word in words if "=" in word and "." in word.split("=")[0])
    assert given["optim.guidance"] == "false"
    assert given["adapt.targets"] == '["to_q", "to_v"]'
    assert words[-1] == "checkpoint_every=1"
