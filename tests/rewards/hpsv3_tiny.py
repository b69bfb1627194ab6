"""A tiny HPSv3 on disk, in the formats of the original and of its base model.

It is the same on every machine, whatever torch is installed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpo.rewards.models.hpsv3_input import INSTRUCTION, REQUEST

__all__ = ["CONFIG", "MODES", "PROMPTS", "make_image", "state", "write_base", "write_checkpoint"]

PROMPTS = ["a cat rides the bike.", "", "Dogs 猫 {text} & 'words' in\tthe rain", "many words " * 40]
MODES = [
    ((512, 512), "RGB"),
    ((100, 100), "RGB"),
    ((224, 224), "L"),
    ((640, 360), "RGBA"),
    ((201, 334), "CMYK"),
    ((31, 90), "LA"),
    ((300, 1000), "P"),
    ((449, 447), "1"),
]

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's split of texts before merging bytes. Source: transformers, convert_slow_tokenizer.py."""
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
ALPHABET = [chr(byte) for byte in BYTES] + [
    chr(256 + n) for n in range(256 - len(BYTES))
]  # bytes as characters, as in GPT-2
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]


def _merges() -> list[tuple[str, str]]:
    """For each word of the instruction, its characters from left to right."""
    words = dict.fromkeys(
        "Ġ" * spaced.startswith(" ") + spaced.strip()
        for spaced in re.findall(r" ?[A-Za-z]+", INSTRUCTION + REQUEST)
    )
    return list(
        dict.fromkeys((word[:end], word[end]) for word in words for end in range(1, len(word)))
    )


MERGES = _merges()
WORDS = ALPHABET + list(dict.fromkeys(left + right for left, right in MERGES))
ID = {token: len(WORDS) + place for place, token in enumerate(SPECIAL)}
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": ID["<|endoftext|>"],
    "eos_token_id": ID["<|im_end|>"],
    "vision_start_token_id": ID["<|vision_start|>"],
    "vision_end_token_id": ID["<|vision_end|>"],
    "vision_token_id": ID["<|vision_pad|>"],
    "image_token_id": ID["<|image_pad|>"],
    "video_token_id": ID["<|video_pad|>"],
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 32768,
    "max_window_layers": 2,
    "model_type": "qwen2_vl",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 2,
        "embed_dim": 32,
        "mlp_ratio": 2,
        "num_heads": 2,
        "in_chans": 3,
        "hidden_size": 32,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    "vocab_size": len(WORDS) + len(SPECIAL) + 40,
}
"""As config.json of Qwen2-VL-7B-Instruct, whose vocabulary is larger than the tokenizer's."""


def write_base(folder: Path) -> None:
    """config.json and tokenizer.json."""
    added = [
        {
            "id": ID[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in SPECIAL
    ]
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {word: n for n, word in enumerate(WORDS)},
        "merges": [" ".join(pair) for pair in MERGES],
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": level,
        "decoder": level,
        "model": model,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")


def _shapes() -> dict[str, tuple[int, ...]]:
    """The keys of the checkpoint, which are those of transformers 4.45.2."""
    tower = CONFIG["vision_config"]
    width = CONFIG["hidden_size"]
    wide = CONFIG["intermediate_size"]
    dim = tower["embed_dim"]
    keys = width // 4 * CONFIG["num_key_value_heads"]
    words = len(WORDS) + len(SPECIAL) + 1
    linears = {"merger.mlp.0": (4 * dim, 4 * dim), "merger.mlp.2": (width, 4 * dim)}
    norms = ["visual.merger.ln_q"]
    for n in range(tower["depth"]):
        norms += [f"visual.blocks.{n}.norm1", f"visual.blocks.{n}.norm2"]
        linears |= {
            f"blocks.{n}.attn.qkv": (3 * dim, dim),
            f"blocks.{n}.attn.proj": (dim, dim),
            f"blocks.{n}.mlp.fc1": (tower["mlp_ratio"] * dim, dim),
            f"blocks.{n}.mlp.fc2": (dim, tower["mlp_ratio"] * dim),
        }
    linears = {f"visual.{name}": shape for name, shape in linears.items()}
    linears |= {"rm_head.0": (1024, width), "rm_head.3": (16, 1024), "rm_head.5": (2, 16)}
    shapes: dict[str, tuple[int, ...]] = {
        "visual.patch_embed.proj.weight": (dim, 3, 2, 14, 14),
        "model.embed_tokens.weight": (words, width),
        "lm_head.weight": (words, width),
        "model.norm.weight": (width,),
    }
    for n in range(CONFIG["num_hidden_layers"]):
        layer = f"model.layers.{n}"
        linears |= {
            f"{layer}.self_attn.q_proj": (width, width),
            f"{layer}.self_attn.k_proj": (keys, width),
            f"{layer}.self_attn.v_proj": (keys, width),
        }
        shapes |= {
            f"{layer}.self_attn.o_proj.weight": (width, width),
            f"{layer}.mlp.gate_proj.weight": (wide, width),
            f"{layer}.mlp.up_proj.weight": (wide, width),
            f"{layer}.mlp.down_proj.weight": (width, wide),
            f"{layer}.input_layernorm.weight": (width,),
            f"{layer}.post_attention_layernorm.weight": (width,),
        }
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes | {f"{name}.{part}": (dim,) for name in norms for part in ("weight", "bias")}


def state() -> dict[str, NDArray[np.float32]]:
    """Random values of a size at which image, prompt and positions all move the score."""
    made = {}
    for seed, (name, shape) in enumerate(sorted(_shapes().items())):
        values = np.random.default_rng(seed).standard_normal(shape)
        if len(shape) == 1:
            values = 0.1 * values + float(
                ("norm" in name or "ln_q" in name) and name.endswith("weight")
            )
        elif "embed" not in name or "patch" in name:
            values *= 1.5 / np.sqrt(np.prod(shape[1:]))
        made[name] = values.astype(np.float32)
    return made


def write_checkpoint(file: Path, values: dict[str, NDArray[np.float32]]) -> None:
    """HPSv3.safetensors."""
    from safetensors.numpy import save_file

    save_file(values, file)


def make_image(number: int) -> Image.Image:
    """One of the eight images, in its mode."""
    size, mode = MODES[number]
    coarse = np.random.default_rng(number).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
