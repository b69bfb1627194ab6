"""Checks of a model's configs against the tables of settings, and of components with each other."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.policies.base_model import BaseModel
from ddpo.policies.model_features import KINDS, Setting, given

__all__ = ["check_settings", "check_shapes", "default_config", "flat_widths", "scheduler_names"]

MODELS_BY_CHANNELS: Final = {
    9: " (an inpainting model)",
    8: " (an image-editing model)",
    5: " (a depth model)",
    7: " (an upscaler)",
}


def check_settings(
    kind: str,
    config: Mapping[str, Any],
    model: str,
    defaults: Mapping[str, Any] | None = None,
    table: Mapping[str, Setting] | None = None,
) -> None:
    """Raises for a setting of a config that changes the images and is not honoured.

    Args:
        kind: Name of the config, such as "unet"; without `table` a key of `KINDS`.
        config: Config as in its file; diffusers' notes have keys with a leading "_".
        model: Name of the model in messages.
        defaults: Defaults of the installed diffusers' class, for keys outside the tables.
        table: Settings of this config; by default those of a U-Net's pipeline.

    Raises:
        ConfigError: There is such a setting; the message names it and its value.
    """
    known = KINDS[kind] if table is None else table
    for key, value in config.items():
        if key.startswith("_"):
            continue
        where = f"the {kind} of the model {model!r} has {key} = {value!r}"
        setting = known.get(key)
        if setting is None:
            default = _plain((defaults or {}).get(key))
            if given(value) and value != [None, None] and _plain(value) != default:
                raise ConfigError(f"{where}, which this ddpo does not know")
        elif setting.refused is not None and setting.refused(value):
            raise ConfigError(f"{where}, which ddpo does not support: {setting.note}")


def check_shapes(
    unet: Mapping[str, Any], vae: Mapping[str, Any], text_width: int, model: str
) -> None:
    """Raises unless the channels and widths of a model's components match.

    Args:
        unet: Config of the UNet with its defaults.
        vae: Config of the VAE with its defaults.
        text_width: Width of the text conditioning.
        model: Name of the model in messages.

    Raises:
        ConfigError: Two components do not fit.
    """
    channels = unet["in_channels"]
    latent = vae["latent_channels"]
    where = f"the unet of the model {model!r}"
    if channels != latent:
        raise ConfigError(
            f"{where} has in_channels = {channels}{MODELS_BY_CHANNELS.get(channels, '')}, "
            f"and its VAE {latent} latent channels: ddpo supports text-to-image models only"
        )
    if unet["out_channels"] != channels:
        raise ConfigError(
            f"{where} has out_channels = {unet['out_channels']}, not {channels}: "
            "ddpo reads one prediction, no variance"
        )
    if vae["out_channels"] != 3:
        raise ConfigError(
            f"the vae of the model {model!r} has out_channels = {vae['out_channels']}: "
            "ddpo needs RGB images"
        )
    width = unet["encoder_hid_dim"] or unet["cross_attention_dim"]
    if odd := [one for one in flat_widths(width) if one != text_width]:
        raise ConfigError(
            f"{where} reads text of width {odd[0]}, and its text encoder writes {text_width}"
        )


def scheduler_names(base: BaseModel) -> list[str]:
    """The classes of a model's scheduler: that of its config, and that of `model_index.json`.

    Diffusers loads the second one.
    """
    own = base.config("scheduler").get("_class_name")
    entry = base.index.get("scheduler")
    named = entry[1] if isinstance(entry, list) and len(entry) == 2 else own
    return [str(name) if name else "scheduler without a class" for name in (own, named)]


def default_config(model: type) -> dict[str, Any]:
    """The default config of a diffusers class, by the names of its settings."""
    parameters = inspect.signature(model.__init__).parameters  # type: ignore[misc]
    return {name: one.default for name, one in parameters.items()}


def flat_widths(value: Any) -> list[int]:
    """The numbers of a width given as one number or a nested list."""
    if isinstance(value, (list, tuple)):
        return [width for part in value for width in flat_widths(part)]
    return [value]


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
