"""Memory by part, against counts made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ddpo.policies import load_policy
from ddpo.policies.policy import LoraSettings
from ddpo.trainer.memory import Activations, MemoryParts, memory_parts


def test_activations_are_what_autograd_keeps_without_the_parameters() -> None:
    """y = (W x)² keeps x for W's gradient (400 bytes) and W x for the square's (4,000 bytes).

    The sum keeps nothing.
    """
    weight = torch.nn.Parameter(torch.randn(1000, 100))
    x = torch.randn(100)
    counted = Activations()
    with counted.counting([weight]):
        loss = (weight @ x).pow(2).sum()
    assert counted.bytes == 4 * 100 + 4 * 1000
    loss.backward()
    torch.testing.assert_close(weight.grad, 2 * torch.outer(weight.detach() @ x, x))


def test_the_parts_of_a_policy(tiny_model: Path) -> None:
    policy = load_policy(str(tiny_model))
    frozen = sum(
        p.numel() for m in (policy.unet, policy.vae, policy.text_encoder) for p in m.parameters()
    )
    buffers = sum(
        b.numel() * b.element_size()
        for m in (policy.unet, policy.vae, policy.text_encoder)
        for b in m.buffers()
    )
    policy.adapt("lora", LoraSettings(rank=4, alpha=4))
    trained = sum(p.numel() for _, p in policy.trainable_parameters())
    parts = memory_parts(policy, activations=5, latents=7, reward_mb=2)
    assert parts.weights == 4 * frozen + buffers
    assert (parts.trained, parts.gradients, parts.optimizer) == (
        4 * trained,
        4 * trained,
        8 * trained,
    )
    assert (parts.activations, parts.latents, parts.reward) == (5, 7, 2_000_000)
    assert parts.total == parts.weights + 16 * trained + 2_000_012


@pytest.mark.parametrize(
    ("reward", "leaves", "total"), [(30, False, 91), (30, True, 70), (9, True, 61), (0, True, 61)]
)
def test_a_reward_that_leaves_counts_against_the_update(
    reward: int, leaves: bool, total: int
) -> None:
    """40 bytes are there all the time, 21 more in an update, the reward in sampling."""
    parts = MemoryParts(
        weights=10,
        trained=8,
        gradients=8,
        optimizer=16,
        activations=13,
        latents=6,
        reward=reward,
        reward_leaves=leaves,
    )
    assert parts.total == total
    assert parts.text().endswith("(not during an update)") == bool(reward and leaves)
