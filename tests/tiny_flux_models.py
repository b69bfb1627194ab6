"""Tiny random models of the FLUX families in the original formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.tiny_flow_models import clip_encoder, t5_encoder, t5_tokenizer, tiny_vae

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""The part of Qwen3's chat template that one message of a user needs."""


def disturbed(module: Any) -> Any:
    """The module with all its parameters moved, since some are zero or one when they are made."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return module


def write_sample_size(model: Path, side: Any) -> Path:
    """Writes the size of the images in pixels into a model's VAE."""
    file = model / "vae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_size": side}))
    return model


def write_tiny_flux(folder: Path, guidance_embeds: bool = True, layers: int = 2) -> Path:
    """A folder of FLUX.1-dev, or of FLUX.1-schnell without guidance, of 64 pixels."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from pretraining.tokenizer import write_tokenizer

    torch.manual_seed(0)
    vocabulary = write_tokenizer(folder / "made")
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=layers,
        num_single_layers=layers,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )
    dynamic = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    pipeline = FluxPipeline(
        transformer=disturbed(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(**(dynamic if guidance_embeds else {})),
        vae=tiny_vae(4, 0.3611, 0.1159),
        text_encoder=clip_encoder(CLIPTextModel, vocabulary, 16, 16, 16),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "made"),
        text_encoder_2=t5_encoder(32),
        tokenizer_2=t5_tokenizer(),
    )
    pipeline.save_pretrained(folder / "model")
    return folder / "model"


def qwen_tokenizer() -> Any:
    """A tokenizer of bytes with the chat template of Qwen3."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2TokenizerFast

    vocabulary = {"<|endoftext|>": 0}
    for letter in sorted(ByteLevel.alphabet()):
        vocabulary[letter] = len(vocabulary)
    tokenizer = Qwen2TokenizerFast(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def qwen_encoder(tokenizer: Any, width: int, layers: int) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            tie_word_embeddings=True,
            pad_token_id=0,
        )
    )


def write_tiny_klein(folder: Path, is_distilled: bool = False, layers: int = 2) -> Path:
    """A folder of FLUX.2 klein of 64 pixels, the base model or a distilled one."""
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )

    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 4, 4, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=64,
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=layers,
        num_single_layers=layers,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * 16,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    pipeline = Flux2KleinPipeline(
        transformer=disturbed(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=qwen_encoder(tokenizer, 16, 28),
        tokenizer=tokenizer,
        is_distilled=is_distilled,
    )
    pipeline.save_pretrained(folder / "model")
    return folder / "model"
