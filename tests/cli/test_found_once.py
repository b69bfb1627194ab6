"""A command finds each checkpoint once: what the early check found is handed to the work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ddpo.eval.inputs import checkpoints as inputs
from ddpo.policies.checkpoints import folder as folders
from ddpo.trainer import config_for, train

Run = Callable[..., tuple[int, str, str]]
SMALL = {"samples": 4, "per_prompt": 2, "steps": 2, "batch": 4}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two runs."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        config = config_for(
            {
                "reward": "darkness",
                "iterations": 1,
                "seed": seed,
                "sample": SMALL,
                "optim": {"timesteps": 1, "updates": 1},
            }
        )
        for _ in train(config, tmp_path / name):
            pass
    return tmp_path


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Path → number of times that a checkpoint was looked up there."""
    counts: Counter[str] = Counter()
    real = folders.find_checkpoint

    def counted(path: Path | str, *rest: object, **more: object) -> folders.CheckpointInfo:
        counts[str(path)] += 1
        return real(path, *rest, **more)  # type: ignore[arg-type]

    for module in (folders, inputs):
        monkeypatch.setattr(module, "find_checkpoint", counted)
    return counts


def test_an_evaluation_finds_its_checkpoints_once(
    runs: Path, found: Counter[str], ddpo: Run
) -> None:
    quick = ("--limit", "1", "--per-prompt", "1", "--prompts", "animals", "--no-held-out")
    code, _, errors = ddpo("compare", "a", "b", *quick)
    assert code == 0, errors
    assert found == {"a": 1, "b": 1}


def test_a_labelling_finds_its_checkpoint_once(
    runs: Path, found: Counter[str], ddpo: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpo.web.frame.serve_page", lambda *_, **__: None)
    quick = ("--pairs", "1", "--prompts", "animals", "--no-browser")
    code, _, errors = ddpo("label", "a", *quick)
    assert code == 130, errors
    assert found == {"a": 1}
    found.clear()
    code, _, errors = ddpo("label", "a", "--checkpoint", "iteration-000001", *quick)
    assert code == 130, errors
    assert found == {"a": 1, "a/checkpoints/iteration-000001": 1}
