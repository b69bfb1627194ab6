"""Facts recorded of each image while its latents are at hand: denoising probe, features, KL."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ddpo.policies.denoising_probe import denoising_probe
from ddpo.policies.kl import trajectory_kl
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, SamplerSettings
from ddpo.rewards.card import RewardCard
from ddpo.types import Trajectory

__all__ = ["FACT_OF_CARD", "PROBE_CARDS", "PROBE_FACTS", "features_of", "probe_images"]

FACT_OF_CARD: Final = {"base_fit": "fit", "prompt_evidence": "prompt_evidence"}
"""Id of a card of `PROBE_CARDS` → name of the fact that is its score."""
PROBE_FACTS: Final = tuple(FACT_OF_CARD.values())


def probe_images(
    policy: Policy,
    keys: Sequence[SampleKey],
    trajectory: Trajectory,
    settings: SamplerSettings,
    *,
    kl: bool,
    texts: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Facts about each image of a batch, as plain JSON values.

    Args:
        policy: policy in the state that sampled the trajectories.
        keys: keys of the images, at most `settings.batch`.
        trajectory: their trajectories; x_0 alone is enough without `kl`.
        settings: settings that sampled them.
        kl: whether to compute the KL of the trajectory, which costs two calls of the denoiser per
            step.
        texts: texts that the images were sampled with, if not their keys' prompts.

    Returns:
        Per image "fit", "prompt_evidence" (see `PROBE_CARDS`) and "features" (base64 of float16,
        see `features_of`; None if the policy has none); with `kl` also "kl" (nats; None where it
        is not defined).
    """
    sampled = [key.prompt.text for key in keys] if texts is None else list(texts)
    probe = denoising_probe(policy, keys, trajectory.latents[:, -1], settings.batch, sampled)
    features: list[str | None] = [None] * len(keys)
    if probe.features is not None:
        features = [_encoded(row) for row in probe.features]
    fits = probe.fit.tolist()
    evidence = probe.prompt_evidence.tolist()
    facts: list[dict[str, Any]] = [
        {"fit": fit, "prompt_evidence": shown, "features": row}
        for fit, shown, row in zip(fits, evidence, features, strict=True)
    ]
    if kl:
        divergences = trajectory_kl(policy, sampled, trajectory, settings).tolist()
        for fact, nats in zip(facts, divergences, strict=True):
            fact["kl"] = None if math.isnan(nats) else nats
    return facts


def features_of(facts: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """The features in the facts about an image, float32 `[width]`; None if there are none."""
    data = base64.b64decode(facts.get("features") or "")
    if not data or len(data) % 2:
        return None
    return np.frombuffer(data, dtype="<f2").astype(np.float32)


def _encoded(row: Tensor) -> str:
    return base64.b64encode(row.numpy().astype("<f2").tobytes()).decode("ascii")


_OF_THE_PROBE: Final[dict[str, Any]] = {
    "version": "1",
    "load": "ddpo.policies.denoising_probe:denoising_probe",
    "family": "policy",
    "inputs": ("image", "prompt"),
    "preprocessing": "latents before decoding; signal shares 0.95, 0.9, 0.8, 0.6; "
    "noise fixed by prompt and index",
    "dtype": "float32",
    "cache": False,
    "device": "any",
    "paper": "https://arxiv.org/abs/2303.16203",
    "lineage": ("the base model",),
}

PROBE_CARDS: Final = (
    RewardCard(
        id="base_fit",
        summary="plausibility to the base model: minus an image's denoising error with its prompt",
        flaws="plain images are easy to denoise and score high whatever they show; sees the "
        "image's latents and knows only what the base model knows; a faithful image of a kind that "
        "the base model never makes scores low; compare images of one base model only",
        unit="mean squared error, negative; of the denoiser's output, "
        "a mean over four noise levels",
        range=(None, 0.0),
        **_OF_THE_PROBE,
    ),
    RewardCard(
        id="prompt_evidence",
        summary="prompt recognisability: an image's denoising error without its prompt minus "
        "with it",
        flaws="an image may show the prompt's subject more clearly than nature does and gain by "
        "it, as with strong guidance; sees the image's latents; blind to what the base model does "
        "not know; compare images of one base model only",
        unit="mean squared error; without the prompt minus with it, a mean over four noise levels",
        **_OF_THE_PROBE,
    ),
)
"""The denoising probe as held-out rewards of a report, read from the facts; not in the registry."""
