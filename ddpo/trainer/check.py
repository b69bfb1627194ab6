"""The checks of an algorithm: `check_algorithm`, and `algorithm_tests` for pytest.

No model is loaded: the algorithm is called with made-up rewards and log-likelihoods.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ddpo.rewards.check.definition import (
    CheckFailed,
    CheckResult,
    CheckSkipped,
    checks_table,
    demand_of,
    run_probe,
)
from ddpo.rewards.check.testing import report_to_pytest
from ddpo.text import listed
from ddpo.trainer.advantages import Floats, PromptStatistics, SampleWeights
from ddpo.trainer.algorithms import AnyAlgorithm, load_algorithm, needs_of
from ddpo.trainer.algorithms.contract import outside_range, sample_losses, sample_weights
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.items import Items
from ddpo.trainer.made_up_items import made_up_items
from ddpo.trainer.settings import config_for

__all__ = ["CHECKS", "algorithm_tests", "check_algorithm", "iter_results"]

GROUP: Final = 4  # images of a prompt
REWARDS: Final = (0.1, 0.9, -0.4, 0.3, 5.0, 5.5, 4.0, 7.0)
PROMPTS: Final = ("a",) * GROUP + ("b",) * GROUP
ORDER: Final = (6, 1, 4, 7, 0, 3, 5, 2)
TOLERANCE: Final = 1e-5  # of float32 losses


class AlgorithmUnderTest:
    """An algorithm with made-up rewards.

    Args:
        name: Registered name, `./file.py:Object` or `package.module:Object`.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def _unused(self) -> AnyAlgorithm:
        """The algorithm, never called."""
        return load_algorithm(self.name)[0]

    @cached_property
    def algorithm(self) -> AnyAlgorithm:
        """The algorithm; raises as `load_algorithm`."""
        return self.fresh()

    def fresh(self) -> AnyAlgorithm:
        """A copy of the algorithm that was not called yet, or itself where it cannot be copied."""
        try:
            return copy.deepcopy(self._unused)
        except Exception:  # noqa: BLE001  # an object of an author may refuse copies in any way
            return self._unused

    @cached_property
    def config(self) -> TrainConfig:
        """The settings of a run with the algorithm's defaults."""
        return config_for({"algorithm": self.name})

    def weights(
        self, rewards: Floats | None = None, prompts: tuple[str, ...] = PROMPTS
    ) -> SampleWeights:
        """The weights of images, by new running statistics."""
        given = np.array(REWARDS) if rewards is None else rewards
        statistics = PromptStatistics(self.config.advantage.buffer, self.config.advantage.min_count)
        return sample_weights(self.algorithm, given, list(prompts), statistics, self.config)

    def items(self, new: Tensor, old: Tensor) -> Items:
        """Made-up items with these log-likelihoods, and only what the algorithm asks for."""
        return made_up_items(self.algorithm.likelihood, needs_of(self.algorithm), new, old)

    def losses(self, new: Tensor, old: Tensor, weights: Tensor) -> Tensor:
        """The losses of items, `[items]`."""
        return sample_losses(self.algorithm, self.items(new, old), weights, self.config)

    def gradient(self, weights: Tensor) -> Tensor:
        """Gradient of the summed losses before the first update, `[items]`.

        Raises:
            CheckFailed: There is none, or it is not finite.
        """
        new = torch.linspace(-0.5, -0.1, len(weights)).requires_grad_(True)
        total = self.losses(new, new.detach().clone(), weights).sum()
        if not total.requires_grad:
            raise CheckFailed("the loss has no gradient: nothing would be learned")
        (gradient,) = torch.autograd.grad(total, new, allow_unused=True)
        if gradient is None:
            raise CheckFailed("the loss does not depend on the log-likelihoods")
        if not bool(gradient.isfinite().all()):
            raise CheckFailed(f"the gradient is {gradient.tolist()}")
        return gradient


Probe = Callable[[AlgorithmUnderTest], str | None]


def construction(tested: AlgorithmUnderTest) -> str | None:
    """It can be loaded, and its `check` accepts its own default settings."""
    tested.algorithm.check(tested.config)
    return tested.algorithm.summary


def weights(tested: AlgorithmUnderTest) -> str | None:
    """`weigh` gives one finite weight per image, and none to an image without a reward."""
    rewards = np.array(REWARDS)
    rewards[2] = np.nan
    found = tested.weights(rewards)
    if not np.isfinite(found.values).all():
        raise CheckFailed(f"the weights are {found.values.tolist()}; image 2 has no reward")
    if found.values[2] != 0 or found.scored[2] or found.counted[2]:
        raise CheckFailed("image 2 has no reward, but it counts")
    return None


