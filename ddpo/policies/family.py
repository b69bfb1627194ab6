"""The family of a model: which vetted settings it takes, told by the files that describe it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ddpo.errors import ConfigError, MissingResourceError, UnknownNameError
from ddpo.policies.base_model import open_model
from ddpo.policies.model_place import place_of

__all__ = ["FAMILIES", "family_of"]

FAMILIES: Final[Mapping[str, str]] = {
    "emoji": "the embedded model",
    "sd1": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
}
"""Family → its name in words. Each has a recipe of that name in `ddpo.recipes`."""

EMBEDDED: Final = "emoji"
WIDTH_OF_SD2: Final = 1024
"""Width of the text conditioning of Stable Diffusion 2 (OpenCLIP ViT-H/14); 1.x has 768 (CLIP ViT-L/14)."""


def family_of(model: str) -> str | None:
    """The family of a model word, one of `FAMILIES`; None for a model of a plug-in or file, or of another pipeline.

    A model that is not here and cannot be fetched has none either: loading it says why.

    Args:
        model: a registered name, a local folder in diffusers' format, or a hub id.
    """
    if model == EMBEDDED:
        return model
    place = place_of(model)
    if place is None or place.kind not in ("folder", "hub"):
        return None
    try:
        base = open_model(model)
        if base.pipeline == "StableDiffusionXLPipeline":
            return "sdxl"
        if base.pipeline == "StableDiffusionPipeline":
            return "sd2" if _is_sd2(base.config("unet")) else "sd1"
    except (ConfigError, MissingResourceError, UnknownNameError):
        return None
    return None


def _is_sd2(unet: Mapping[str, Any]) -> bool:
    """Linear projections in the attention blocks came with Stable Diffusion 2, as did the wider conditioning."""
    return bool(unet.get("use_linear_projection")) or unet.get("cross_attention_dim") == WIDTH_OF_SD2
