"""The untrained components of the embedded flow model, in Stable Diffusion 3's format without T5.

All are stock classes of diffusers and transformers. Numbers of parameters: transformer 3.3 M,
autoencoder 1.0 M, text encoders 0.6 M. Half precision takes 10 MB.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from pretraining.architecture import LATENT_CHANNELS, LATENT_SIZE, TEXT_WIDTH
from pretraining.tokenizer import LENGTH

__all__ = [
    "SMALL_TEXT_WIDTH",
    "build_flow_scheduler",
    "build_flow_text_encoder",
    "build_transformer",
]

SMALL_TEXT_WIDTH: Final = 64  # of the second text encoder
HEADS: Final = 5
HEAD_WIDTH: Final = 24
BLOCKS: Final = 6


def build_flow_text_encoder(
    vocabulary: int, width: int = TEXT_WIDTH, layers: int = 3
) -> CLIPTextModelWithProjection:
    """A text encoder from token ids `[batch, 16]` to hidden states and one projection of the text.

    Stable Diffusion 3 reads the penultimate hidden states, so the last layer serves the projection.

    Args:
        vocabulary: Number of tokens.
        width: Width of hidden states and projection.
        layers: Number of layers.
    """
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=LENGTH,
        projection_dim=width,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return CLIPTextModelWithProjection(config)


@torch.no_grad()
def build_transformer() -> SD3Transformer2DModel:
    """The joint transformer from noisy latents, time and text to the velocity `[batch, 12, 8, 8]`.

    Modulations and output start at zero, so each block starts as the identity (arXiv 2212.09748).
    """
    width = TEXT_WIDTH + SMALL_TEXT_WIDTH
    model = SD3Transformer2DModel(
        sample_size=LATENT_SIZE,
        patch_size=1,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=BLOCKS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=width,
        caption_projection_dim=HEADS * HEAD_WIDTH,
        pooled_projection_dim=width,
        pos_embed_max_size=LATENT_SIZE,
        qk_norm="rms_norm",
    )
    modulations: list[Any] = [model.norm_out.linear, model.proj_out]
    for block in model.transformer_blocks:
        modulations += [block.norm1.linear, block.norm1_context.linear]
    for layer in modulations:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def build_flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The scheduler of flow matching, with unshifted times: the latents are small."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0)