def loss_per_item(tested: AlgorithmUnderTest) -> str | None:
    """`loss` gives one finite loss per item, not their mean or sum."""
    new = torch.tensor([-0.3, -0.2, -0.1])
    for count in (3, 1):
        losses = tested.losses(new[:count], new[:count] - 1e-4, torch.ones(count))
        if not bool(losses.isfinite().all()):
            raise CheckFailed(f"the losses are {losses.tolist()}")
    return None


def loss_dtype(tested: AlgorithmUnderTest) -> str | None:
    """`loss` gives float32, as its inputs are, with a gradient for `log_likelihoods`."""
    new = torch.tensor([-0.3, -0.2], requires_grad=True)
    losses = tested.losses(new, new.detach() - 1e-4, torch.tensor([1.0, -1.0]))
    if losses.dtype != torch.float32:
        raise CheckFailed(f"the losses are {losses.dtype}; convert them with `.float()`")
    return None


def inputs_unchanged(tested: AlgorithmUnderTest) -> str | None:
    """`weigh` and `loss` leave rewards, prompts, likelihoods, weights and settings as they are."""
    rewards = np.array(REWARDS)
    prompts = list(PROMPTS)
    config = copy.deepcopy(tested.config)
    statistics = PromptStatistics(config.advantage.buffer, config.advantage.min_count)
    found = sample_weights(tested.algorithm, rewards, prompts, statistics, config)
    weights = torch.from_numpy(np.array(found.values)).float()
    new = torch.linspace(-0.5, -0.1, len(weights))
    old = new - 1e-4
    items = tested.items(new, old)
    given = {"log_likelihoods": new, "old_log_likelihoods": old, "weights": weights}
    given |= {"output": items.output} | items.asked
    before = {name: tensor.clone() for name, tensor in given.items()}
    sample_losses(tested.algorithm, items, weights, config)
    outside_range(tested.algorithm, items, config)
    changed = [name for name, tensor in given.items() if not torch.equal(tensor, before[name])]
    changed += ["rewards"] if rewards.tolist() != list(REWARDS) else []
    changed += ["prompt_ids"] if prompts != list(PROMPTS) else []
    changed += ["config"] if config != tested.config else []
    if changed:
        raise CheckFailed(f"changed in place: {listed(changed)}; work on copies")
    return None


def resume(tested: AlgorithmUnderTest) -> str | None:
    """A resumed run gets the same weights and losses: all memory is in `statistics`."""
    whole = tested.fresh()
    resumed = tested.fresh()
    buffers = (tested.config.advantage.buffer, tested.config.advantage.min_count)
    statistics = PromptStatistics(*buffers)
    for factor in (3.0, -3.0):  # so that a largest and a smallest reward so far both show
        _round(tested, whole, factor * np.array(REWARDS[::-1]), statistics)
    restored = PromptStatistics(*buffers)
    restored.load_state(json.loads(json.dumps(statistics.to_state())))
    expected = _round(tested, whole, np.array(REWARDS), statistics)
    found = _round(tested, resumed, np.array(REWARDS), restored)
    for name, before, after in zip(("weights", "losses"), expected, found, strict=True):
        if not torch.equal(before, after):
            raise CheckFailed(
                f"the {name} after a resume differ: {after.tolist()} instead of "
                f"{before.tolist()}; keep nothing in the object"
            )
    return None


def _round(
    tested: AlgorithmUnderTest,
    algorithm: AnyAlgorithm,
    rewards: Floats,
    statistics: PromptStatistics,
) -> tuple[Tensor, Tensor]:
    """The weights and the losses of one iteration, both `[batch]`."""
    found = sample_weights(algorithm, rewards, list(PROMPTS), statistics, tested.config)
    weights = torch.from_numpy(np.array(found.values)).float()
    new = torch.linspace(-0.5, -0.1, len(weights))
    items = tested.items(new, new - 1e-4)
    return weights, sample_losses(algorithm, items, weights, tested.config)


def asked_fields(tested: AlgorithmUnderTest) -> str | None:
    """`item_loss` and `outside` read only the fields that `needs` names."""
    needs = needs_of(tested.algorithm)
    if needs is None:
        raise CheckSkipped("this method has a loss on log-likelihoods")
    new = torch.linspace(-0.5, -0.1, 3).requires_grad_(True)
    items = tested.items(new, new.detach() - 1e-4)
    sample_losses(tested.algorithm, items, torch.ones(3), tested.config)
    outside_range(tested.algorithm, items, tested.config)
    return f"needs {listed(needs)}" if needs else "needs no more than the items have"


