"""Tiny random flow models in the original formats, written by diffusers' own pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def clip_encoder(kind: Any, vocabulary: int, width: int, projection: int, length: int) -> Any:
    from transformers import CLIPTextConfig

    return kind(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_attention_heads=2,
            num_hidden_layers=3,
            max_position_embeddings=length,
            intermediate_size=37,
            projection_dim=projection,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def t5_encoder(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=40, d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=2, dropout_rate=0
        )
    )


def t5_tokenizer() -> Any:
    """A T5 tokenizer of letters; T5 puts its end token behind each text."""
    from transformers import T5TokenizerFast

    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    return T5TokenizerFast(
        vocab=[(piece, -1.0 * index) for index, piece in enumerate(pieces)], extra_ids=0
    )


def tiny_vae(channels: int, scaling: float, shift: float) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 8),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=2,
        sample_size=64,
        scaling_factor=scaling,
        shift_factor=shift,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def write_tiny_sd3(folder: Path, sample_size: int = 8, t5: bool = True) -> Path:
    """A folder of Stable Diffusion 3 with images of 8 · `sample_size` pixels a side."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    from pretraining.tokenizer import write_tokenizer

    torch.manual_seed(0)
    vocabulary = write_tokenizer(folder / "made")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "made")
    transformer = SD3Transformer2DModel(
        sample_size=sample_size,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=48,
        caption_projection_dim=16,
        pooled_projection_dim=16 + 24,
        pos_embed_max_size=12,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    with torch.no_grad():  # the last layers are zero when they are made
        for parameter in transformer.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_vae(4, 1.5305, 0.0609),
        text_encoder=clip_encoder(CLIPTextModelWithProjection, vocabulary, 16, 16, 16),
        tokenizer=tokenizer,
        text_encoder_2=clip_encoder(CLIPTextModelWithProjection, vocabulary, 24, 24, 16),
        tokenizer_2=tokenizer,
        text_encoder_3=t5_encoder(48) if t5 else None,
        tokenizer_3=t5_tokenizer() if t5 else None,
    )
    pipeline.save_pretrained(folder / "model")
    return folder / "model"
