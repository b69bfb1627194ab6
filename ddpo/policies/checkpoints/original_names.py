"""The layers of transformers in their original code, whose names kohya-ss and ComfyUI use.

The original code computes some layers of diffusers as one: queries, keys and values, and in the
single blocks of FLUX.1 the first layer of the MLP too. Sources: diffusers,
scripts/convert_sd3_to_diffusers.py and loaders/lora_conversion_utils.py; ComfyUI, comfy/utils.py;
kohya-ss/sd-scripts, networks/lora_sd3.py and networks/convert_flux_lora.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["LAST_MODULATION", "ORIGINAL_NAMES", "WIDTHS", "OriginalLayer", "OriginalNames"]

QKV: Final = ("attn.to_q", "attn.to_k", "attn.to_v")
ADDED_QKV: Final = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
WIDTHS: Final[Mapping[str, int]] = {"proj_mlp": 4}
"""Outputs of a part of a layer for each of its inputs; 1 for those that are not listed."""
LAST_MODULATION: Final = "norm1_context.linear"
"""Layer of Stable Diffusion 3 whose two outputs, in the last block, are in reverse order."""


@dataclass(frozen=True, slots=True)
class OriginalLayer:
    """A layer of the original code: its name, and its parts in diffusers from top to bottom."""

    name: str  # with underscores, such as "joint_blocks_0_x_block_attn_qkv"
    parts: tuple[str, ...]  # such as "transformer_blocks.0.attn.to_q"


@dataclass(frozen=True, slots=True)
class OriginalNames:
    """The names of a transformer's layers in its original code.

    Args:
        blocks: Name of a list of blocks in diffusers → name in the original code.
        layers: Name of a list of blocks in diffusers → layer of the original code, with
            underscores → its parts in diffusers.
    """

    blocks: Mapping[str, str]
    layers: Mapping[str, Mapping[str, tuple[str, ...]]]

    def of(self, layer: str) -> OriginalLayer | None:
        """The original layer that a layer of diffusers is part of; None if it is in no table."""
        blocks, _, rest = layer.partition(".")
        number, _, name = rest.partition(".")
        for original, parts in self.layers.get(blocks, {}).items():
            if name in parts:
                whole = f"{self.blocks[blocks]}_{number}_{original}"
                return OriginalLayer(whole, _in_block(f"{blocks}.{number}", parts))
        return None

    def named(self, name: str) -> OriginalLayer | None:
        """The original layer of a name; None if it is in no table."""
        for blocks, original in self.blocks.items():
            found = re.fullmatch(rf"{original}_(\d+)_(\w+)", name)
            if found and found[2] in self.layers[blocks]:
                parts = self.layers[blocks][found[2]]
                return OriginalLayer(name, _in_block(f"{blocks}.{found[1]}", parts))
        return None


def _in_block(block: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{block}.{part}" for part in parts)


STABLE_DIFFUSION_3: Final = OriginalNames(
    {"transformer_blocks": "joint_blocks"},
    {
        "transformer_blocks": {
            "x_block_attn_qkv": QKV,
            "x_block_attn_proj": ("attn.to_out.0",),
            "x_block_attn2_qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
            "x_block_attn2_proj": ("attn2.to_out.0",),
            "x_block_mlp_fc1": ("ff.net.0.proj",),
            "x_block_mlp_fc2": ("ff.net.2",),
            "x_block_adaLN_modulation_1": ("norm1.linear",),
            "context_block_attn_qkv": ADDED_QKV,
            "context_block_attn_proj": ("attn.to_add_out",),
            "context_block_mlp_fc1": ("ff_context.net.0.proj",),
            "context_block_mlp_fc2": ("ff_context.net.2",),
            "context_block_adaLN_modulation_1": (LAST_MODULATION,),
        }
    },
)
FLUX_BLOCKS: Final = {
    "transformer_blocks": "double_blocks",
    "single_transformer_blocks": "single_blocks",
}
FLUX_ATTENTION: Final = {
    "img_attn_qkv": QKV,
    "img_attn_proj": ("attn.to_out.0",),
    "txt_attn_qkv": ADDED_QKV,
    "txt_attn_proj": ("attn.to_add_out",),
}
FLUX_1: Final = OriginalNames(
    FLUX_BLOCKS,
    {
        "transformer_blocks": {
            **FLUX_ATTENTION,
            "img_mlp_0": ("ff.net.0.proj",),
            "img_mlp_2": ("ff.net.2",),
            "img_mod_lin": ("norm1.linear",),
            "txt_mlp_0": ("ff_context.net.0.proj",),
            "txt_mlp_2": ("ff_context.net.2",),
            "txt_mod_lin": ("norm1_context.linear",),
        },
        "single_transformer_blocks": {
            "linear1": (*QKV, "proj_mlp"),
            "linear2": ("proj_out",),
            "modulation_lin": ("norm.linear",),
        },
    },
)
FLUX_2: Final = OriginalNames(
    FLUX_BLOCKS,
    {
        "transformer_blocks": {
            **FLUX_ATTENTION,
            "img_mlp_0": ("ff.linear_in",),
            "img_mlp_2": ("ff.linear_out",),
            "txt_mlp_0": ("ff_context.linear_in",),
            "txt_mlp_2": ("ff_context.linear_out",),
        },
        "single_transformer_blocks": {
            "linear1": ("attn.to_qkv_mlp_proj",),
            "linear2": ("attn.to_out",),
        },
    },
)
Z_IMAGE_BLOCKS: Final = ("layers", "noise_refiner", "context_refiner")
Z_IMAGE_LAYERS: Final = {
    "attention_qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
    "attention_out": ("attention.to_out.0",),
    "feed_forward_w1": ("feed_forward.w1",),
    "feed_forward_w2": ("feed_forward.w2",),
    "feed_forward_w3": ("feed_forward.w3",),
}
Z_IMAGE: Final = OriginalNames(
    {blocks: blocks for blocks in Z_IMAGE_BLOCKS},
    dict.fromkeys(Z_IMAGE_BLOCKS, Z_IMAGE_LAYERS),
)

ORIGINAL_NAMES: Final[Mapping[str, OriginalNames]] = {
    "StableDiffusion3Pipeline": STABLE_DIFFUSION_3,
    "FluxPipeline": FLUX_1,
    "Flux2KleinPipeline": FLUX_2,
    "ZImagePipeline": Z_IMAGE,
}
"""Class of a pipeline with a transformer → names of the original code."""