def finite_gradient(tested: AlgorithmUnderTest) -> str | None:
    """The gradient is finite, before the first update and where the policy has moved."""
    tested.gradient(torch.tensor([1.0, -1.0, 0.5, 0.0]))
    for distance in (-0.5, -1e-3, 1e-3, 0.5):
        new = torch.full((2,), -0.3, requires_grad=True)
        losses = tested.losses(new, new.detach() - distance, torch.tensor([1.0, -1.0]))
        if not losses.requires_grad:
            continue
        (gradient,) = torch.autograd.grad(losses.sum(), new, allow_unused=True)
        if gradient is not None and not bool(gradient.isfinite().all()):
            raise CheckFailed(f"the gradient is {gradient.tolist()} at a log-ratio of {distance}")
    return None


def ratio_one(tested: AlgorithmUnderTest) -> str | None:
    """Before the first update, where the ratio is 1, no item is clipped away."""
    if tested.algorithm.likelihood != "transition":
        raise CheckSkipped("this method has no ratios")
    gradient = tested.gradient(torch.tensor([1.0, -1.0, 0.5]))
    if bool((gradient == 0).any()):
        raise CheckFailed(f"the gradient is {gradient.tolist()}; an item has none")
    return None


def sign(tested: AlgorithmUnderTest) -> str | None:
    """An update makes the best image of a prompt likelier, and more so than the worst."""
    found = tested.weights()
    gradient = -tested.gradient(torch.from_numpy(found.values).float())
    for first in range(0, len(REWARDS), GROUP):
        rewards = REWARDS[first : first + GROUP]
        best = float(gradient[first + rewards.index(max(rewards))])
        worst = float(gradient[first + rewards.index(min(rewards))])
        if not (best > 0 and best > worst):
            raise CheckFailed(
                f"the best image of a prompt is pushed by {best:.4g} and the worst by {worst:.4g}; "
                "the best must become likelier"
            )
    return None


def order(tested: AlgorithmUnderTest) -> str | None:
    """Weights and losses do not depend on the order of images and items."""
    places = list(ORDER)
    shuffled = tested.weights(np.array(REWARDS)[places], tuple(PROMPTS[i] for i in places))
    plain = tested.weights()
    if not np.allclose(shuffled.values, plain.values[places], atol=TOLERANCE):
        raise CheckFailed("shuffled images get other weights")
    new = torch.linspace(-0.5, -0.1, len(places))
    old = new - torch.linspace(-1e-4, 1e-4, len(places))
    values = torch.from_numpy(plain.values).float()
    losses = tested.losses(new, old, values)
    others = tested.losses(new[places], old[places], values[places])
    if not torch.allclose(others, losses[places], atol=TOLERANCE):
        raise CheckFailed("shuffled items get other losses")
    return None


CHECKS: Final[dict[str, Probe]] = {
    probe.__name__.replace("_", "-"): probe
    for probe in (
        construction,
        weights,
        loss_per_item,
        loss_dtype,
        asked_fields,
        finite_gradient,
        ratio_one,
        sign,
        order,
        inputs_unchanged,
        resume,
    )
}
"""Name → check, in the order in which they run. The docstring is the demand."""


def iter_results(name: str) -> Iterator[CheckResult]:
    """The results of `check_algorithm` one at a time."""
    tested = AlgorithmUnderTest(name)
    _ = tested.algorithm
    return (_run(check, tested) for check in CHECKS)


def check_algorithm(name: str) -> list[CheckResult]:
    """Checks an algorithm and returns one result per check.

    Args:
        name: Registered name, `./file.py:Object` or `package.module:Object`.

    Raises:
        UserError: The algorithm cannot be loaded.
    """
    return list(iter_results(name))


def algorithm_tests(name: str) -> Callable[[str], None]:
    """A parametrised test function, for a name that starts with `test`.

        from ddpo.trainer.check import algorithm_tests

        test_conforms = algorithm_tests("mylab/cispo")

    Args:
        name: As in `check_algorithm`; it is loaded in the first test.
    """
    import pytest

    tested = AlgorithmUnderTest(name)

    @pytest.mark.parametrize("check", list(CHECKS))
    def test_conforms(check: str) -> None:
        report_to_pytest(_run(check, tested))

    return test_conforms


def _run(name: str, tested: AlgorithmUnderTest) -> CheckResult:
    return run_probe(name, partial(CHECKS[name], tested))


def render_checks_markdown() -> str:
    """A Markdown table with one row per check."""
    return checks_table({name: demand_of(probe) for name, probe in CHECKS.items()})
