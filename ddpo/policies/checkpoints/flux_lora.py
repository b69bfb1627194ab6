"""The names of kohya-ss for a LoRA of FLUX.1, which are those of its original code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ddpo.errors import CheckpointError, one_line

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["named_as_diffusers"]

BLOCKS: Final = ("lora_unet_double_blocks_", "lora_unet_single_blocks_")


def named_as_diffusers(file: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a LoRA by diffusers' names if they are kohya's of FLUX.1, else as they are.

    Diffusers' own converter multiplies the weights by alpha / rank, so that no alpha is left.

    Args:
        file: File of the LoRA, for messages.
        tensors: Tensors by name.

    Raises:
        CheckpointError: The converter cannot read them.
    """
    if not any(key.startswith(BLOCKS) for key in tensors):
        return tensors
    from diffusers.loaders import FluxLoraLoaderMixin

    try:
        return dict(FluxLoraLoaderMixin.lora_state_dict(dict(tensors)))
    except Exception as error:  # a damaged file can raise anything in the library
        raise CheckpointError(
            f"{file} is no LoRA of FLUX.1 that diffusers can read: {one_line(error)}"
        ) from error
