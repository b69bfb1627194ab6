"""LoRA files written with the names of kohya-ss, which ComfyUI reads too.

`ddpo.policies.checkpoints.kohya_lora` reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ddpo.errors import ConfigError
from ddpo.policies.checkpoints.kohya_lora import PREFIX, reversed_if_last
from ddpo.policies.checkpoints.lora import LoraFile
from ddpo.policies.checkpoints.original_names import LAST_MODULATION, ORIGINAL_NAMES, WIDTHS
from ddpo.policies.pipelines import UNET

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["UNREAD_BY_DIFFUSERS", "kohya_tensors"]

UNREAD_BY_DIFFUSERS: Final = ("StableDiffusion3Pipeline",)
"""Pipelines whose `load_lora_weights` knows no names of kohya-ss, in diffusers 0.42.1."""


def kohya_tensors(found: LoraFile, pipeline: str, file: Path) -> dict[str, Tensor]:
    """The tensors of a LoRA by the names of kohya-ss.

    Layers that the original code computes as one have the sum of their ranks there, and the weights
    between one's ranks and another's outputs are zero.

    Args:
        found: LoRA of one rank and alpha.
        pipeline: Class of its base model's pipeline.
        file: File of the LoRA, for messages.

    Raises:
        ConfigError: A layer has no such name.
    """
    import torch

    tensors: dict[str, Tensor] = {}
    for name, parts in _originals(found, pipeline, file).items():
        trained = [part for part in parts if part in found.ranks]
        downs = [found.tensors[f"{part}.lora_A.weight"] for part in trained]
        ups = [found.tensors[f"{part}.lora_B.weight"] for part in trained]
        if len(parts) > 1:
            ups = [_in_layer(found, parts, trained, downs[0].shape[1])]
        if parts[0].endswith(LAST_MODULATION) and pipeline == "StableDiffusion3Pipeline":
            ups = [reversed_if_last(downs[0], ups[0])]
        alpha = sum(found.alphas[part] for part in trained)
        tensors[f"{PREFIX}{name}.lora_down.weight"] = torch.cat(downs).contiguous()
        tensors[f"{PREFIX}{name}.lora_up.weight"] = ups[0].contiguous()
        tensors[f"{PREFIX}{name}.alpha"] = torch.tensor(float(alpha))
    return tensors


def _originals(found: LoraFile, pipeline: str, file: Path) -> dict[str, tuple[str, ...]]:
    """Name of each layer of the original code in a LoRA → all its parts in diffusers."""
    if found.denoiser == UNET:
        return {layer.replace(".", "_"): (layer,) for layer in found.ranks}
    names = ORIGINAL_NAMES[pipeline]
    originals = {}
    for layer in found.ranks:
        original = names.of(layer)
        if original is None:
            raise ConfigError(
                f"{file} changes {layer}, for which ddpo knows no name of kohya-ss: "
                "export it without --lora-names"
            )
        originals[original.name] = original.parts
    return originals


def _in_layer(found: LoraFile, parts: tuple[str, ...], trained: list[str], inputs: int) -> Tensor:
    """The upper matrix of a whole layer, `[outputs, ranks of its trained parts]`."""
    import torch

    some = found.tensors[f"{trained[0]}.lora_B.weight"]
    rank = sum(found.ranks[part] for part in trained)
    rows = []
    first = 0
    for part in parts:
        if part not in found.ranks:
            width = WIDTHS.get(part.rpartition(".")[2], 1) * inputs
            rows.append(some.new_zeros(width, rank))
            continue
        own = found.tensors[f"{part}.lora_B.weight"]
        whole = own.new_zeros(own.shape[0], rank)
        whole[:, first : first + own.shape[1]] = own
        first += own.shape[1]
        rows.append(whole)
    return torch.cat(rows)
