"""The family of a model: which vetted settings it takes, told by the files that describe it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ddpo.devices import AUTO, fast_dtype
from ddpo.errors import ConfigError, MissingResourceError, UnknownNameError
from ddpo.policies.base_model import open_model
from ddpo.policies.model_place import place_of
from ddpo.recipes import read_builtin

__all__ = ["FAMILIES", "default_dtype", "family_of", "sampler_defaults"]

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


def sampler_defaults(model: str) -> dict[str, Any]:
    """Steps, guidance and eta of the recipe of a model's family: how it is sampled where nobody says otherwise.

    A model without a family has those of `SamplerSettings`.
    """
    family = family_of(model)
    if family is None:
        return {}
    sample = read_builtin(family)["sample"]
    return {name: sample[name] for name in ("steps", "guidance", "eta")}


def default_dtype(model: str, device: str) -> str:
    """The precision in which a model runs on a device where nobody says otherwise.

    Args:
        model: as of `family_of`.
        device: a torch device, not "auto".
    """
    family = family_of(model)
    dtype = read_builtin(family).get("dtype", "float32") if family else "float32"
    return fast_dtype(device) if dtype == AUTO else str(dtype)


def _is_sd2(unet: Mapping[str, Any]) -> bool:
    """Linear projections in the attention blocks came with Stable Diffusion 2, as did the wider conditioning."""
    return (
        bool(unet.get("use_linear_projection")) or unet.get("cross_attention_dim") == WIDTH_OF_SD2
    )
