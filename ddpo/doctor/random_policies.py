"""Stable Diffusion policies with random weights: the sizes of SD 1.5 and SDXL 1.0, and tiny ones.

Each function is a policy factory, which the trainer loads by its place, such as
`ddpo.doctor.random_policies:sd15`. Sources of the sizes: the `config.json` files of the components
of stable-diffusion-v1-5 and stable-diffusion-xl-base-1.0 on the Hugging Face Hub.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from ddpo.doctor.random_weights import random_module, write_embedded_tokenizer
from ddpo.policies.base_model import INDEX, BaseModel
from ddpo.policies.model_files import read_json
from ddpo.policies.pipelines import PIPELINES
from ddpo.policies.sdxl import StableDiffusionXLPolicy
from ddpo.policies.stable_diffusion import StableDiffusionPolicy

__all__ = [
    "SD15",
    "SDXL",
    "TINY",
    "TINY_XL",
    "PolicySize",
    "sd15",
    "sdxl",
    "tiny",
    "tiny_xl",
    "write_model",
]

CLIP_VOCABULARY: Final = 49408
TINY_TOKENS: Final = 16


@dataclass(frozen=True, slots=True)
class PolicySize:
    """Architecture of a latent diffusion model, as keyword arguments of its components."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: tuple[Mapping[str, Any], ...]  # one text encoder for Stable Diffusion, two for SDXL
    tokens: int  # length of a tokenised prompt
    vocabulary: int  # rows of the text encoders' embedding; 0: as many as the tokenizer has


SCHEDULER: Final[Mapping[str, Any]] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""The noise schedule that both models share."""
CLIP_L: Final = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_BIG_G: Final = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
VAE: Final = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 512,
}
SD15: Final = PolicySize(
    unet={
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,  # the number of heads, in spite of its name in diffusers
    },
    vae=VAE,
    text=(CLIP_L,),
    tokens=77,
    vocabulary=CLIP_VOCABULARY,
)
SDXL: Final = PolicySize(
    unet={
        "sample_size": 128,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    vae={**VAE, "sample_size": 1024, "scaling_factor": 0.13025},
    text=(CLIP_L, CLIP_BIG_G),
    tokens=77,
    vocabulary=CLIP_VOCABULARY,
)
TINY_TEXT: Final = {
    "hidden_size": 16,
    "intermediate_size": 37,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "projection_dim": 16,
    "max_position_embeddings": TINY_TOKENS,
}
TINY_VAE: Final = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 16,
}
TINY: Final = PolicySize(
    unet={
        "sample_size": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
    },
    vae=TINY_VAE,
    text=(TINY_TEXT,),
    tokens=TINY_TOKENS,
    vocabulary=0,
)
TINY_XL: Final = PolicySize(
    unet={
        "sample_size": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (2, 4),
        "cross_attention_dim": 40,
        "norm_num_groups": 8,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 56 + 6 * 8,
    },
    vae={**TINY_VAE, "scaling_factor": 0.13025},
    text=(
        TINY_TEXT,
        {**TINY_TEXT, "hidden_size": 24, "num_attention_heads": 3, "projection_dim": 56},
    ),
    tokens=TINY_TOKENS,
    vocabulary=0,
)


def sd15(device: str, dtype: torch.dtype) -> StableDiffusionPolicy:
    """A policy of Stable Diffusion 1.5's size: a UNet of 860 million parameters, 512×512 images."""
    return _random_policy(StableDiffusionPolicy, SD15, device, dtype)


def sdxl(device: str, dtype: torch.dtype) -> StableDiffusionXLPolicy:
    """A policy of SDXL 1.0's size: a UNet of 2.6 billion parameters, 1024×1024 images."""
    return _random_policy(StableDiffusionXLPolicy, SDXL, device, dtype)


def tiny(device: str, dtype: torch.dtype) -> StableDiffusionPolicy:
    """A Stable Diffusion policy small enough for a test on a CPU: 16×16 images."""
    return _random_policy(StableDiffusionPolicy, TINY, device, dtype)


def tiny_xl(device: str, dtype: torch.dtype) -> StableDiffusionXLPolicy:
    """An SDXL policy small enough for a test on a CPU: 16×16 images."""
    return _random_policy(StableDiffusionXLPolicy, TINY_XL, device, dtype)


Kind = TypeVar("Kind", StableDiffusionPolicy, StableDiffusionXLPolicy)


def _random_policy(kind: type[Kind], size: PolicySize, device: str, dtype: torch.dtype) -> Kind:
    """A policy with random weights, made on the device."""
    with tempfile.TemporaryDirectory() as folder:
        return kind(_write_configs(size, Path(folder), device), device=device, dtype=dtype)


@dataclass(frozen=True, slots=True)
class _RandomModel(BaseModel):
    """A base model that has configs and tokenizers, and random weights in place of files."""

    device: str = "cpu"

    def load(self, part: str, of: Any, dtype: torch.dtype) -> Any:
        """A component of that class with random weights."""

        def build() -> Any:
            if hasattr(of, "config_class"):  # transformers
                return of(of.config_class.from_pretrained(self.folder / part))
            return of.from_config(of.load_config(self.folder / part))

        return random_module(build, self.device, dtype)


def _write_configs(size: PolicySize, folder: Path, device: str) -> _RandomModel:
    """Writes a pipeline without its weights: the index, configs and tokenizers.

    Args:
        size: Architecture.
        folder: Folder to write.
        device: Torch device on which the weights will be made.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig

    with torch.device("meta"):
        UNet2DConditionModel(**size.unet).save_config(folder / "unet")
        AutoencoderKL(**size.vae).save_config(folder / "vae")
    DDIMScheduler(**SCHEDULER).save_config(folder / "scheduler")
    suffixes = [""] if len(size.text) == 1 else ["", "_2"]
    for suffix, encoder in zip(suffixes, size.text, strict=True):
        words = write_embedded_tokenizer(folder / f"tokenizer{suffix}", size.tokens)
        config = CLIPTextConfig(
            vocab_size=size.vocabulary or words,
            bos_token_id=words - 2,
            eos_token_id=words - 1,
            pad_token_id=words - 1,
            **encoder,
        )
        config.save_pretrained(folder / f"text_encoder{suffix}")
    pipeline = f"StableDiffusion{'XL' if len(size.text) > 1 else ''}Pipeline"
    index: dict[str, Any] = {
        part: ["diffusers" if part in ("unet", "vae") else "transformers", classes[0]]
        for part, classes in PIPELINES[pipeline].classes.items()
    }
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    index["_class_name"] = pipeline
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return _RandomModel(
        "random weights", folder, read_json(folder / INDEX, "random weights"), device
    )


def write_model(size: PolicySize, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes a Stable Diffusion of this size, with one text encoder, as a diffusers pipeline."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    model = _write_configs(size, folder, "cpu")
    parts = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    for part, kind in parts.items():
        model.load(part, kind, dtype).save_pretrained(folder / part)
