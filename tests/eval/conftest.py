"""Run folders as the trainer leaves them, with checkpoints of the model in closed form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from analytic import AnalyticPolicy

from ddpo.eval.stages import sampling
from ddpo.policies.checkpoints.folder import CheckpointInfo


def make_run(run: Path, iterations: tuple[int, ...] = (20,), **config: object) -> Path:
    """A run folder with a checkpoint at each of `iterations`.

    The last iteration's weights shift the model's mean by 0.4.
    """
    for iteration in iterations:
        checkpoint = run / "checkpoints" / f"iteration-{iteration:06d}"
        checkpoint.mkdir(parents=True)
        adapter = {"rank": 4, "alpha": 4, "targets": ["to_q"]}
        record = {
            "schema": 1,
            "model": "analytic",
            "kind": "lora",
            "iteration": iteration,
            "adapter": adapter,
        }
        (checkpoint / "policy.json").write_text(json.dumps(record))
        (checkpoint / "pytorch_lora_weights.safetensors").write_bytes(
            str(0.4 * iteration / iterations[-1]).encode()
        )
    sample = {"samples": 8, "per_prompt": 2, "steps": 4, "guidance": 1.0, "eta": 1.0, "batch": 8}
    values = {
        "reward": "darkness",
        "prompts": "animals",
        "model": "analytic",
        "sample": sample,
        "seed": 0,
        **config,
    }
    (run / "config.json").write_text(json.dumps(values))
    (run / "manifest.json").write_text(
        json.dumps({"reward": {"card": {"id": values["reward"]}}, "versions": {"torch": "2"}})
    )
    lines = [
        {"iteration": i, "reward_queries": 8 * i, "reward_mean": -0.5 + i / 100, "reward_se": 0.01}
        for i in range(1, iterations[-1] + 1)
    ]
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"iteration": 999, "rew'
    )
    return run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run with one checkpoint."""
    return make_run(tmp_path / "runs" / "one")


@pytest.fixture
def runs(tmp_path: Path) -> Callable[..., Path]:
    """Makes more of them, by name."""
    return lambda name, *iterations, **config: make_run(
        tmp_path / "runs" / name, iterations or (20,), **config
    )


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[AnalyticPolicy]:
    """The loaded policies; a checkpoint's weights are the shift as text."""
    found: list[AnalyticPolicy] = []

    def load(
        model: str, checkpoint: CheckpointInfo | None = None, **settings: str
    ) -> AnalyticPolicy:
        policy = AnalyticPolicy(
            float((checkpoint.folder / "pytorch_lora_weights.safetensors").read_text())
            if checkpoint
            else 0.0
        )
        found.append(policy)
        return policy

    monkeypatch.setattr(sampling, "load_policy", load)
    return found
