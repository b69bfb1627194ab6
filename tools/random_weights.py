"""Random weights of the real or of tiny sizes, in the original formats, to time rewards with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpo import weights
from ddpo.doctor.random_clip import TINY, write_clip
from ddpo.doctor.random_weights import fill_with_random_weights
from ddpo.rewards.models import aesthetic, hpsv2, imagereward

START = "<|startoftext|>"
END = "<|endoftext|>"
MED: dict[str, Any] = {
    "vocab_size": 30524,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
"""Source: THUDM/ImageReward, med_config.json."""


def write_real_clip(folder: Path, name: str, tiny: bool) -> None:
    """Writes a `transformers.CLIPModel` with its processor and CLIP's real tokenizer."""
    write_clip(folder, name, write_tokenizer(folder), TINY if tiny else None)


def write_tokenizer(folder: Path) -> int:
    """Writes CLIP's tokenizer from open_clip's vocabulary, and returns the vocabulary's size."""
    words = import_module("open_clip").tokenizer.SimpleTokenizer()
    pieces = sorted(words.encoder, key=words.encoder.__getitem__)
    pieces[-2:] = [START, END]
    merges = sorted(words.bpe_ranks, key=words.bpe_ranks.__getitem__)
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "vocab.json").write_text(
        json.dumps({piece: index for index, piece in enumerate(pieces)})
    )
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "do_lower_case": True,
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(pieces)


def write_head(file: Path) -> None:
    """Writes the aesthetic predictor's head."""
    widths = (768, 1024, 128, 64, 16, 1)
    layers = {
        f"layers.{key}": nn.Linear(widths[place], widths[place + 1])
        for place, key in enumerate((0, 2, 4, 6, 7))
    }
    torch.save(
        {
            f"{name}.{part}": getattr(layer, part).detach()
            for name, layer in layers.items()
            for part in ("weight", "bias")
        },
        file,
    )


def write_hps(file: Path, tiny: bool) -> None:
    """Writes a checkpoint of HPS v2 in float16, as it is published."""
    with torch.device("meta"):
        model = import_module("open_clip").CLIP(**hps_sizes(tiny))
    state = {
        name: tensor.half() for name, tensor in fill_with_random_weights(model).named_parameters()
    }
    torch.save({"epoch": 0, "state_dict": state}, file)


def hps_sizes(tiny: bool) -> dict[str, Any]:
    """The sizes of ViT-H/14, or tiny ones."""
    if not tiny:
        return hpsv2.SIZES
    return {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 224,
            "layers": 2,
            "width": 40,
            "head_width": 20,
            "patch_size": 28,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 2,
        },
    }


def write_imagereward(folder: Path, words: list[str], tiny: bool) -> None:
    """Writes ImageReward.pt with its original keys, med_config.json, and a vocabulary."""
    vit, med = blip_sizes(tiny)
    folder.mkdir(exist_ok=True, parents=True)
    torch.save(blip_state(vit, med), folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(med))
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *sorted(set(words))]
    known += [f"unused{place}" for place in range(med["vocab_size"] - 2 - len(known))]
    (folder / "vocab.txt").write_text("\n".join(known) + "\n")


def blip_sizes(tiny: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sizes of the image encoder and of the text encoder."""
    return ({**imagereward.VIT, **TINY}, {**MED, **TINY}) if tiny else (imagereward.VIT, MED)


def blip_state(vit: Mapping[str, Any], med: Mapping[str, Any]) -> dict[str, Tensor]:
    """Random tensors under the keys of ImageReward's checkpoint."""
    image = "blip.visual_encoder"
    text = "blip.text_encoder"
    wide = vit["hidden_size"]
    width = med["hidden_size"]
    patch = vit["patch_size"]
    sides: dict[str, tuple[int, ...]] = {
        f"{image}.cls_token": (1, 1, wide),
        f"{image}.pos_embed": (1, (224 // patch) ** 2 + 1, wide),
        f"{image}.patch_embed.proj": (wide, 3, patch, patch),
        f"{image}.norm": (wide,),
        f"{text}.embeddings.word_embeddings.weight": (med["vocab_size"], width),
        f"{text}.embeddings.position_embeddings.weight": (med["max_position_embeddings"], width),
        f"{text}.embeddings.LayerNorm": (width,),
    }
    for n in range(vit["num_hidden_layers"]):
        wider = vit["intermediate_size"]
        block = {
            "norm1": (wide,),
            "attn.qkv": (3 * wide, wide),
            "attn.proj": (wide, wide),
            "norm2": (wide,),
            "mlp.fc1": (wider, wide),
            "mlp.fc2": (wide, wider),
        }
        sides |= {f"{image}.blocks.{n}.{name}": shape for name, shape in block.items()}
    for n in range(med["num_hidden_layers"]):
        wider = med["intermediate_size"]
        layer: dict[str, tuple[int, ...]] = {
            "intermediate.dense": (wider, width),
            "output.dense": (width, wider),
            "output.LayerNorm": (width,),
        }
        for kind, source in (("attention", width), ("crossattention", wide)):
            layer |= {
                f"{kind}.self.query": (width, width),
                f"{kind}.self.key": (width, source),
                f"{kind}.self.value": (width, source),
                f"{kind}.output.dense": (width, width),
                f"{kind}.output.LayerNorm": (width,),
            }
        sides |= {f"{text}.encoder.layer.{n}.{name}": shape for name, shape in layer.items()}
    widths = (width, 1024, 128, 64, 16, 1)
    sides |= {
        f"mlp.layers.{key}": (widths[i + 1], widths[i]) for i, key in enumerate((0, 2, 4, 6, 7))
    }
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for name, shape in sides.items():
        if name.endswith((".weight", "cls_token", "pos_embed")):
            state[name] = torch.empty(shape).normal_(0, 0.02, generator=generator)
        else:
            weight = (
                torch.ones(shape)
                if len(shape) == 1
                else torch.empty(shape).normal_(0, 0.02, generator=generator)
            )
            state |= {f"{name}.weight": weight, f"{name}.bias": torch.zeros(shape[:1])}
    return state


@contextmanager
def taken_for_real(tiny: bool) -> Iterator[None]:
    """A block in which the rewards accept random files in place of verified ones.

    Args:
        tiny: Tiny networks in place of those of the real sizes.
    """
    vit, _ = blip_sizes(tiny)
    replaced: list[tuple[Any, str, Any]] = [
        (weights, "verified", lambda file, sha256, what: file),
        (hpsv2, "SIZES", hps_sizes(tiny)),
        (imagereward, "VIT", vit),
    ]
    if tiny:
        large = aesthetic.image_encoder
        replaced.append((aesthetic, "image_encoder", lambda state: large(state, **TINY)))
    before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    try:
        for module, name, value in replaced:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
