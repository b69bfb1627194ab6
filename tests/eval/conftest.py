"""A small real evaluation that several tests read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from analytic import SETTINGS, AnalyticPolicy, Brightness, Redness, make_splits

from ddpo.eval.protocol import Evaluation, evaluate
from ddpo.eval.report import CurvePoint, LeakFacts, Report, build_report
from ddpo.eval.tables import Pair, matched_pairs
from ddpo.rewards.scorer import Scorer


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, list[Pair], Path]:
    """An evaluation of the analytic policy, its pairs, and the folder with its pictures."""
    folder = tmp_path_factory.mktemp("evaluated")
    found = evaluate(
        AnalyticPolicy(0.4), make_splits(), [Scorer(Brightness()), Scorer(Redness())], seeds=3, sampler=SETTINGS, seed=5, out=folder
    )
    return found, matched_pairs(found.rows), folder


@pytest.fixture(scope="session")
def report(evaluated: tuple[Evaluation, list[Pair], Path]) -> Report:
    """The report of that evaluation."""
    found, pairs, _ = evaluated
    return build_report(
        found, pairs, model="analytic", checkpoint="runs/one", kind="full", iteration=20, trained_on="brightness",
        sources={"animals": "built-in list 'animals'", "mine": "file <mine>.txt"},
        leaks={"mine": (LeakFacts("the cats", "a cat", "the same words"),)},
        curve=[CurvePoint(i, 96 * i, 100.0 + i, 2.0) for i in range(1, 21)],
        manifest={"config": {"reward": "brightness", "prompts": "<list>"}, "versions": {"torch": "2"}},
        notes=("A note & more.",),
    )  # fmt: skip


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run folder as the trainer leaves it, with a checkpoint of the analytic model."""
    run = tmp_path / "runs" / "one"
    checkpoint = run / "checkpoints" / "iteration-000020"
    checkpoint.mkdir(parents=True)
    record = {"schema": 1, "model": "analytic", "kind": "lora", "iteration": 20, "adapter": {"rank": 4, "alpha": 4, "targets": ["to_q"]}}
    (checkpoint / "policy.json").write_text(json.dumps(record))
    (checkpoint / "pytorch_lora_weights.safetensors").write_bytes(b"weights")
    sample = {"samples": 8, "per_prompt": 2, "steps": 4, "guidance": 1.0, "eta": 1.0, "batch": 8}
    (run / "config.json").write_text(json.dumps({"reward": "darkness", "prompts": "animals", "model": "analytic", "sample": sample}))
    lines = [{"iteration": i, "reward_queries": 8 * i, "reward_mean": -0.5 + i / 100, "reward_se": 0.01} for i in range(1, 21)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"iteration": 21, "rew')
    return run
