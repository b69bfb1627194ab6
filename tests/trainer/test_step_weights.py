"""The rules per denoising step, against their published formulas in float64."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpo.policies import load_policy
from ddpo.policies.flow_schedule import FlowSchedule
from ddpo.policies.schedule import Schedule, StepCoefficients
from ddpo.trainer.algorithms import algorithms
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.divergences import output_distance, step_kl
from ddpo.trainer.items import Items, StepItems
from ddpo.trainer.losses import masked_surrogate
from ddpo.trainer.recipe import config_from_dict
from ddpo.trainer.step_weights import (
    balanced_weight,
    guard_log_ratio,
    temporal_weight,
    within_divergence,
)

SHAPE = (4, 3, 3)
STEPS = 10


@cache
def schedules() -> dict[str, tuple[Schedule, float]]:
    return {
        "ddim": (load_policy("emoji").schedule, 1.0),
        "flow_sde": (FlowSchedule(3.0, "diffusers", "flow_sde"), 0.7),
        "dance_sde": (FlowSchedule(3.0, "linspace", "dance_sde"), 0.3),
        "cps": (FlowSchedule(1.0, "linspace", "cps"), 0.8),
    }


def table_of(schedule: Schedule, eta: float, count: int) -> StepCoefficients:
    """The first `count` rows in float64, so that formulas can be compared to its precision."""
    table = schedule.coefficients_on(torch.device("cpu"), STEPS, eta)
    rows = {name: getattr(table, name)[:count].double() for name in ("a", "b", "std", "noise_std")}
    return StepCoefficients(table.timesteps[:count], **rows)


def items_of(table: StepCoefficients, change: Tensor, distance: float = 1e-2) -> dict[str, Any]:
    """Steps x' = a x + b f_old + k z that were sampled, and an output that has moved since."""
    generator = torch.Generator().manual_seed(0)

    def normal() -> Tensor:
        return torch.randn((len(table), *SHAPE), generator=generator, dtype=torch.float64)

    def wide(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1)

    x = normal()
    noise = normal()
    old = normal()
    new = (old + distance * normal()).requires_grad_(True)
    a, b, k = map(wide, (table.a, table.b, table.std))
    mean = a * x + b * new
    old_mean = a * x + b * old
    after = old_mean + k * noise

    def log_probs(of: Tensor) -> Tensor:
        return torch.distributions.Normal(of, k).log_prob(after).mean((1, 2, 3))

    items = Items(
        new_log_probs=log_probs(mean),
        old_log_probs=log_probs(old_mean).detach(),
        output=new,
        index=torch.arange(len(table)),
        image=torch.arange(len(table)),
        group=torch.zeros(len(table), dtype=torch.int64),
        step=StepItems(table.a, table.b, table.std, change),
        kl=None,
        asked={"old_output": old, "target": (after - a * x) / b},
    )
    return {"items": items, "mean": mean, "old_mean": old_mean, "noise": noise, "k": k}


