"""The denoising probe: errors in closed form; the embedded model on prompts and broken images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gaussian import SPREAD, GaussianPolicy
from torch import Tensor

from ddpo.policies import load_policy
from ddpo.policies.denoising_probe import LEVELS, DenoisingProbe, _noise, denoising_probe
from ddpo.policies.policy import TrainablePolicy
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_trajectory
from ddpo.types import Prompt

NOUNS = (
    "cat",
    "dog",
    "horse",
    "bee",
    "castle",
    "pizza",
    "tree",
    "robot",
    "clock",
    "car",
    "rose",
    "drum",
)
KEYS = [SampleKey(Prompt(f"a {noun}"), 0) for noun in NOUNS]
OTHERS = [key.prompt.text for key in (*KEYS[5:], *KEYS[:5])]


def test_errors_are_those_of_the_closed_form() -> None:
    """ε̂ - ε = (√(ᾱ(1-ᾱ)) (x_0 - m) - ᾱ s² ε) / (ᾱ s² + 1 - ᾱ) for each image's noise ε."""
    policy = GaussianPolicy(shift=0.7)
    keys = [SampleKey(Prompt("a cat"), index) for index in range(600)]
    x_0 = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4).expand(600, -1, -1, -1)
    found = denoising_probe(policy, keys, x_0, 64)
    noise = np.stack([_noise(key, policy.latent_shape).double().numpy() for key in keys])
    alphas = [
        float(
            policy.schedule.alphas_cumprod[(policy.schedule.alphas_cumprod - level).abs().argmin()]
        )
        for level in LEVELS
    ]
    errors = []
    for text in ("a cat", ""):
        apart = (x_0 - policy.encode([text])[0, 0, :, None, None]).double().numpy()
        parts = [
            (np.sqrt(a * (1 - a)) * apart - a * SPREAD**2 * noise[:, i]) / (a * SPREAD**2 + 1 - a)
            for i, a in enumerate(alphas)
        ]
        errors.append(np.square(parts).mean((0, 2, 3, 4)))
    np.testing.assert_allclose(found.fit, -errors[0], rtol=1e-4)
    np.testing.assert_allclose(found.prompt_evidence, errors[1] - errors[0], rtol=1e-3, atol=1e-5)
    assert found.features is None
    assert policy.shapes == {128}
    own = noise[:, 1:].reshape(600 * 3, -1)  # independent standard normals
    assert abs(own.mean()) < 4 / own.size**0.5
    assert abs(own.var() - 1) < 4 * (2 / own.size) ** 0.5
    assert len(np.unique(own[:, 0])) == 1800


@pytest.fixture(scope="module")
def emoji() -> TrainablePolicy:
    return load_policy("emoji")


@pytest.fixture(scope="module")
def samples(emoji: TrainablePolicy) -> Tensor:
    """x_0 of one image of each of 12 nouns."""
    return sample_trajectory(emoji, KEYS, SamplerSettings(10, 3.0, 1.0, 12), 11).latents[:, -1]


@pytest.fixture(scope="module")
def view(emoji: TrainablePolicy, samples: Tensor) -> DenoisingProbe:
    return denoising_probe(emoji, KEYS, samples, 12)


def test_the_right_prompt_explains_an_image_and_a_wrong_one_does_not(
    emoji: TrainablePolicy, samples: Tensor, view: DenoisingProbe
) -> None:
    wrong = denoising_probe(emoji, KEYS, samples, 12, OTHERS)
    assert (view.fit > wrong.fit).all()
    assert (view.prompt_evidence > 0).all()
    assert (wrong.prompt_evidence < 0).all()
    assert torch.equal(view.features, wrong.features)  # they are made without a prompt
    torch.testing.assert_close(
        view.fit - view.prompt_evidence, wrong.fit - wrong.prompt_evidence
    )  # minus the error without a prompt


@pytest.mark.parametrize("kind", ["white", "black", "noise"])
def test_broken_images_are_implausible(
    emoji: TrainablePolicy, view: DenoisingProbe, kind: str
) -> None:
    pixels = {"white": torch.ones(12, 3, 64, 64), "black": torch.zeros(12, 3, 64, 64)}.get(kind)
    if pixels is None:
        pixels = torch.rand(12, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # the policy is of the Stable Diffusion family
        latents = emoji.vae.encode(pixels * 2 - 1).latent_dist.mean  # type: ignore[attr-defined]
    broken = denoising_probe(emoji, KEYS, latents, 12)
    assert float(broken.fit.max()) < float(view.fit.min())
    assert (broken.prompt_evidence < 0).all()


@pytest.fixture
def tuned() -> TrainablePolicy:
    policy = load_policy("emoji")
    torch.manual_seed(0)
    policy.adapt("full")
    for _, parameter in policy.trainable_parameters():
        parameter.data.mul_(0.5)
    return policy


def test_it_is_the_base_model_that_is_asked_image_by_image(
    tuned: TrainablePolicy, samples: Tensor, view: DenoisingProbe
) -> None:
    """A fully finetuned policy has the same probe, in other batches with one image left over."""
    found = denoising_probe(tuned, KEYS, samples, 5)
    assert found.features.dtype == torch.float16
    assert found.features.shape == (12, 160)
    torch.testing.assert_close(found.fit, view.fit, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.features, view.features, rtol=2e-3, atol=2e-3)
    again = denoising_probe(tuned, KEYS[10:], samples[10:], 5)
    assert torch.equal(again.fit, found.fit[10:])


def test_equal_images_have_equal_features(emoji: TrainablePolicy, samples: Tensor) -> None:
    same = denoising_probe(emoji, KEYS, samples[:1].expand(12, -1, -1, -1), 12).features
    assert torch.equal(same, same[:1].expand(12, -1))


def test_features_tell_what_is_shown(
    emoji: TrainablePolicy, samples: Tensor, view: DenoisingProbe
) -> None:
    """Two images of one noun are nearest far more often than by chance (1 in 12)."""
    keys = [SampleKey(key.prompt, 1) for key in KEYS]
    second = denoising_probe(
        emoji,
        keys,
        sample_trajectory(emoji, keys, SamplerSettings(10, 3.0, 1.0, 12), 11).latents[:, -1],
        12,
    )
    first, other = (of.features.float() - view.features.float().mean(0) for of in (view, second))
    nearest = torch.nn.functional.cosine_similarity(other[:, None], first[None], dim=2).argmax(1)
    assert int((nearest == torch.arange(12)).sum()) >= 6
