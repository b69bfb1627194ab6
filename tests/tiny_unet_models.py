"""Tiny random U-Net models in the original formats, written by diffusers' own pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch

NOISE: Final[dict[str, Any]] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


def tiny_vae(**more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        **more,
    )


def tiny_unet(**more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        **more,
    )


def write_tiny_sd(folder: Path) -> Path:
    """A folder of `StableDiffusionPipeline.save_pretrained`.

    The model predicts epsilon with leading timestep spacing, as SD 1.x does.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    from pretraining import architecture
    from pretraining.tokenizer import write_tokenizer

    torch.manual_seed(0)
    vocabulary = write_tokenizer(folder / "made")
    vae = tiny_vae()
    unet = tiny_unet(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=2,
    )
    scheduler = DDIMScheduler(
        **NOISE,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=architecture.build_text_encoder(vocabulary),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "made"),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "model")
    return folder / "model"


def write_tiny_xl(folder: Path) -> Path:
    """A folder of `StableDiffusionXLPipeline.save_pretrained` with the scheduler of SDXL 1.0."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    from pretraining.tokenizer import write_tokenizer

    torch.manual_seed(0)
    vocabulary = write_tokenizer(folder / "made")
    length = 16
    text = {
        "vocab_size": vocabulary,
        "num_hidden_layers": 3,
        "max_position_embeddings": length,
        "intermediate_size": 37,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    first = CLIPTextModel(CLIPTextConfig(hidden_size=16, num_attention_heads=2, **text))
    second = CLIPTextModelWithProjection(
        CLIPTextConfig(hidden_size=24, num_attention_heads=3, projection_dim=56, **text)
    )
    vae = tiny_vae(scaling_factor=0.13025)
    unet = tiny_unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=40,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=56 + 6 * 8,
    )
    scheduler = EulerDiscreteScheduler(
        **NOISE,
        timestep_spacing="leading",
        steps_offset=1,
    )
    tokenizers = [
        CLIPTokenizer.from_pretrained(folder / "made", model_max_length=length, pad_token=pad)
        for pad in ("<|endoftext|>", "!")
    ]
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=scheduler,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    ).save_pretrained(folder / "model")
    config = folder / "model" / "scheduler" / "scheduler_config.json"
    more = {
        "clip_sample": False,
        "set_alpha_to_one": False,
    }  # which Euler does not read, and SDXL's file has for others
    config.write_text(json.dumps(json.loads(config.read_text()) | more))
    return folder / "model"
