"""The checks of algorithms: the built-in ones pass, and each fault fails its own check."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ddpo.errors import UserCodeFailure
from ddpo.trainer.algorithms import algorithms, load_algorithm
from ddpo.trainer.algorithms.contract import sample_losses
from ddpo.trainer.check import check_algorithm, render_checks_markdown
from ddpo.trainer.settings import config_for

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
    "loss-dtype": "    def loss(self, new, old, w, c): return (-w * new).double()",
    "inputs-unchanged": "    def loss(self, new, old, w, c):\n"
    "        w.clamp_(-1, 1)\n"
    "        return -w * new",
    "resume": "    best = 0.0\n"
    "    def weigh(self, rewards, *given):\n"
    "        self.best = max(self.best, float(rewards[0]))\n"
    "        found = super().weigh(rewards, *given)\n"
    "        found.values[:] *= 1 + self.best\n"
    "        return found",
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


MORE_FAULTS = {
    "weights": [
        "    def weigh(self, rewards, *given):\n"
        "        found = super().weigh(rewards, *given)\n"
        "        found.values[0] = float('nan')\n"
        "        return found",
        "    def weigh(self, rewards, *given): return rewards",
        "    def weigh(self, rewards, *given):\n"
        "        found = super().weigh(rewards, *given)\n"
        "        found.values = found.values[:, None]\n"
        "        return found",
    ],
    "loss-per-item": [
        "    def loss(self, new, old, w, c): return -(w * new)[:, None]",
        "    def loss(self, new, old, w, c): return [-1.0] * len(new)",
        "    def loss(self, new, old, w, c): return (-w * new).sum(0, keepdim=True)",
        "    def loss(self, new, old, w, c): return -w * new * float('nan')",
    ],
    "loss-dtype": [
        "    def loss(self, new, old, w, c): return (-w * new).half()",
        "    def loss(self, new, old, w, c): return (-w * new).long()",
        "    def loss(self, new, old, w, c): return -w * new.detach()",
        "    def loss(self, new, old, w, c):\n        with torch.no_grad(): return -w * new",
    ],
    "finite-gradient": [
        "    def loss(self, new, old, w, c): return -w * new.detach()",
        "    def loss(self, new, old, w, c): return -w * (new - old).abs().log()",
    ],
    "inputs-unchanged": [
        "    def weigh(self, rewards, *given):\n"
        "        rewards -= rewards.mean()\n"
        "        return super().weigh(rewards, *given)",
        "    def weigh(self, rewards, ids, *given):\n"
        "        ids.sort(reverse=True)\n"
        "        return super().weigh(rewards, ids, *given)",
        "    def loss(self, new, old, w, c):\n        old += 1\n        return -w * new",
    ],
    "resume": [
        "    def __init__(self): self.calls = 0\n"
        "    def loss(self, new, old, w, c):\n"
        "        self.calls += 1\n"
        "        return -w * new / self.calls",
    ],
    "construction": ["    def check(self, config): raise SystemExit(0)"],
    "sign": ["    def loss(self, new, old, w, c): return 0 * new"],
}


@pytest.mark.parametrize(
    ("check", "code"), [(check, code) for check, codes in MORE_FAULTS.items() for code in codes]
)
def test_siblings_of_a_fault_fail_in_one_line(check: str, code: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"{BASE}{code}\n")
    failed = {one.name: one for one in check_algorithm(f"{file}:Faulty") if not one.ok}
    assert check in failed
    assert "\n" not in failed[check].detail


def test_a_run_refuses_losses_without_gradient_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(BASE + "    def loss(self, new, old, w, c): return -w * new.detach()\n")
    new = torch.tensor([0.1], requires_grad=True)
    faulty = load_algorithm(f"{file}:Faulty")[0]
    line = BASE.count("\n") + 1
    with pytest.raises(UserCodeFailure, match=rf"mine\.py:{line}: Faulty\.loss returned losses w"):
        sample_losses(faulty, new, new.detach(), torch.ones(1), config_for({}))


def test_the_table_of_the_page_is_fresh() -> None:
    page = (Path(__file__).parents[2] / "docs" / "writing-an-algorithm.md").read_text()
    table = page.partition("<!-- checks:begin -->\n")[2].partition("<!-- checks:end -->")[0]
    assert table == render_checks_markdown()


def test_a_scalar_loss_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(BASE + FAULTS["loss-per-item"] + "\n")
    line = BASE.count("\n") + 1
    (found,) = [one for one in check_algorithm(f"{file}:Faulty") if one.name == "loss-per-item"]
    assert f"mine.py:{line}: Faulty.loss returned one number for 3 items" in found.detail
