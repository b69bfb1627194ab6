"""The family of a model, recognised from its config files, which selects its tested settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ddpo.devices import AUTO, fast_dtype
from ddpo.errors import ConfigError, MissingResourceError, UnknownNameError
from ddpo.policies.base_model import open_model
from ddpo.policies.flow_features import TURBO_SHIFT
from ddpo.policies.model_place import EMBEDDED, place_of
from ddpo.recipes import read_builtin

__all__ = [
    "FAMILIES",
    "SAMPLED",
    "chosen_sampler",
    "default_dtype",
    "family_of",
    "sampler_defaults",
]

FAMILIES: Final[Mapping[str, str]] = {
    "emoji": "the embedded model",
    "emoji_scenes": "the embedded model of scenes",
    "emoji_flow": "the embedded flow model",
    "sd1": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
    "sd3": "Stable Diffusion 3 and 3.5",
    "flux1": "FLUX.1",
    "flux2_klein": "FLUX.2 klein",
    "z_image": "Z-Image",
}
"""Family → name in words; each family has a recipe of its name in `ddpo.recipes`."""

SAMPLED: Final = ("steps", "guidance", "eta", "transition", "grid")
"""The settings of a run that decide the images of a model, besides seed and batch size."""
BY_PIPELINE: Final[Mapping[str, str]] = {
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux1",
    "Flux2KleinPipeline": "flux2_klein",
}
"""Pipeline → family, where the pipeline alone decides it."""
WIDTH_OF_SD2: Final = 1024
"""Width of the text conditioning of Stable Diffusion 2 (OpenCLIP ViT-H/14); 1.x has 768."""


def family_of(model: str) -> str | None:
    """The family of a model, one of `FAMILIES`; None for plug-ins, files and other pipelines.

    A model that cannot be fetched has no family either; loading it reports the reason. Nor has
    Z-Image-Turbo, since its images need no guidance.

    Args:
        model: Registered name, local folder in diffusers' format, or hub id.
    """
    if model in EMBEDDED:
        return model.replace("-", "_")
    place = place_of(model)
    if place is None or place.kind not in ("folder", "hub"):
        return None
    try:
        base = open_model(model)
        if base.pipeline == "ZImagePipeline":
            turbo = base.config("scheduler").get("shift") == TURBO_SHIFT
            return None if turbo else "z_image"
        if base.pipeline in BY_PIPELINE:
            return BY_PIPELINE[base.pipeline]
        if base.pipeline == "StableDiffusionPipeline":
            return "sd2" if _is_sd2(base.config("unet")) else "sd1"
    except (ConfigError, MissingResourceError, UnknownNameError):
        return None
    return None


def sampler_defaults(model: str) -> dict[str, Any]:
    """The default sampler settings of a model, from the recipe of its family.

    A model without a family has none and takes the defaults of `SamplerSettings`.
    """
    family = family_of(model)
    if family is None:
        return {}
    sample = read_builtin(family)["sample"]
    return {name: sample[name] for name in SAMPLED if name in sample}


def chosen_sampler(
    model: str, of_run: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The sampler settings of a command: those given, else the run's, else those of the family.

    An ODE that is given without η has none.

    Args:
        model: Model, as for `family_of`.
        of_run: Settings `sample` of the run that a checkpoint belongs to; empty without one.
        given: Settings that the user gave; None for those left out.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    if wanted.get("transition") == "ode":
        wanted = {"eta": 0.0, **wanted}
    values = {**sampler_defaults(model), **of_run, **wanted}
    return {name: values[name] for name in (*SAMPLED, "size") if name in values}


def default_dtype(model: str, device: str) -> str:
    """The default precision of a model on a device, from the recipe of its family.

    Args:
        model: Model, as for `family_of`.
        device: Torch device other than "auto".
    """
    family = family_of(model)
    dtype = read_builtin(family).get("dtype", "float32") if family else "float32"
    return fast_dtype(device) if dtype == AUTO else str(dtype)


def _is_sd2(unet: Mapping[str, Any]) -> bool:
    """True for linear projections in attention or the wider conditioning, both new in version 2."""
    wide = unet.get("cross_attention_dim") == WIDTH_OF_SD2
    return wide or bool(unet.get("use_linear_projection"))
