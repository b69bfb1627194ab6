"""What is written down of a picture while its latents and its path are at hand: the base model's own view of it, and the KL of its path."""

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

__all__ = ["FACT_OF_CARD", "VIEW_CARDS", "describe", "features_of"]

FACT_OF_CARD: Final = {"base_fit": "fit", "prompt_evidence": "prompt_evidence"}
"""Id of a card of `VIEW_CARDS` → name of the fact that is its score."""


def describe(
    policy: Policy,
    keys: Sequence[SampleKey],
    trajectory: Trajectory,
    settings: SamplerSettings,
    *,
    kl: bool,
    texts: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Facts about each picture of a batch, as plain JSON values.

    Args:
        policy: In the state that drew the paths.
        keys: Which pictures, at most `settings.batch`.
        trajectory: Their paths; x_0 alone is enough without `kl`.
        settings: How they were drawn.
        kl: Whether to work out the KL of the path, which costs two calls of the denoiser a step.
        texts: What the pictures were asked for, if not their keys' prompts.

    Returns:
        Per picture "kl" (nats; None if not asked for or not defined), "fit", "prompt_evidence" (see `VIEW_CARDS`) and "features"
        (base64 of float16; None if the policy has none), which `features_of` reads.
    """
    asked = [key.prompt.text for key in keys] if texts is None else list(texts)
    view = denoising_probe(policy, keys, trajectory.latents[:, -1], settings.batch, asked)
    divergences = (
        trajectory_kl(policy, asked, trajectory, settings).tolist()
        if kl
        else [math.nan] * len(keys)
    )
    features = (
        [None] * len(keys) if view.features is None else [_encoded(row) for row in view.features]
    )
    return [
        {
            "kl": None if math.isnan(divergence) else divergence,
            "fit": fit,
            "prompt_evidence": evidence,
            "features": row,
        }
        for divergence, fit, evidence, row in zip(
            divergences, view.fit.tolist(), view.prompt_evidence.tolist(), features, strict=True
        )
    ]


def features_of(facts: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """The features in what `describe` said of a picture, float32 `[width]`; None if there are none."""
    text = facts.get("features")
    return (
        None
        if text is None
        else np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32)
    )


def _encoded(row: Tensor) -> str:
    return base64.b64encode(row.numpy().astype("<f2").tobytes()).decode("ascii")


VIEW_CARDS: Final = (
    RewardCard(
        id="base_fit",
        version="1",
        summary="how plausible a picture is to the base model: minus its denoising error, with the prompt",
        load="ddpo.policies.denoising_probe:denoising_probe",
        family="policy",
        flaws="plain pictures are easy to denoise and score high whatever they show; sees the picture's latents and knows only what the "
        "base model knows; a faithful picture of a kind that the base model never drew scores low; compare pictures of one base model only",
        unit="mean squared error, negative; of the denoiser's output, a mean over four noise levels",
        range=(None, 0.0),
        inputs=("image", "prompt"),
        preprocessing="latents before decoding; signal shares 0.95, 0.9, 0.8, 0.6; noise fixed by prompt and index",
        dtype="float32",
        cache=False,
        device="any",
        paper="https://arxiv.org/abs/2303.16203",
        lineage=("the base model",),
    ),
    RewardCard(
        id="prompt_evidence",
        version="1",
        summary="how much the prompt helps the base model to explain a picture: denoising error without the prompt minus with it",
        load="ddpo.policies.denoising_probe:denoising_probe",
        family="policy",
        flaws="a picture may show the prompt's subject more clearly than nature does and gain by it, as with strong guidance; sees the "
        "picture's latents; blind to what the base model does not know; compare pictures of one base model only",
        unit="mean squared error; without the prompt minus with it, a mean over four noise levels",
        inputs=("image", "prompt"),
        preprocessing="latents before decoding; signal shares 0.95, 0.9, 0.8, 0.6; noise fixed by prompt and index",
        dtype="float32",
        cache=False,
        device="any",
        paper="https://arxiv.org/abs/2303.16203",
        lineage=("the base model",),
    ),
)
"""The base model's view as held-out rewards of a report; they are read from the facts, and not in the registry."""
