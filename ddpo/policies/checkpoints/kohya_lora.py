"""LoRA files with the names of kohya-ss, which ComfyUI reads too.

A layer `x` has the tensors "lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight" and
"lora_unet_x.alpha". Layers of U-Nets have diffusers' names with underscores, and those of
transformers the names of the original code. Diffusers reads all of them but those of Stable
Diffusion 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import CheckpointError, one_line
from ddpo.policies.checkpoints.original_names import LAST_MODULATION, ORIGINAL_NAMES
from ddpo.policies.pipelines import TRANSFORMER

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PREFIX", "named_as_diffusers", "reversed_if_last"]

PREFIX: Final = "lora_unet_"  # of layers of a transformer too
PLAIN: Final = "diffusion_model."  # names of ComfyUI and ai-toolkit, with dots
SD3: Final = f"{PREFIX}joint_blocks_"
FLUX: Final = tuple(f"{PREFIX}{name}_blocks_" for name in ("double", "single"))
PLAIN_FLUX: Final = tuple(f"{PLAIN}{name}_blocks." for name in ("double", "single"))
Z_IMAGE: Final = tuple(
    f"{prefix}{blocks}{end}"
    for prefix, end in ((PREFIX, "_"), (PLAIN, "."))
    for blocks in ("layers", "noise_refiner", "context_refiner")
)
FLUX_2_CLASS: Final = "Flux2Transformer2DModel"
FLUX_2_WIDTHS: Final[Mapping[str, int]] = {"_mlp_0": 6, "_linear1": 9}
"""Outputs of FLUX.2's layers for each of their inputs; in FLUX.1 they are 4 and 7."""


def named_as_diffusers(
    file: Path, tensors: dict[str, Tensor], denoiser: Any = None
) -> dict[str, Tensor]:
    """The tensors of a LoRA, with diffusers' names in place of those of a transformer's own code.

    Diffusers' own converters multiply the weights by alpha / rank, so that no alpha is left.

    Args:
        file: File of the LoRA, for messages.
        tensors: Tensors by name.
        denoiser: Denoiser of diffusers that the LoRA is for, if it is known.

    Raises:
        CheckpointError: The converter cannot read them.
    """
    if any(key.startswith(SD3) for key in tensors):
        return _stable_diffusion_3(file, tensors)
    loader = _loader(tensors, denoiser)
    if not loader:
        return tensors
    from diffusers import loaders

    try:
        return dict(getattr(loaders, loader).lora_state_dict(dict(tensors)))
    except Exception as error:  # a damaged file can raise anything in the library
        raise CheckpointError(
            f"{file} is no LoRA that diffusers can read ({loader}): {one_line(error)}"
        ) from error


def _loader(tensors: Mapping[str, Tensor], denoiser: Any) -> str:
    """The class of `diffusers.loaders` that reads a LoRA with other names; "" for none."""
    if any(key.startswith(Z_IMAGE) for key in tensors):
        return "ZImageLoraLoaderMixin"
    if any(key.startswith(PLAIN_FLUX) for key in tensors):
        return "Flux2LoraLoaderMixin"  # that of FLUX.1 does not read them
    if not any(key.startswith(FLUX) for key in tensors):
        return ""
    known = type(denoiser).__name__ == FLUX_2_CLASS
    return "Flux2LoraLoaderMixin" if known or _is_flux_2(tensors) else "FluxLoraLoaderMixin"


def _is_flux_2(tensors: Mapping[str, Tensor]) -> bool:
    """True if the size of a layer is that of FLUX.2."""
    for key, up in tensors.items():
        name = key.removesuffix(".lora_up.weight")
        down = tensors.get(f"{name}.lora_down.weight")
        due = next((w for end, w in FLUX_2_WIDTHS.items() if name.endswith(end)), None)
        if name != key and down is not None and due is not None and down.ndim == up.ndim == 2:
            return int(up.shape[0]) == due * int(down.shape[1])
    return False


def _stable_diffusion_3(file: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A LoRA of Stable Diffusion 3 by diffusers' names; arguments as of `named_as_diffusers`."""
    if any(key.startswith("lora_te") for key in tensors):
        return {f"text_encoder.{key}": tensor for key, tensor in tensors.items()}  # refused later
    named: dict[str, Tensor] = {}
    for layer in dict.fromkeys(key.partition(".")[0] for key in tensors):
        original = ORIGINAL_NAMES["StableDiffusion3Pipeline"].named(layer.removeprefix(PREFIX))
        down = tensors.get(f"{layer}.lora_down.weight")
        up = tensors.get(f"{layer}.lora_up.weight")
        if original is None or down is None or up is None or not down.ndim == up.ndim == 2:
            raise CheckpointError(
                f"{file} is no plain LoRA of Stable Diffusion 3 that ddpo can read: "
                f"{layer} is unknown or not two matrices"
            )
        named |= _parts(original.parts, down, up, tensors.get(f"{layer}.alpha"))
    return named


def _parts(
    parts: tuple[str, ...], down: Tensor, up: Tensor, alpha: Tensor | None
) -> dict[str, Tensor]:
    """The LoRAs of the parts of a layer, each with its own ranks if they share none."""
    count = len(parts)
    if parts[0].endswith(LAST_MODULATION):
        up = reversed_if_last(down, up)
    ups = up.chunk(count)
    shared = _shared(ups, count)
    named: dict[str, Tensor] = {}
    for index, (part, rows) in enumerate(zip(parts, ups, strict=False)):
        own = slice(None) if shared else slice(*_columns(index, count, down.shape[0]))
        named[f"{TRANSFORMER}.{part}.lora_A.weight"] = down[own].clone()
        named[f"{TRANSFORMER}.{part}.lora_B.weight"] = rows[:, own].clone()
        if alpha is not None:
            named[f"{TRANSFORMER}.{part}.alpha"] = alpha if shared else alpha / count
    return named


def _columns(index: int, count: int, rank: int) -> tuple[int, int]:
    """The ranks of one of `count` parts of a layer that has as many for each."""
    return index * rank // count, (index + 1) * rank // count


def _shared(ups: tuple[Tensor, ...], count: int) -> bool:
    """True unless each part of a layer has ranks of its own."""
    rank = ups[0].shape[1]
    if count == 1 or rank % count or len(ups) < count:
        return True
    for index, rows in enumerate(ups):
        others = rows.clone()
        others[:, slice(*_columns(index, count, rank))] = 0
        if others.any():
            return True
    return False


def reversed_if_last(down: Tensor, up: Tensor) -> Tensor:
    """The weights of a modulation, with its halves exchanged if it is that of the last block."""
    return up.roll(up.shape[0] // 2, 0) if up.shape[0] == 2 * down.shape[1] else up
