"""The promise that the importance ratio is exactly 1 before the first update."""

from __future__ import annotations

import torch

from ddpo.model_check.model_under_test import BATCH, STEPS, Kind, ModelUnderTest
from ddpo.policies.sampler import guided, sample_trajectory
from ddpo.policies.transition import gaussian_log_prob
from ddpo.rewards.check.definition import CheckFailed

__all__ = ["ratio_bfloat16", "ratio_float16", "ratio_float32"]


def ratio_float32(tested: ModelUnderTest) -> str | None:
    """Before the first update the importance ratio is 1 to the bit, in float32."""
    return _ratio(tested, "float32")


def ratio_bfloat16(tested: ModelUnderTest) -> str | None:
    """Before the first update the importance ratio is 1 to the bit, in bfloat16."""
    return _ratio(tested, "bfloat16")


def ratio_float16(tested: ModelUnderTest) -> str | None:
    """Before the first update the importance ratio is 1 to the bit, in float16."""
    return _ratio(tested, "float16")


def _ratio(tested: ModelUnderTest, dtype: str) -> str:
    for kind in tested.kinds:
        for guidance in (1.0, 3.0):
            _check(tested, kind, dtype, guidance)
    return " and ".join(tested.kinds)


def _check(tested: ModelUnderTest, kind: Kind, dtype: str, guidance: float) -> None:
    """Computes log-probs of a stored path again, as training does with shuffled items."""
    policy = tested.adapted(kind, dtype)
    keys = tested.keys()
    path = sample_trajectory(policy, keys, tested.settings(guidance), seed=3)
    where = f"with {kind} and a guidance of {guidance:g}"
    if not bool(path.log_probs.isfinite().all()):
        raise CheckFailed(f"{where} a sampled path has log-probs that are not finite")
    images = torch.tensor([2, 0, 2, 1][:BATCH], device=policy.device)
    steps = torch.tensor([STEPS - 1, 0, 1, 2], device=policy.device)
    texts = list(dict.fromkeys(key.prompt.text for key in keys))
    of_image = torch.tensor([texts.index(key.prompt.text) for key in keys], device=policy.device)
    conditioning = policy.encode(texts)[of_image[images]]
    coefficients = tested.coefficients(policy)
    x_t = path.latents[images, steps]
    times = coefficients.timesteps[steps]
    with torch.enable_grad():
        output = guided(policy, x_t, times, conditioning, policy.encode([""]), guidance)
        mean = policy.schedule.mean(output, x_t, steps, coefficients)
        found = gaussian_log_prob(path.latents[images, steps + 1], mean, coefficients.std[steps])
    if not found.requires_grad:
        raise CheckFailed(f"{where} predict has no gradient: nothing would be learned")
    expected = path.log_probs[images, steps]
    if not torch.equal(found, expected):
        away = float(((found - expected).exp() - 1).abs().max())
        raise CheckFailed(
            f"{where} the ratio deviates from 1 by {away:.2g}: predict must give the same bits "
            "with gradient as without, in any batch of one size"
        )
