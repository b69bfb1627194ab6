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


def write_tiny_sd3(folder: Path, sample_size: int = 8, t5: bool = True, layers: int = 3) -> Path:
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
        num_layers=layers,
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


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
"""The parts of Qwen3's template that a single message uses."""


def qwen_tokenizer() -> Any:
    """A tokenizer of Qwen's class whose tokens are bytes."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(
        vocab={letter: place for place, letter in enumerate(letters)},
        merges=[],
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def qwen_encoder(width: int, layers: int = 3) -> Any:
    from transformers import Qwen3Config, Qwen3Model

    return Qwen3Model(
        Qwen3Config(
            vocab_size=264,
            hidden_size=width,
            intermediate_size=37,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
        )
    )


def write_tiny_z_image(folder: Path, side: int = 64, shift: float = 6.0, layers: int = 2) -> Path:
    """A folder of Z-Image with images of `side` pixels a side."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        ZImagePipeline,
        ZImageTransformer2DModel,
    )

    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=16,
        n_layers=layers,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=24,
        axes_dims=[4, 2, 2],
        axes_lens=[1024, 8, 8],
    )
    with torch.no_grad():  # the padding tokens are zero when they are made
        for parameter in transformer.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    vae = tiny_vae(4, 0.3611, 0.1159)
    vae.register_to_config(sample_size=side)
    pipeline = ZImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=vae,
        text_encoder=qwen_encoder(24),
        tokenizer=qwen_tokenizer(),
    )
    pipeline.save_pretrained(folder / "model")
    return folder / "model"
