"""Losses and their gradients, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ddpo.trainer.losses import clipped_surrogate, weighted_likelihood


def test_the_weighted_likelihood_is_minus_weight_times_log_prob() -> None:
    log_probs = torch.tensor([-1.0, 0.5], requires_grad=True)
    loss = weighted_likelihood(log_probs, torch.tensor([2.0, -3.0]))
    assert loss.tolist() == [2.0, 1.5]
    loss.sum().backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == [-2.0, 3.0]


def test_surrogate_at_ratio_one_has_the_score_function_gradient() -> None:
    log_probs = torch.tensor([0.3, 0.3], requires_grad=True)
    clipped_surrogate(
        log_probs, torch.tensor([0.3, 0.3]), torch.tensor([2.0, -3.0]), 1e-4
    ).sum().backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == pytest.approx([-2.0, 3.0])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.3, 2.0, -2.4, 0.0),  # too good already: clipped at 1.2, no gradient
        (1.3, -2.0, 2.6, 2.6),  # too bad: not clipped
        (0.7, 2.0, -1.4, -1.4),  # fell although it was good: not clipped
        (0.7, -2.0, 1.6, 0.0),  # fell as it should: clipped at 0.8
        (1.1, 2.0, -2.2, -2.2),  # inside the range
    ],
)
def test_surrogate_clips_on_the_side_of_the_advantage(
    ratio: float, advantage: float, loss: float, gradient: float
) -> None:
    log_probs = torch.tensor([math.log(ratio)], requires_grad=True)
    found = clipped_surrogate(log_probs, torch.zeros(1), torch.tensor([advantage]), 0.2)
    found.sum().backward()
    assert log_probs.grad is not None
    assert found.item() == pytest.approx(loss, rel=1e-5)
    assert log_probs.grad.item() == pytest.approx(gradient, rel=1e-5)
