"""The checks of algorithms: the built-in ones pass, and each fault fails its own check."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ddpo.errors import RewardLoadError, UserCodeFailure
from ddpo.trainer.algorithms import algorithms, load_algorithm
from ddpo.trainer.algorithms.contract import outside_range, sample_losses
from ddpo.trainer.check import check_algorithm, render_checks_markdown
from ddpo.trainer.made_up_items import made_up_items
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
        sample_losses(
            faulty,
            made_up_items("transition", None, new, new.detach()),
            torch.ones(1),
            config_for({}),
        )


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


ITEM_BASE = """
import torch
from ddpo.trainer.advantages import advantages
from ddpo.trainer.step_weights import balanced_weight

class Base:
    summary = "policy gradient, equal at all steps"
    defaults = {}
    likelihood = "transition"
    needs = ("old_output",)
    def check(self, config): pass
    def weigh(self, rewards, prompt_ids, statistics, config):
        return advantages(rewards, prompt_ids, statistics, config.advantage)
    def item_loss(self, items, weights, config):
        step = items.coefficients()
        return -weights * balanced_weight(step.b, step.k) * items.log_ratio().exp()
    def outside(self, items, config):
        return items.divergence() > config.optim.divergence

class Faulty(Base):
"""
ITEM_FAULTS = [
    (
        "loss-per-item",
        "    def item_loss(self, items, w, c): return (w * items.log_ratio()).mean()",
        "Faulty.item_loss returned one number for 3 items",
    ),
    (
        "loss-per-item",
        "    def item_loss(self, items, w, c): return -w * items.output.mean()[None, None]",
        "Faulty.item_loss returned the shape [1, 3] for 3 items",
    ),
    (
        "loss-dtype",
        "    def item_loss(self, items, w, c): return -w * items.old_log_probs",
        "Faulty.item_loss returned losses without gradient: compute them from the items",
    ),
    (
        "asked-fields",
        "    def item_loss(self, items, w, c): return -w * items.noise()[:, 0] * items.log_ratio()",
        "the items have no target: add it to the algorithm's `needs`",
    ),
    (
        "asked-fields",
        "    def outside(self, items, c): return items.reference_output[:, 0] > 0",
        "the items have no reference_output",
    ),
    (
        "asked-fields",
        "    def outside(self, items, c): return items.divergence()",
        "Faulty.outside returned no tensor of truth values",
    ),
    (
        "asked-fields",
        "    def outside(self, items, c): return (items.divergence() > 1)[:1]",
        "Faulty.outside returned the shape [1] for 3 items",
    ),
    ("sign", "    def item_loss(self, items, w, c): return w * items.log_ratio()", "must become"),
    (
        "inputs-unchanged",
        "    def item_loss(self, items, w, c):\n"
        "        items.old_output.add_(1)\n"
        "        return -w * items.log_ratio()",
        "changed in place: old_output",
    ),
    (
        "order",
        "    def item_loss(self, items, w, c): return -w * items.log_ratio() + items.index",
        "shuffled items get other losses",
    ),
]


@pytest.mark.parametrize(("check", "code", "words"), ITEM_FAULTS)
def test_a_fault_of_a_loss_on_items_fails_its_check(
    check: str, code: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"{ITEM_BASE}{code}\n")
    assert all(result.ok for result in check_algorithm(f"{file}:Base"))
    failed = {one.name: one for one in check_algorithm(f"{file}:Faulty") if not one.ok}
    assert words in failed[check].detail
    assert "\n" not in failed[check].detail


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("    needs = ('noise',)", "its needs must be of old_output, reference_output, target"),
        ("    needs = 'target'", "its needs must be names in brackets, got 'target'"),
        ("    needs = None", "its needs must be names in brackets, got None"),
        ("    likelihood = 'denoising'", "items of the kind 'denoising' do not have"),
    ],
)
def test_needs_that_no_item_has_are_refused(lines: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"{ITEM_BASE}{lines}\n")
    with pytest.raises(RewardLoadError, match=words):
        load_algorithm(f"{file}:Faulty")


def test_a_loss_on_items_without_needs_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        ITEM_BASE.replace("    needs = ('old_output',)\n", "").replace(
            '    needs = ("old_output",)\n', ""
        )
        + "    pass\n"
    )
    with pytest.raises(RewardLoadError, match="without needs"):
        load_algorithm(f"{file}:Faulty")


def test_a_log_likelihood_has_no_steps_where_nothing_was_sampled(tmp_path: Path) -> None:
    new = torch.tensor([-0.3], requires_grad=True)
    items = made_up_items("denoising", ("target",), new, new.detach())
    with pytest.raises(UserCodeFailure, match="items of the kind 'denoising' have no steps"):
        items.coefficients()
    assert outside_range(load_algorithm("rwr")[0], items, config_for({})).tolist() == [False]


def test_made_up_items_have_the_log_likelihoods_that_they_name() -> None:
    """Against torch's normal of x' = 2 k around b f, with f_old = 0."""
    new = torch.tensor([-0.5, -0.3, -0.1], requires_grad=True)
    old = torch.tensor([-0.5, -0.4, 0.2])
    items = made_up_items("transition", ("old_output", "target"), new, old)
    step = items.coefficients()
    for output, expected in ((items.output, new), (items.old_output, old)):
        normal = torch.distributions.Normal(step.b * output[:, 0], step.k)
        torch.testing.assert_close(normal.log_prob(2 * step.k), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(items.noise()[:, 0], torch.full((3,), 2.0))
