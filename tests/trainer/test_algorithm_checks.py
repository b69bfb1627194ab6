"""The checks of algorithms: the built-in ones pass, and each fault fails its own check."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpo.trainer.algorithms import algorithms
from ddpo.trainer.check import check_algorithm

BASE = """
import torch
from ddpo.trainer.advantages import advantages

class Base:
    summary = "score function"
    defaults = {}
    likelihood = "transition"
    def check(self, config): pass
    def weigh(self, rewards, prompt_ids, statistics, config):
        return advantages(rewards, prompt_ids, statistics, config.advantage)
    def loss(self, new, old, weights, config):
        return -weights * new

class Faulty(Base):
"""
FAULTS = {
    "construction": "    def check(self, config): raise ValueError('no')",
    "weights": "    def weigh(self, *given):\n"
    "        w = super().weigh(*given)\n"
    "        w.values[:] = w.values + 0.01\n"
    "        return w",
    "loss-per-item": "    def loss(self, new, old, w, c): return -(w * new).mean()",
    "finite-gradient": "    def loss(self, new, old, w, c): return -w * (new - old).abs().sqrt()",
    "ratio-one": "    def loss(self, new, old, w, c): return -w * (new - old).clamp(min=1e-3)",
    "sign": "    def loss(self, new, old, w, c): return w * new",
    "order": "    def loss(self, new, old, w, c):\n"
    "        return -w * new + torch.arange(len(new))",
}


@pytest.mark.parametrize("name", algorithms.names())
def test_registered_algorithms_pass(name: str) -> None:
    failed = [result for result in check_algorithm(name) if not result.ok]
    assert not failed


@pytest.mark.parametrize("check", FAULTS)
def test_a_fault_fails_its_check(check: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(BASE + FAULTS[check] + "\n")
    assert all(result.ok for result in check_algorithm(f"{file}:Base"))
    failed = {result.name for result in check_algorithm(f"{file}:Faulty") if not result.ok}
    assert check in failed


def test_a_scalar_loss_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(BASE + FAULTS["loss-per-item"] + "\n")
    line = BASE.count("\n") + 1
    (found,) = [one for one in check_algorithm(f"{file}:Faulty") if one.name == "loss-per-item"]
    assert f"mine.py:{line}: Faulty.loss returned one number for 3 items" in found.detail
