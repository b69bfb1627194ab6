"""Sampling: the bits of an image depend on its key alone; only missing images are sampled."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analytic import SETTINGS, SPREAD, AnalyticPolicy
from torch import Tensor

from ddpo.errors import ImageError
from ddpo.eval.generate.image_store import ImageStore, image_path
from ddpo.eval.generate.sampling import (
    ImageRequest,
    SamplingProgress,
    Source,
    missing,
    sample_images,
)
from ddpo.policies import load_policy
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_noise
from ddpo.types import Prompt, Trajectory

PROMPTS = [Prompt(text) for text in ("a cat", "a dog", "a yak")]
SOURCE = Source("analytic", "", "float32", SETTINGS, seed=5, call=4)
REQUESTS = [ImageRequest(prompt, index) for prompt in PROMPTS for index in range(3)]


Name = tuple[str, int, str | None]


def sampled(
    policy: Policy,
    out: Path,
    requests: Sequence[ImageRequest],
    source: Source = SOURCE,
    reference: bool = True,
) -> dict[Name, str]:
    with ImageStore(out) as store:
        list(sample_images(policy, store, source, requests, reference=reference))
        found = [(one, store.get(one.key(source))) for one in requests]
    return {
        (one.prompt.text, one.index, one.text.text if one.text else None): p.sha256
        for one, p in found
        if p is not None
    }


@pytest.mark.parametrize("model", ["emoji", "tiny"])
def test_an_image_does_not_depend_on_its_batch(
    model: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Equal bits, whatever the other rows of the call, its own row, and `batch`."""
    policy = load_policy(
        "emoji" if model == "emoji" else str(request.getfixturevalue("tiny_model"))
    )
    source = Source(model, "", "float32", SamplerSettings(steps=2, guidance=3.0), seed=5)
    requests = [*REQUESTS, ImageRequest(PROMPTS[0], 0, PROMPTS[1])]
    whole = sampled(policy, tmp_path / "whole", requests, source)
    assert len(set(whole.values())) == len(requests)
    shuffled = requests.copy()
    random_ = random.Random(1)
    for trial in range(2):
        random_.shuffle(shuffled)
        other = replace(source, sampler=replace(source.sampler, batch=random_.choice([1, 5, 32])))
        assert other.digest == source.digest
        part = sampled(policy, tmp_path / str(trial), shuffled[: random_.randint(5, 7)], other)
        assert part == {key: whole[key] for key in part}


def test_the_base_model_of_a_checkpoint_is_the_base_model(tmp_path: Path) -> None:
    source = Source("emoji", "", "float32", SamplerSettings(steps=2, guidance=3.0), seed=5)
    alone = load_policy("emoji")
    whole = sampled(alone, tmp_path / "alone", REQUESTS[:3], source)
    for kind in ("lora", "full"):
        policy = load_policy("emoji")
        policy.adapt(kind)  # type: ignore[arg-type]
        with torch.no_grad():
            for _, parameter in policy.trainable_parameters():
                parameter += 0.05
        assert sampled(policy, tmp_path / kind, REQUESTS[:3], source) == whole
        tuned = sampled(
            policy,
            tmp_path / f"{kind} tuned",
            REQUESTS[:3],
            replace(source, weights="f" * 64),
            reference=False,
        )
        assert not set(tuned.values()) & set(whole.values())


def test_only_missing_images_are_sampled_in_calls_of_one_shape(tmp_path: Path) -> None:
    policy = AnalyticPolicy(0.4)
    with ImageStore(tmp_path) as store:
        events = list(
            sample_images(policy, store, SOURCE, [*REQUESTS[:5], *REQUESTS[:2]], reference=True)
        )
        assert events == [
            SamplingProgress(0, 5, 0),
            SamplingProgress(4, 5, 0),
            SamplingProgress(5, 5, 0),
        ]
        assert policy.calls == 2 * SETTINGS.steps
        assert missing(store, SOURCE, REQUESTS) == REQUESTS[5:]
    first = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    with ImageStore(tmp_path) as store:
        assert next(
            sample_images(policy, store, SOURCE, REQUESTS, reference=True)
        ) == SamplingProgress(5, 9, 5)
        list(sample_images(policy, store, SOURCE, REQUESTS, reference=True))
        assert policy.calls == 3 * SETTINGS.steps
        list(sample_images(policy, store, SOURCE, REQUESTS, reference=True))
        assert policy.calls == 3 * SETTINGS.steps
        # Another model, seed or number of steps is something else, in the same folder.
        for other in (
            replace(SOURCE, weights="a"),
            replace(SOURCE, seed=6),
            replace(SOURCE, sampler=replace(SETTINGS, steps=3)),
        ):
            assert missing(store, other, REQUESTS) == REQUESTS
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert policy.shapes == {(4, 3, 8, 8)}


def test_a_damaged_image_is_sampled_again_and_is_the_same(tmp_path: Path) -> None:
    policy = AnalyticPolicy(0.4)
    whole = sampled(policy, tmp_path, REQUESTS)
    path = tmp_path / image_path(whole["a dog", 1, None])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    calls = policy.calls
    assert sampled(policy, tmp_path, REQUESTS) == whole
    assert path.read_bytes() == content
    assert policy.calls == calls + SETTINGS.steps


