"""The family of a model: which vetted settings it takes, told by the files that describe it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ddpo.errors import MissingResourceError, UnknownNameError
from ddpo.policies import EMBEDDED, model_folder, policies
from ddpo.policies.unet_folder import CONFIG, UNET, pipeline_config
from ddpo.weights import fetch_hub_repository

__all__ = ["FAMILIES", "family_of"]

FAMILIES: Final[Mapping[str, str]] = {
    "emoji": "the embedded model",
    "sd1": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
}
"""Family → its name in words. Each has a recipe of that name in `ddpo.recipes`."""

WIDTH_OF_SD2: Final = 1024
"""Width of the text conditioning of Stable Diffusion 2 (OpenCLIP ViT-H/14); 1.x has 768 (CLIP ViT-L/14)."""


def family_of(model: str) -> str | None:
    """The family of a model word, one of `FAMILIES`; None for a model of a plug-in or file, or of another pipeline.

    A model that is not here and cannot be fetched has none either: loading it says why.

    Args:
        model: a registered name, a local folder in diffusers' format, or a hub id.
    """
    if model in EMBEDDED:
        return model
    if model in policies.entries() or (":" in model and not Path(model).is_dir()):
        return None
    try:
        folder = model_folder(model)
        pipeline = str(pipeline_config(folder).get("_class_name"))
        if pipeline == "StableDiffusionXLPipeline":
            return "sdxl"
        if pipeline == "StableDiffusionPipeline":
            return "sd2" if _is_sd2(_unet_config(folder)) else "sd1"
    except (MissingResourceError, UnknownNameError):
        return None
    return None


def _is_sd2(unet: Mapping[str, Any]) -> bool:
    """Linear projections in the attention blocks came with Stable Diffusion 2, as did the wider conditioning."""
    projection = unet.get("use_linear_projection")
    return bool(projection) or unet.get("cross_attention_dim") == WIDTH_OF_SD2


def _unet_config(folder: str) -> dict[str, Any]:
    """The UNet's `config.json`.

    Raises:
        MissingResourceError: it is not here and cannot be fetched, or is damaged.
    """
    name = f"{UNET}/{CONFIG}"
    local = Path(folder)
    if not local.is_dir():
        local = fetch_hub_repository(folder, "main", f"the model {folder!r}", [name])
    try:
        return dict(json.loads((local / name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise MissingResourceError(f"{local / name} is missing or damaged: {error}") from error
