"""The weights of ddpo's own checkpoints of diffusers' models, verified before they are used.

Checkpoints of older versions have no digests, so that their weights are compared with what is known
of them: the length of the file, the layers and ranks, and that every weight is finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpo.errors import CheckpointError, one_line
from ddpo.io.tensors import check_finite, load_tensors
from ddpo.policies.checkpoints.denoiser import WEIGHTS
from ddpo.policies.checkpoints.folder import POLICY_FILE, CheckpointInfo
from ddpo.policies.checkpoints.lora import LoraFile, check_lora, module_shape, read_lora

__all__ = ["load_own_denoiser", "load_own_lora", "own_lora", "save_own_lora"]


def own_lora(info: CheckpointInfo) -> LoraFile:
    """The LoRA of a checkpoint.

    Raises:
        CheckpointError: The file is damaged, has weights that are NaN or infinite, or has another
            rank than `policy.json`.
    """
    found = read_lora(info.weights)
    ranks = set(found.ranks.values())
    if ranks != {info.adapter["rank"]}:
        has = ", ".join(map(str, sorted(ranks)))
        raise CheckpointError(
            f"{info.weights} has rank {has}, and {POLICY_FILE} says {info.adapter['rank']}: "
            "one of them is damaged"
        )
    return found


def load_own_lora(denoiser: Any, info: CheckpointInfo, adapter: str, model: str) -> None:
    """Gives an adapter of a denoiser the weights of a checkpoint.

    Args:
        denoiser: Denoiser of diffusers with the adapter.
        info: The checkpoint.
        adapter: Name of the adapter.
        model: Name of the base model in messages.

    Raises:
        CheckpointError: As of `own_lora`, or the weights do not fit the adapter.
    """
    from peft.utils import set_peft_model_state_dict

    found = own_lora(info)
    check_lora(found, lambda layer: module_shape(denoiser, layer), info.weights, model)
    tensors, _ = load_tensors(info.weights)
    state = {name.removeprefix(f"{found.denoiser}."): tensor for name, tensor in tensors.items()}
    try:
        result = set_peft_model_state_dict(denoiser, state, adapter_name=adapter)
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{info.weights} does not fit {model!r}: {one_line(error)}"
        ) from error
    left = [*result.unexpected_keys, *(key for key in result.missing_keys if f".{adapter}." in key)]
    if left:
        raise CheckpointError(f"{info.weights} does not fit {model!r}: {left[0]}")


def save_own_lora(denoiser: Any, folder: Path, adapter: str, part: str, writer: str) -> None:
    """Writes the LoRA of a denoiser as plain diffusers loads it.

    Args:
        denoiser: Denoiser of diffusers with the adapter.
        folder: Existing folder.
        adapter: Name of the adapter.
        part: Name of the denoiser among the components, "unet" or "transformer".
        writer: Class of `diffusers.loaders` with `save_lora_weights` for the denoiser.
    """
    from diffusers import loaders
    from peft.utils import get_peft_model_state_dict

    settings = denoiser.peft_config[adapter].to_dict()
    metadata = {
        name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()
    }
    layers: Mapping[str, Any] = {
        f"{part}_lora_layers": get_peft_model_state_dict(denoiser),
        f"{part}_lora_adapter_metadata": metadata,
    }
    getattr(loaders, writer).save_lora_weights(folder, **layers)


def load_own_denoiser(denoiser: Any, info: CheckpointInfo, model: str) -> None:
    """Gives a denoiser the weights of a checkpoint.

    Raises:
        CheckpointError: The file is damaged, has weights that are NaN or infinite, or is of another
            architecture.
    """
    file = info.weights / f"{WEIGHTS}.safetensors"
    tensors, _ = load_tensors(file)
    check_finite(tensors, file)
    try:
        denoiser.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{info.folder} does not fit {model!r}: {reason}") from error
