"""The loss scale against torch's own: vanishing gradients, overflow, exact resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_likelihoods import ITEMS, config, policy_of, rollout_of, transition
from test_loop import metrics, run, tiny_config

from ddpo.io.tensors import load_tensors
from ddpo.trainer.grad_scaler import FIRST, PATIENCE, GradScaler
from ddpo.trainer.loop import resume


def test_it_moves_as_torchs_own_scaler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpo.trainer.grad_scaler.PATIENCE", 3)
    ours = GradScaler(needed=True)
    theirs = torch.amp.GradScaler("cpu", growth_interval=3)
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    assert (theirs.get_scale(), torch.amp.GradScaler("cpu").get_growth_interval()) == (
        FIRST,
        PATIENCE,
    )
    for finite in (True, False, True, True, True, True, False, False, True, True, True):
        theirs.scale(torch.zeros(()))
        parameter.grad = torch.full((2,), 3.0 * ours.value if finite else torch.inf)
        theirs.step(optimizer)
        theirs.update()
        assert ours.adjust(finite)
        assert ours.value == theirs.get_scale()


def test_scaling_is_exact_and_one_changes_nothing() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    values = torch.tensor([0.1, -3e-7, 7.0])
    for needed in (True, False):
        scale = GradScaler(needed)
        parameter.grad = values * scale.value
        scale.unscale([parameter])
        assert torch.equal(parameter.grad, values)


def test_an_overflow_at_factor_one_is_no_fault_of_the_scale() -> None:
    scale = GradScaler(needed=False)
    assert not scale.adjust(finite=False)
    scale = GradScaler(needed=True)
    assert [scale.adjust(finite=False) for _ in range(17)] == [True] * 16 + [False]


def test_small_gradients_vanish_without_it(tiny_model: Path) -> None:
    """A mean over 10,000 items of a mean over 16,384 dimensions, those of Stable Diffusion.

    The model here has 256 dimensions and 5 items.
    """
    share = 5 / 10_000 * 256 / 16_384
    policy = policy_of(tiny_model, "lora", "float16")
    settings = config()
    parameters = [parameter for _, parameter in policy.trainable_parameters()]
    likelihood = transition(policy, settings, rollout_of(policy, settings))

    def gradient(factor: float, scale: GradScaler) -> torch.Tensor:
        for parameter in parameters:
            parameter.grad = None
        (likelihood.of(ITEMS).new_log_probs.mean() * factor * scale.value).backward()
        scale.unscale(parameters)
        return torch.cat(
            [parameter.grad.flatten() for parameter in parameters if parameter.grad is not None]
        )

    expected = gradient(1, GradScaler(needed=False)) * share
    with_it, without = (gradient(share, GradScaler(needed)) for needed in (True, False))
    assert float((with_it - expected).norm() / expected.norm()) < 0.01
    assert float((without - expected).norm() / expected.norm()) > 0.5


def half(model: Path, tmp_path: Path, **changes: Any) -> Any:
    reward = tmp_path / "bright.py"
    reward.write_text("def bright(images):\n    return images.mean((1, 2, 3))\n")
    return tiny_config(model, f"{reward}:bright", dtype="float16", **changes)


def test_a_float16_run_starts_on_policy_and_resumes_to_the_bit(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the factor doubled every third update: its state is part of what is resumed."""
    monkeypatch.setattr("ddpo.trainer.grad_scaler.PATIENCE", 3)
    straight = tmp_path / "straight"
    broken = tmp_path / "broken"
    run(half(tiny_model, tmp_path, iterations=4), straight)
    run(half(tiny_model, tmp_path, iterations=2), broken)
    list(resume(broken, iterations=4))
    one, two = (
        load_tensors(folder / "state" / "state.safetensors")[0] for folder in (straight, broken)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one["loss_scale"].tolist() == [4 * FIRST, 2]
    assert metrics(straight) == metrics(broken)
    assert [line["ratio_first_deviation"] for line in metrics(straight)] == [0.0] * 4


def test_an_update_that_overflows_is_left_out_and_the_next_is_scaled_less(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpo.trainer.grad_scaler.FIRST", 2.0**40)
    run(half(tiny_model, tmp_path, iterations=1), tmp_path / "run")
    (line,) = metrics(tmp_path / "run")
    tensors = load_tensors(tmp_path / "run" / "state" / "state.safetensors")[0]
    assert line["updates"] == 0
    assert tensors["loss_scale"].tolist() == [2.0**38, 0]
    assert not [name for name in tensors if name.startswith("optimizer.")]
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
