"""A DINOv2 of random weights in a folder of transformers, as small as its interface allows."""

from __future__ import annotations

from pathlib import Path

import torch


def save_tiny_dino(folder: Path) -> Path:
    """A tiny DINOv2 with positions of 518 pixels, as facebook/dinov2-base, interpolated to 224."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(7)
    model = Dinov2Model(
        Dinov2Config(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=518,
            initializer_range=0.3,
        )
    )
    model.save_pretrained(folder)
    return folder
