"""Advantage weighted matching: its optimum is known for Gaussians, and its settings are checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ddpo.errors import ConfigError
from ddpo.trainer.advantages import PromptStatistics
from ddpo.trainer.algorithms.awm import AWM
from ddpo.trainer.settings import config_for


def config(**optim: Any) -> Any:
    return config_for({"algorithm": "awm", "model": "emoji", "optim": optim})


def test_the_optimum_is_the_shift_by_the_advantage_weighted_target() -> None:
    """Images u ~ N(0, 1), reward u, one output v for all, KL weight λ to v = 0.

    The loss is E[A (v - u)²] + λ v² with A = u, whose minimum is at v = E[A u] / λ = 1 / λ, since
    E[A] = 0.
    """
    images = torch.randn(200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rewards = images.numpy()
    settings = config(timesteps=1, kl=4.0)
    ids = ["a"] * len(rewards)
    weights = AWM.weigh(rewards, ids, PromptStatistics(1, 1), settings)
    advantages = torch.from_numpy(weights.values)
    v = torch.zeros((), dtype=torch.float64, requires_grad=True)
    errors = (v - images) ** 2
    losses = AWM.loss(-errors, -errors.detach(), advantages, settings) + settings.optim.kl * v**2
    losses.mean().backward()
    assert v.grad is not None
    assert float(v.grad) == pytest.approx(-2.0, rel=0.02)  # of -2 v E[A u] + λ v² at v = 0
    with torch.no_grad():
        v += 1 / 4.0
    v.grad = None
    errors = (v - images) ** 2
    losses = AWM.loss(-errors, -errors.detach(), advantages, settings) + settings.optim.kl * v**2
    losses.mean().backward()
    assert float(v.grad) == pytest.approx(0.0, abs=0.03)


def test_advantages_are_those_of_the_group() -> None:
    rewards = np.array([1.0, 3.0, 10.0, 10.0])
    found = AWM.weigh(rewards, ["a", "a", "b", "b"], PromptStatistics(1, 1), config())
    assert found.values.tolist() == pytest.approx([-1.0, 1.0, 0.0, 0.0], abs=1e-5)


@pytest.mark.parametrize(
    ("optim", "words"),
    [
        ({"timesteps": 0}, "awm samples noise levels at random: optim.timesteps"),
        ({"kl": 0.1, "kl_of": "step"}, "awm has no denoising steps: .* set optim.kl_of=output"),
        ({"kl": 0.1, "kl_of": "time"}, r"\(it is time\)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(optim: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AWM.check(config(**optim))


def test_without_a_penalty_its_unit_does_not_matter() -> None:
    AWM.check(config(kl=0.0, kl_of="step"))
