"""The pipeline of diffusers that a model belongs to, called for the images of ddpo's sampler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from ddpo.model_check.model_under_test import STEPS, ModelUnderTest
from ddpo.policies.base_model import BaseModel, open_model
from ddpo.policies.model_place import EMBEDDED, locate
from ddpo.policies.pipelines import PIPELINES
from ddpo.policies.policy import TrainablePolicy
from ddpo.policies.sampler import sample_images, sample_noise
from ddpo.rewards.check.definition import CheckFailed
from ddpo.weights import without_loading_bars

__all__ = ["TOLERANCE", "largest_difference", "pipeline_of"]

TOLERANCE: Final = 1e-4
"""Greatest difference of two pixels in [0, 1].

Rounding errors grow from step to step, so that equal formulas give no equal bits.
"""


def _same_latents(latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return latents


def _patches(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Tokens `[batch, tokens, channels]` as `[batch, channels, rows, columns]`, 16 pixels each."""
    return tokens.mT.reshape(len(tokens), -1, height // 16, width // 16)


LATENTS: Final[Mapping[str, Callable[[torch.Tensor, int, int], torch.Tensor]]] = {
    "Flux2KleinPipeline": _patches,
}
"""Pipeline → its latents for those of ddpo, by height and width; the same in all others."""


@without_loading_bars()
def pipeline_of(word: str) -> Any:
    """The pipeline of a model in float32 on the CPU; None for a factory and an unknown pipeline."""
    import diffusers

    if locate(word).kind not in ("folder", "hub") and word not in EMBEDDED:
        return None
    base = open_model(word)
    kind = getattr(diffusers, base.pipeline, None)
    if base.pipeline not in PIPELINES or kind is None:
        return None
    accepted = inspect.signature(kind.__init__).parameters
    options: dict[str, Any] = dict.fromkeys(base.absent_parts)
    if "safety_checker" in accepted:
        options["safety_checker"] = None
    pipeline = kind.from_pretrained(
        base.folder, local_files_only=True, dtype=torch.float32, **options
    )
    pipeline.set_progress_bar_config(disable=True)
    if "unet" in accepted:
        pipeline.scheduler = _ddim(base)
    return pipeline


def _ddim(base: BaseModel) -> Any:
    """The scheduler that ddpo's sampler of a U-Net follows."""
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(base.config("scheduler"))


@torch.no_grad()
def largest_difference(
    tested: ModelUnderTest, policy: TrainablePolicy, pipeline: Any, guidance: float
) -> float:
    """The largest difference between pixels of two images and those of the pipeline.

    Raises:
        CheckFailed: The images have other sizes.
    """
    keys = tested.keys()[:2]
    noise = torch.stack([sample_noise(key, 9, STEPS, policy.latent_shape)[0] for key in keys])
    (ours,) = sample_images(policy, keys, tested.settings(guidance, eta=0.0), seed=9)
    height, width = ours.pixels.shape[-2:]
    kind = PIPELINES.get(type(pipeline).__name__)
    options: dict[str, Any] = {"eta": 0.0} if "eta" in _arguments(pipeline) else {}
    latents = LATENTS.get(type(pipeline).__name__, _same_latents)
    theirs = pipeline(
        prompt=[key.prompt.text for key in keys],
        latents=latents(noise.to(policy.device), height, width),
        height=height,
        width=width,
        num_inference_steps=STEPS,
        guidance_scale=guidance + (kind.guidance_offset if kind else 0.0),
        output_type="pt",
        **options,
    ).images.float()
    if theirs.shape != ours.pixels.shape:
        raise CheckFailed(
            f"images have {list(ours.pixels.shape)}, and diffusers' have {list(theirs.shape)}"
        )
    return float((theirs.cpu() - ours.pixels.cpu()).abs().max())


def _arguments(pipeline: Any) -> Mapping[str, Any]:
    return inspect.signature(type(pipeline).__call__).parameters
