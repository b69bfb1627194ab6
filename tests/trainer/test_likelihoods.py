"""Likelihoods against torch's distributions, diffusers' schedulers and the path's log-probs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from ddpo.policies import load_policy
from ddpo.policies.policy import save_memory
from ddpo.policies.sampler import SampleKey, guided, sample_trajectory
from ddpo.policies.stable_diffusion import StableDiffusionPolicy
from ddpo.policies.transition import ddim_mean
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.likelihoods import DenoisingLikelihood, TransitionLikelihood
from ddpo.trainer.minibatches import Minibatch
from ddpo.trainer.recipe import config_from_dict
from ddpo.trainer.rollout import sampler_settings
from ddpo.types import Prompt, RewardOutput, Rollout

KEYS = [SampleKey(Prompt("a cat"), 0), SampleKey(Prompt("a dog"), 0), SampleKey(Prompt("a cat"), 1)]
ITEMS = Minibatch(
    np.array([2, 0, 2, 1, 1]), np.array([3, 0, 1, 3, 2]), np.array([0, 0, 1, 0, 1]), 5
)


def config(scale: float = 3.0, **optim: Any) -> TrainConfig:
    sample = {"samples": 4, "per_prompt": 1, "steps": 4, "guidance": scale, "batch": 6}
    return config_from_dict({"sample": sample, "optim": {"skip_last": 0, "timesteps": 0} | optim})


def policy_of(
    folder: Path, kind: Any = "lora", dtype: str = "float32", disturbed: bool = True
) -> StableDiffusionPolicy:
    policy = load_policy(str(folder), dtype=dtype)
    policy.adapt(kind)
    generator = torch.Generator().manual_seed(0)
    for _, parameter in policy.trainable_parameters():
        if disturbed:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return policy


def rollout_of(policy: StableDiffusionPolicy, config: TrainConfig) -> Rollout:
    trajectory = sample_trajectory(policy, KEYS, sampler_settings(config.sample), seed=3)
    return Rollout(trajectory, tuple(key.prompt for key in KEYS), RewardOutput(torch.zeros(3)))


def transition(
    policy: StableDiffusionPolicy, config: TrainConfig, rollout: Rollout
) -> TransitionLikelihood:
    return TransitionLikelihood(
        policy,
        rollout,
        policy.schedule.coefficients(config.sample.steps, config.sample.eta),
        config,
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_before_an_update_every_ratio_is_one_to_the_bit(
    tiny_model: Path, kind: str, guidance: float, dtype: str
) -> None:
    policy = policy_of(tiny_model, kind, dtype)
    settings = config(guidance)
    found = transition(policy, settings, rollout_of(policy, settings)).of(ITEMS)
    assert found.old_log_probs is not None
    assert torch.equal(found.new_log_probs, found.old_log_probs)
    assert torch.isfinite(found.new_log_probs).all()
    assert found.new_log_probs.requires_grad


def test_without_guidance_in_training_the_old_log_probs_are_those_of_the_unguided_prediction(
    tiny_model: Path,
) -> None:
    """Sampled with guidance 3, trained without: the ratio is still 1, with other log-probs."""
    policy = policy_of(tiny_model)
    settings = config(3.0, guidance=False)
    rollout = rollout_of(policy, settings)
    likelihood = transition(policy, settings, rollout)
    likelihood.prepare([ITEMS])
    found = likelihood.of(ITEMS)
    assert found.old_log_probs is not None
    assert torch.equal(found.new_log_probs, found.old_log_probs)
    assert not torch.equal(
        found.old_log_probs, rollout.trajectory.log_probs[ITEMS.images, ITEMS.steps]
    )


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_kl_to_the_reference_is_that_of_two_gaussians(tiny_model: Path, kind: str) -> None:
    policy = policy_of(tiny_model, kind)
    settings = config(3.0, kl=0.1)
    rollout = rollout_of(policy, settings)
    coefficients = policy.schedule.coefficients(4, 1.0)
    found = transition(policy, settings, rollout).of(ITEMS)
    images = torch.from_numpy(ITEMS.images)
    steps = torch.from_numpy(ITEMS.steps)

    def distribution() -> torch.distributions.Normal:
        x_t = rollout.trajectory.latents[images, steps]
        text = policy.encode([KEYS[i].prompt.text for i in images])
        output = guided(policy, x_t, coefficients.timesteps[steps], text, policy.encode([""]), 3.0)
        mean = ddim_mean(output, x_t, steps, coefficients, policy.schedule.prediction)
        return torch.distributions.Normal(mean, coefficients.std[steps].view(-1, 1, 1, 1))

    with torch.no_grad():
        now = distribution()
        with policy.reference():
            before = distribution()
    expected = torch.distributions.kl_divergence(now, before).mean((1, 2, 3))
    assert found.kl is not None
    assert found.kl.requires_grad
    assert expected.min() > 1e-6, "the policy has moved"
    torch.testing.assert_close(found.kl.detach(), expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("unit", ["time", "output"])
def test_the_kl_in_other_units(tiny_model: Path, unit: str) -> None:
    """Times |b| of the step with η = 0, or the squared distance of the outputs."""
    policy = policy_of(tiny_model)
    settings = config(3.0, kl=0.1)
    rollout = rollout_of(policy, settings)
    plain = transition(policy, settings, rollout).of(ITEMS)
    found = transition(policy, config(3.0, kl=0.1, kl_of=unit), rollout).of(ITEMS)
    assert plain.kl is not None
    assert found.kl is not None
    steps = torch.from_numpy(ITEMS.steps)
    table = policy.schedule.coefficients(4, 1.0)
    factor = policy.schedule.coefficients(4, 0.0).b[steps].abs()
    if unit == "output":
        factor = 2 * table.std[steps] ** 2 / table.b[steps] ** 2
    torch.testing.assert_close(found.kl, plain.kl * factor, rtol=1e-3, atol=1e-8)
    assert found.kl.requires_grad


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("unguided", [False, True])
def test_the_old_output_is_that_of_the_policy_that_sampled_to_the_bit(
    tiny_model: Path, dtype: str, unguided: bool
) -> None:
    """Before an update nothing has moved; after it the old output stays what it was."""
    policy = policy_of(tiny_model, dtype=dtype)
    settings = config(3.0, guidance=not unguided)
    likelihood = TransitionLikelihood(
        policy,
        rollout_of(policy, settings),
        policy.schedule.coefficients(4, 1.0),
        settings,
        needs=("old_output", "target", "reference_output"),
    )
    likelihood.prepare([ITEMS])
    before = likelihood.of(ITEMS)
    assert torch.equal(before.old_output, before.output)
    assert before.divergence().tolist() == [0.0] * 5
    assert before.output.requires_grad
    assert not before.old_output.requires_grad
    assert (before.reference_output - before.output).abs().max() > 1e-4, "it was disturbed"
    with torch.no_grad():
        for _, parameter in policy.trainable_parameters():
            parameter.add_(0.02)
    likelihood.prepare([ITEMS[:1]])  # of an item that joins others' calls: nothing changes
    after = likelihood.of(ITEMS)
    assert torch.equal(after.old_output, before.output)
    assert after.divergence().min() > 0
    again = likelihood.of(ITEMS[2:4])
    assert torch.equal(again.old_output, before.output[2:4])


def test_the_items_know_their_images_steps_and_prompts(tiny_model: Path) -> None:
    policy = policy_of(tiny_model)
    settings = config()
    found = TransitionLikelihood(
        policy,
        rollout_of(policy, settings),
        policy.schedule.coefficients(4, 1.0),
        settings,
        first=0,
        needs=("target",),
    ).of(ITEMS)
    assert found.image.tolist() == [2, 0, 2, 1, 1]
    assert found.index.tolist() == [3, 0, 1, 3, 2]
    assert found.group[0] == found.group[1] == found.group[2]
    assert found.group[3] == found.group[4] != found.group[0], "a cat, a cat, a cat, a dog, a dog"
    step = found.coefficients()
    table = policy.schedule.coefficients(4, 1.0)
    assert torch.equal(step.k, table.std[ITEMS.steps])
    assert torch.equal(step.b, table.b[ITEMS.steps])
    mean = (step.a, step.b)
    assert all(len(value) == 5 for value in mean)


def test_the_target_is_the_output_that_leads_to_what_was_sampled(tiny_model: Path) -> None:
    """With the target as output the mean of the step is the next latent itself."""
    policy = policy_of(tiny_model)
    settings = config()
    rollout = rollout_of(policy, settings)
    table = policy.schedule.coefficients(4, 1.0)
    likelihood = TransitionLikelihood(policy, rollout, table, settings, needs=("target",))
    target = likelihood.of(ITEMS).target
    images = torch.from_numpy(ITEMS.images)
    steps = torch.from_numpy(ITEMS.steps)
    x_t = rollout.trajectory.latents[images, steps]
    mean = ddim_mean(target, x_t, steps, table, policy.schedule.prediction)
    after = rollout.trajectory.latents[images, steps + 1]
    torch.testing.assert_close(mean, after, rtol=1e-4, atol=1e-4)


def test_a_policy_that_has_not_moved_has_no_kl(tiny_model: Path) -> None:
    policy = policy_of(tiny_model, disturbed=False)
    settings = config(3.0, kl=0.1)
    found = transition(policy, settings, rollout_of(policy, settings)).of(ITEMS)
    assert found.kl is not None
    assert found.kl.tolist() == [0.0] * 5


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_denoising_error_is_that_of_diffusers_own_noising(
    tiny_model: Path, prediction: Any
) -> None:
    """The same noise through `DDIMScheduler.add_noise` and `get_velocity`, without padding."""
    policy = policy_of(tiny_model)
    settings = config(2.0)
    object.__setattr__(policy.schedule, "prediction", prediction)
    rollout = rollout_of(policy, settings)
    likelihood = DenoisingLikelihood(policy, rollout, settings, iteration=7)
    items = Minibatch(ITEMS.images, np.array([0, 999, 500, 20, 321]), ITEMS.draws, 5)
    found = likelihood.of(items)
    scheduler = DDIMScheduler.from_pretrained(tiny_model, subfolder="scheduler")
    for index, (image, level, draw) in enumerate(
        zip(items.images, items.steps, items.draws, strict=True)
    ):
        x_0 = rollout.trajectory.latents[image, -1:]
        noise = likelihood._noise(int(image), int(draw))[None]
        time = torch.tensor([level])
        target = {
            "epsilon": noise,
            "sample": x_0,
            "v_prediction": scheduler.get_velocity(x_0, noise, time),
        }[prediction]
        text = policy.encode([KEYS[image].prompt.text])
        output = guided(
            policy, scheduler.add_noise(x_0, noise, time), time, text, policy.encode([""]), 2.0
        )
        expected = -torch.nn.functional.mse_loss(output, target)
        torch.testing.assert_close(found.new_log_probs[index], expected, rtol=1e-4, atol=1e-5)
    assert found.old_log_probs is None
    assert found.new_log_probs.requires_grad


def test_the_kl_of_the_denoising_loss_is_the_distance_of_the_outputs(tiny_model: Path) -> None:
    """The reference is another policy, which was not adapted."""
    policy = policy_of(tiny_model)
    plain = policy_of(tiny_model, disturbed=False)
    settings = config(1.0, kl=0.5)
    rollout = rollout_of(policy, settings)
    items = Minibatch(ITEMS.images, np.array([0, 999, 500, 20, 321]), ITEMS.draws, 5)
    found = DenoisingLikelihood(policy, rollout, settings, iteration=7).of(items)
    base = DenoisingLikelihood(plain, rollout, settings, iteration=7).of(items)
    expected = (found.output - base.output).square().flatten(1).mean(1)
    assert expected.min() > 0
    torch.testing.assert_close(found.kl, expected)
    assert found.kl is not None
    assert found.kl.requires_grad
    none = DenoisingLikelihood(policy, rollout, config(1.0), iteration=7).of(items)
    assert none.kl is None


def test_noise_of_the_denoising_loss_differs_by_image_draw_and_iteration(
    tiny_model: Path,
) -> None:
    policy = policy_of(tiny_model)
    settings = config()
    rollout = rollout_of(policy, settings)
    one, two = (DenoisingLikelihood(policy, rollout, settings, iteration) for iteration in (1, 2))
    draws = [one._noise(0, 0), one._noise(1, 0), one._noise(0, 1), two._noise(0, 0)]
    assert len({tuple(noise.flatten().tolist()) for noise in draws}) == 4
    assert torch.equal(draws[0], one._noise(0, 0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_checkpointing_keeps_less_and_changes_no_bit(
    tiny_model: Path, kind: str, dtype: str
) -> None:
    """The ratio stays 1, gradients are the same, and less than a third of the bytes is kept."""
    policy = policy_of(tiny_model, kind, dtype)
    settings = config()
    rollout = rollout_of(policy, settings)
    kept: list[int] = []

    def gradients() -> list[torch.Tensor]:
        kept.append(0)

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[-1] += tensor.nbytes
            return tensor

        for _, parameter in policy.trainable_parameters():
            parameter.grad = None
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found = transition(policy, settings, rollout).of(ITEMS)
        assert found.old_log_probs is not None
        assert torch.equal(found.new_log_probs, found.old_log_probs)
        (found.new_log_probs.sum() * 1024).backward()
        return [
            parameter.grad.clone()
            for _, parameter in policy.trainable_parameters()
            if parameter.grad is not None
        ]

    plain = gradients()
    save_memory(policy)
    again = gradients()
    assert len(plain) == len(again) > 0
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
    assert 3 * kept[1] < kept[0]
