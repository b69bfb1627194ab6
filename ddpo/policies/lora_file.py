"""A LoRA of a UNet as one safetensors file, as trainers other than ddpo write it.

In diffusers' and peft's names ("unet.….lora_A.weight"), those of older diffusers ("unet.….lora.down.weight"), of attention processors
("….processor.to_q_lora.down.weight", with or without "unet.") and of kohya-ss ("lora_unet_….lora_down.weight" with an alpha each; for
Stable Diffusion XL with the names of its original code, "lora_unet_input_blocks_4_1_…").
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import CheckpointError, one_line

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ATTENTION", "LORA_FILE", "LoraFile", "load_lora", "read_lora"]

LORA_FILE: Final = "pytorch_lora_weights.safetensors"  # diffusers' name for it
ATTENTION: Final = ("to_q", "to_k", "to_v", "to_out.0")  # the layers that ddpo-pytorch and TRL adapt


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA of a UNet, whatever format it was read from."""

    tensors: dict[str, Tensor]  # peft's names, without the adapter's
    ranks: dict[str, int]  # layer → rank
    alphas: dict[str, float]  # layer → alpha
    config: dict[str, Any] | None  # what the file itself says of peft's LoraConfig


def read_lora(file: Path, unet: Any = None) -> LoraFile:
    """Reads a LoRA file of any of the formats, by diffusers' own converters.

    Args:
        file: safetensors.
        unet: diffusers' UNet, whose blocks the names of Stable Diffusion XL's original code are translated to; None: they stay.

    Raises:
        CheckpointError: damaged, no LoRA, or not one of a UNet alone.
    """
    from diffusers.loaders import StableDiffusionLoraLoaderMixin
    from diffusers.utils import convert_unet_state_dict_to_peft

    from ddpo.tensorfile import load_tensors

    _check_keys(file)
    raw, facts = load_tensors(file)
    config = _metadata(file, facts)
    try:
        state, network_alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(raw, unet_config=None if unet is None else unet.config)
    except (ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{file} is no LoRA that diffusers can read: {one_line(error)}") from error
    if any(key.startswith("text_encoder") for key in state):
        raise CheckpointError(
            f"{file} changes the text encoder too: ddpo evaluates changes of the denoiser only; give pictures of it instead"
        )
    # UNet2DConditionModel.save_attn_procs wrote no "unet."
    tensors = convert_unet_state_dict_to_peft({key.removeprefix("unet."): tensor for key, tensor in state.items()})
    layers = {key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")}
    expected = {f"{layer}.{part}.weight" for layer in layers for part in ("lora_A", "lora_B")}
    if odd := sorted(expected ^ set(tensors)):
        raise CheckpointError(f"{file} is no plain LoRA: {odd[0]} is {'missing' if odd[0] in expected else 'not a part of one'}")
    ranks = {layer: int(tensors[f"{layer}.lora_A.weight"].shape[0]) for layer in sorted(layers)}
    said = {_layer_of_alpha(key): value for key, value in convert_unet_state_dict_to_peft(network_alphas or {}).items()}
    default = None if config is None else config.get("lora_alpha")
    return LoraFile(tensors, ranks, {layer: said.get(layer, default or rank) for layer, rank in ranks.items()}, config)


def _check_keys(file: Path) -> None:
    """Refuses what is not a LoRA before its tensors are read, for it may be a whole model."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as opened:
            keys = list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read as safetensors: {one_line(error)}") from error
    odd = next((key for key in keys if "lora" not in key and not key.endswith(".alpha")), None)
    odd = odd or next((key for key in keys if "dora_scale" in key or "lora_magnitude" in key), None)
    if odd is not None or not keys:
        raise CheckpointError(f"{file} is no plain LoRA: " + (f"it holds {odd}" if keys else "it is empty"))


def _metadata(file: Path, facts: Mapping[str, str]) -> dict[str, Any] | None:
    """Peft's settings that newer diffusers write into the file's header."""
    try:
        found = json.loads(facts.get("lora_adapter_metadata", "{}"))
        config = {key.removeprefix("unet."): value for key, value in found.items() if not key.startswith("text_encoder")}
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{file} is damaged: its header says lora_adapter_metadata, but {one_line(error)}") from error
    return config or None


def _layer_of_alpha(key: str) -> str:
    """The layer that a key of diffusers' `network_alphas` is about: attention layers keep a piece of the weight's own name in it."""
    return key.removeprefix("unet.").removesuffix(".alpha").removesuffix(".lora_A.weight")


def load_lora(unet: Any, file: Path, adapter: str, model: str) -> None:
    """Puts the LoRA of a file on a UNet, in place of an adapter of the same name; peft's arithmetic, so alpha / rank scales each layer.

    Args:
        unet: diffusers' UNet; unchanged if the LoRA does not fit.
        file: safetensors.
        adapter: the name that the adapter gets.
        model: what messages call the base model.

    Raises:
        CheckpointError: its layers are not those of the UNet.
    """
    from peft import LoraConfig
    from peft.utils import set_peft_model_state_dict

    found = read_lora(file, unet)
    wrong = f"{file} does not fit {model!r}"
    for layer in found.ranks:
        _check_layer(unet, found, layer, wrong)
    try:
        config = LoraConfig(**(found.config or _config_of(found)))
        if adapter in getattr(unet, "peft_config", {}):
            unet.delete_adapters(adapter)
        unet.add_adapter(config, adapter_name=adapter)
        result = set_peft_model_state_dict(unet, found.tensors, adapter_name=adapter)
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{wrong}: {one_line(error)}") from error
    left = [*result.unexpected_keys, *(key for key in result.missing_keys if f".{adapter}." in key)]
    if left:
        raise CheckpointError(f"{wrong}: {left[0]} is in one of them only")


def _config_of(found: LoraFile) -> dict[str, Any]:
    """Peft's settings for exactly the layers of the file, each with its rank and alpha."""
    pattern = "|".join(re.escape(layer) for layer in found.ranks)
    (rank, _), *_ = Counter(found.ranks.values()).most_common(1)
    return {
        "r": rank,
        "lora_alpha": rank,
        "target_modules": pattern,
        "rank_pattern": {f"^{re.escape(layer)}": value for layer, value in found.ranks.items()},
        "alpha_pattern": {f"^{re.escape(layer)}": value for layer, value in found.alphas.items()},
    }


def _check_layer(unet: Any, found: LoraFile, layer: str, wrong: str) -> None:
    try:
        own = unet.get_submodule(layer)
    except AttributeError as error:
        raise CheckpointError(f"{wrong}: the model has no layer {layer}") from error
    own = getattr(own, "base_layer", own)  # another adapter may lie on it
    weight = getattr(own, "weight", None)
    down, up = found.tensors[f"{layer}.lora_A.weight"], found.tensors[f"{layer}.lora_B.weight"]
    if weight is None or weight.ndim != down.ndim or (weight.shape[1], weight.shape[0]) != (down.shape[1], up.shape[0]):
        shape = "not one that LoRA can change" if weight is None else f"{list(weight.shape)}"
        raise CheckpointError(f"{wrong}: {layer} is {shape} in the model and {up.shape[0]} by {list(down.shape[1:])} in the LoRA")