def test_swapped_images_have_the_noise_of_one_prompt_and_the_text_of_another(
    tmp_path: Path,
) -> None:
    """One step from x_T to x_0 without noise: x_0 is a formula of x_T and of the text's mean."""
    policy = AnalyticPolicy(0.0)
    source = replace(SOURCE, sampler=SamplerSettings(steps=1, guidance=1.0, eta=0.0), call=2)
    swap = ImageRequest(PROMPTS[0], 2, PROMPTS[1])
    seen: list[tuple[list[str], Sequence[str] | None]] = []

    def probe(
        policy: Policy, keys: Sequence[SampleKey], path: Trajectory, texts: Sequence[str] | None
    ) -> list[dict[str, Any]]:
        seen.append(([key.prompt.text for key in keys], texts))
        return [
            {"noise": float(path.latents[i, 0].sum()), "mean": float(path.latents[i, -1].mean())}
            for i in range(len(keys))
        ]

    with ImageStore(tmp_path) as store:
        list(
            sample_images(
                policy,
                store,
                source,
                [swap, ImageRequest(PROMPTS[1], 2)],
                reference=True,
                probe=probe,
            )
        )
        (one, other) = (
            store.get(requests.key(source)) for requests in (swap, ImageRequest(PROMPTS[1], 2))
        )
    assert one is not None
    assert other is not None
    assert seen == [(["a cat", "a dog"], ["a dog", "a dog"])]
    assert one.facts["noise"] == pytest.approx(
        float(sample_noise(SampleKey(PROMPTS[0], 2), 5, 1, (3, 8, 8))[0].sum())
    )
    assert other.facts["noise"] == pytest.approx(
        float(sample_noise(SampleKey(PROMPTS[1], 2), 5, 1, (3, 8, 8))[0].sum())
    )
    alpha = policy.schedule.alphas_cumprod[policy.schedule.coefficients(1, 0.0).timesteps[0]].item()
    noise = sample_noise(SampleKey(PROMPTS[0], 2), 5, 1, (3, 8, 8))[0].double()
    mean = policy.encode(["a dog"])[0, 0].double()[:, None, None]
    epsilon = (1 - alpha) ** 0.5 * (noise - alpha**0.5 * mean) / (alpha * 0.25 + 1 - alpha)
    expected = (noise - (1 - alpha) ** 0.5 * epsilon) / alpha**0.5
    assert one.facts["mean"] == pytest.approx(float(expected.mean()), abs=1e-5)


def test_facts_that_are_required_later_are_added_without_a_second_file(tmp_path: Path) -> None:
    policy = AnalyticPolicy(0.4)
    whole = sampled(policy, tmp_path, REQUESTS[:4])
    with ImageStore(tmp_path) as store:
        assert missing(store, SOURCE, REQUESTS[:4], {"kl"}) == REQUESTS[:4]
        list(
            sample_images(
                policy,
                store,
                SOURCE,
                REQUESTS[:4],
                reference=True,
                probe=lambda *_: [{"kl": None}] * 4,
                facts={"kl"},
            )
        )
    with ImageStore(tmp_path) as store:
        assert missing(store, SOURCE, REQUESTS[:4], {"kl"}) == []
    assert sampled(policy, tmp_path, REQUESTS[:4]) == whole
    assert len(list(tmp_path.rglob("*.png"))) == 4


def test_what_is_no_image_is_not_kept(tmp_path: Path) -> None:
    class Diverged(AnalyticPolicy):
        def decode(self, latents: Tensor) -> Tensor:
            pixels = super().decode(latents)
            pixels[1] = torch.nan
            return pixels

    with (
        ImageStore(tmp_path) as store,
        pytest.raises(ImageError, match=r"NaN or infinite for 'a cat', index 1"),
    ):
        list(sample_images(Diverged(0.4), store, SOURCE, REQUESTS, reference=True))
    assert not list(tmp_path.rglob("*.png"))


def test_ctrl_c_keeps_finished_images(tmp_path: Path) -> None:
    class Interrupted(AnalyticPolicy):
        def decode(self, latents: Tensor) -> Tensor:
            if self.calls > SETTINGS.steps:
                raise KeyboardInterrupt
            return super().decode(latents)

    with ImageStore(tmp_path) as store, pytest.raises(KeyboardInterrupt):
        list(sample_images(Interrupted(0.4), store, SOURCE, REQUESTS, reference=True))
    with ImageStore(tmp_path) as store:
        assert missing(store, SOURCE, REQUESTS) == REQUESTS[4:]


def test_untrained_models_sample_the_same_and_a_shift_shows_as_in_the_formula(
    tmp_path: Path,
) -> None:
    """A shift of m by d brightens N(m, s²) latents by a mean difference of sigmoids.

    The mean is that of sigmoid(m + d + s z) - sigmoid(m + s z) over z.
    """
    source = replace(SOURCE, sampler=replace(SETTINGS, steps=50))
    base = sampled(AnalyticPolicy(0.4), tmp_path, REQUESTS, source)
    assert (
        sampled(
            AnalyticPolicy(0.0),
            tmp_path,
            REQUESTS,
            replace(source, weights="same"),
            reference=False,
        )
        == base
    )
    tuned = sampled(
        AnalyticPolicy(0.4), tmp_path, REQUESTS, replace(source, weights="shifted"), reference=False
    )
    with ImageStore(tmp_path) as store:
        gains = [
            store.pixels(tuned[name]).mean() - store.pixels(base[name]).mean() for name in base
        ]
    expected = []
    normal = np.random.default_rng(0).normal(0, SPREAD, (200_000, 1))
    for prompt in PROMPTS:
        latents = (
            np.frombuffer(hashlib.sha256(prompt.text.encode()).digest()[:3], np.uint8) / 127.5
            - 1
            + normal
        )
        expected.append(
            255 * (1 / (1 + np.exp(-latents - 0.4)) - 1 / (1 + np.exp(-latents))).mean()
        )
    assert np.mean(gains) == pytest.approx(np.mean(expected), rel=0.03)
    assert min(gains) > 0
