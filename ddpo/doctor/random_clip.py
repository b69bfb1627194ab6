"""A CLIP model with random weights, in the folder format that the CLIP rewards read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from ddpo.doctor.random_weights import random_module, write_embedded_tokenizer

__all__ = ["CLIPS", "TINY", "write_clip", "write_small_vocabulary_clip"]

TINY: Final[dict[str, int]] = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
"""Sizes of both encoders for tests."""
CLIPS: Final[dict[str, dict[str, Any]]] = {
    "ViT-B/32": {
        "vision": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "patch_size": 32,
        },
        "text": {
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
        },
        "width": 512,
        "act": "quick_gelu",
    },
    "ViT-L/14": {
        "vision": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
        },
        "text": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        },
        "width": 768,
        "act": "quick_gelu",
    },
    "ViT-H/14": {
        "vision": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "patch_size": 14,
        },
        "text": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
        },
        "width": 1024,
        "act": "gelu",
    },
}
"""Sizes of the published models.

Source: the configurations in OpenAI's and LAION's repositories on the Hugging Face Hub.
"""


def write_clip(
    folder: Path,
    name: str,
    vocabulary: int,
    smaller: Mapping[str, int] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes a `transformers.CLIPModel` and its image processor beside a tokenizer.

    Args:
        folder: Folder of the tokenizer, whose last two tokens are the start and end of a text.
        name: Key of `CLIPS`.
        vocabulary: Number of tokens of the tokenizer.
        smaller: Sizes that replace those of both encoders, such as `TINY`.
        dtype: Type of the stored weights; None: float32.
    """
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    sizes = CLIPS[name]
    replaced = dict(smaller or {})
    text = sizes["text"] | replaced
    text |= {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1}
    text |= {"vocab_size": vocabulary, "hidden_act": sizes["act"]}
    vision = sizes["vision"] | replaced | {"image_size": 224, "hidden_act": sizes["act"]}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=sizes["width"])
    random_module(lambda: CLIPModel(config), dtype=dtype).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)


def write_small_vocabulary_clip(
    folder: Path,
    name: str,
    smaller: Mapping[str, int] | None = None,
) -> None:
    """Writes a CLIP model with the embedded model's tokenizer, in bfloat16 to save disk.

    Args:
        folder: Folder of the model, made if it does not exist.
        name: Key of `CLIPS`.
        smaller: Sizes that replace those of both encoders, such as `TINY`.
    """
    vocabulary = write_embedded_tokenizer(folder, tokens=77)
    write_clip(folder, name, vocabulary, smaller, torch.bfloat16)