@pytest.fixture(params=["ddim", "flow_sde", "dance_sde", "cps"])
def made(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Nine steps, since the last one of CPS has no noise."""
    schedule, eta = schedules()[request.param]
    still = schedule.coefficients_on(torch.device("cpu"), STEPS, 0.0)
    return items_of(table_of(schedule, eta, STEPS - 1), still.b[: STEPS - 1].double().abs())


def settings(**optim: Any) -> TrainConfig:
    return config_from_dict({"optim": optim})


def test_the_items_give_back_the_noise_and_the_shift_of_the_means(made: dict[str, Any]) -> None:
    items = made["items"]
    torch.testing.assert_close(items.noise(), made["noise"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        items.mean_shift(), made["mean"] - made["old_mean"], rtol=1e-10, atol=1e-12
    )


def test_the_guards_log_ratio_is_the_published_one(made: dict[str, Any]) -> None:
    """Published: k · (log p - log p_old + mean((μ - μ_old)²) / (2 k²))."""
    items = made["items"]
    shift = made["mean"] - made["old_mean"]
    k = made["k"].flatten()
    bias = (shift**2).mean((1, 2, 3)) / (2 * k**2)
    published = k * (items.new_log_probs - items.old_log_probs + bias)
    torch.testing.assert_close(
        guard_log_ratio(items.mean_shift(), items.noise()), published, rtol=1e-9, atol=1e-13
    )


def test_the_guards_ratio_has_no_bias_where_the_plain_one_has() -> None:
    """Over many draws of the noise, the mean log-ratio is 0 and not minus the divergence."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn((100_000, 1), generator=generator, dtype=torch.float64)
    shift = torch.full_like(noise, 0.1)
    k = 0.2
    plain = -((k * noise - shift) ** 2 - (k * noise) ** 2).mean(1) / (2 * k**2)
    error = shift[0, 0] / k / math.sqrt(len(noise))
    assert float(guard_log_ratio(shift, noise).mean()) == pytest.approx(0, abs=5 * float(error))
    assert float(plain.mean()) == pytest.approx(-(0.1**2) / (2 * k**2), abs=5 * float(error))


def test_the_guards_loss_is_the_clipped_surrogate_over_the_time(made: dict[str, Any]) -> None:
    items = made["items"]
    weights = torch.linspace(-2, 2, len(items), dtype=torch.float64)
    found = algorithms.get("grpo_guard").item_loss(items, weights, settings(clip_range=1e-3))
    shift = made["mean"] - made["old_mean"]
    ratio = torch.exp((made["noise"] * shift).mean((1, 2, 3)))
    surrogate = torch.minimum(weights * ratio, weights * ratio.clamp(1 - 1e-3, 1 + 1e-3))
    torch.testing.assert_close(found, -surrogate / items.step.change, rtol=1e-8, atol=1e-10)


def test_the_divergence_is_that_of_torch(made: dict[str, Any]) -> None:
    normal = torch.distributions.Normal
    k = made["k"]
    expected = torch.distributions.kl_divergence(
        normal(made["mean"], k), normal(made["old_mean"], k)
    ).mean((1, 2, 3))
    items = made["items"]
    torch.testing.assert_close(items.divergence(), expected, rtol=1e-9, atol=1e-15)
    found = step_kl(made["mean"], made["old_mean"], k.flatten())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_the_kl_on_the_affine_table_is_that_of_the_means(made: dict[str, Any]) -> None:
    """b² · mean((f - f_ref)²) / (2 k²) is the KL of the steps, for every sampler."""
    items = made["items"]
    b = items.step.b
    k = items.step.k
    on_table = b**2 / (2 * k**2) * output_distance(items.output, items.old_output)
    torch.testing.assert_close(items.divergence(), on_table, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(("shift", "eta"), [(3.0, 0.7), (1.0, 1.2)])
def test_the_change_of_a_flow_step_is_its_time(shift: float, eta: float) -> None:
    for step in ("flow_sde", "dance_sde", "cps"):
        schedule = FlowSchedule(shift, "linspace", step if eta <= 1 or step != "cps" else "ode")
        sigma = schedule.sigmas(STEPS)
        change = schedule.coefficients(STEPS, 0.0).b.abs().double()
        torch.testing.assert_close(change, sigma[:-1] - sigma[1:], rtol=1e-6, atol=1e-8)


def test_the_temporal_weight_is_2_25_times_the_noise_of_flow_sde() -> None:
    schedule = FlowSchedule(3.0, "linspace", "flow_sde")
    sigma = schedule.sigmas(STEPS)
    now = sigma[1:-1]
    after = sigma[2:]
    std = 0.7 * torch.sqrt(now / (1 - now)) * torch.sqrt(now - after)
    found = temporal_weight(schedule.coefficients(STEPS, 0.7).std[1:].double())
    torch.testing.assert_close(found, 2.25 * std, rtol=1e-6, atol=1e-7)


def test_the_balanced_weight_is_that_of_flash_grpo() -> None:
    """1 / (√|Δ| / s + s √|Δ| (1 - t) / (2 t)), with Flow-SDE's s = a √(t / (1 - t))."""
    schedule = FlowSchedule(3.0, "linspace", "flow_sde")
    sigma = schedule.sigmas(STEPS)
    now = sigma[1:-1]
    time = now - sigma[2:]
    s = 0.7 * torch.sqrt(now / (1 - now))
    expected = 1 / (time.sqrt() / s + s * time.sqrt() * (1 - now) / (2 * now))
    table = schedule.coefficients(STEPS, 0.7)
    found = balanced_weight(table.b[1:].double(), table.std[1:].double())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("rule", "factor"),
    [
        ("none", lambda step: step.b.abs() / step.k),
        ("guard", lambda step: step.b.abs() / step.change),
        ("temporal", lambda step: step.b.abs()),
        ("balanced", lambda step: torch.ones_like(step.b)),
    ],
)
def test_each_rule_has_the_gradient_that_its_table_says(
    made: dict[str, Any], rule: str, factor: Any
) -> None:
    """At ratio 1 the gradient in the output is the factor times the noise, over the dimensions."""
    items = items_at_ratio_one(made)
    step = items.step
    ratio = (items.new_log_probs - items.old_log_probs).exp()
    losses = {
        "none": ratio,
        "guard": guard_log_ratio(items.mean_shift(), items.noise()).exp() / step.change,
        "temporal": temporal_weight(step.k) / 2.25 * ratio,
        "balanced": balanced_weight(step.b, step.k) * ratio,
    }
    (gradient,) = torch.autograd.grad(losses[rule].sum(), items.output)
    expected = factor(step).view(-1, 1, 1, 1) * step.b.sign().view(-1, 1, 1, 1) * made["noise"]
    torch.testing.assert_close(gradient * math.prod(SHAPE), expected, rtol=1e-8, atol=1e-8)


def items_at_ratio_one(made: dict[str, Any]) -> Items:
    """The same sampled steps, with the output of the policy that sampled."""
    items = made["items"]
    output = items.old_output.clone().requires_grad_(True)
    b = items.step.b.view(-1, 1, 1, 1)
    mean = made["old_mean"] + b * (output - items.old_output)
    after = made["old_mean"] + made["k"] * made["noise"]
    new = torch.distributions.Normal(mean, made["k"]).log_prob(after).mean((1, 2, 3))
    return Items(
        new,
        new.detach(),
        output,
        items.index,
        items.image,
        items.group,
        items.step,
        None,
        items.asked,
    )


@pytest.mark.parametrize(
    ("divergence", "ratio", "advantage", "kept"),
    [
        (2e-5, 1.1, 1.0, False),  # far, and better images would get likelier still
        (2e-5, 0.9, -1.0, False),
        (2e-5, 0.9, 1.0, True),  # far, on its way back
        (2e-5, 1.1, -1.0, True),
        (2e-5, 1.0, 1.0, True),
        (9e-6, 1.5, 1.0, True),  # near
        (1e-5, 1.1, 1.0, False),  # the bound itself is out
    ],
)
def test_dppo_leaves_out_what_would_move_further_away(
    divergence: float, ratio: float, advantage: float, kept: bool
) -> None:
    one = torch.tensor([1.0])
    found = within_divergence(divergence * one, ratio * one, advantage * one, 1e-5 * one.item())
    assert found.tolist() == [kept]


def test_an_item_that_is_left_out_has_no_gradient_even_if_its_ratio_overflows() -> None:
    log_ratio = torch.tensor([1000.0, 0.1], requires_grad=True)
    loss = masked_surrogate(log_ratio, torch.tensor([2.0, 2.0]), torch.tensor([False, True]))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0.0, -2 * math.exp(0.1)])
    assert log_ratio.grad is not None
    assert log_ratio.grad.tolist() == pytest.approx([0.0, -2 * math.exp(0.1)])


def test_dppos_loss_and_its_share_beyond_the_bound(made: dict[str, Any]) -> None:
    items = made["items"]
    algorithm = algorithms.get("flow_dppo")
    far = items.divergence().detach()
    bound = float(far.median())
    weights = torch.ones(len(items), dtype=torch.float64)
    config = settings(divergence=bound)
    ratio = (items.new_log_probs - items.old_log_probs).exp()
    expected = torch.where((far >= bound) & (ratio > 1), 0.0, -ratio)
    torch.testing.assert_close(algorithm.item_loss(items, weights, config), expected)
    assert algorithm.outside(items, config).sum() == 5, "the median of nine and the four above it"
