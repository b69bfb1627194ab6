"""Weights of an earlier embedded model as the start of a new one, of the same architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from ddpo.rewards.scenes.world import ACTIVITIES

__all__ = ["start_autoencoder", "start_denoiser", "start_flow_text_encoder"]

ACTIVITY_TOKENS: Final = frozenset(
    f"{word}</w>" for activity in ACTIVITIES for word in activity.split() if word != "a"
)


def start_autoencoder(vae: Any, folder: Path) -> None:
    """Copies the autoencoder of a pipeline folder into an untrained one."""
    from diffusers import AutoencoderKL

    vae.load_state_dict(AutoencoderKL.from_pretrained(folder / "vae").float().state_dict())


@torch.no_grad()
def start_denoiser(unet: Any, text_encoder: Any, tokenizer: Path, folder: Path) -> None:
    """Copies the denoiser and the text encoder of a pipeline folder into untrained ones.

    Tokens of both vocabularies keep their embeddings. Other tokens stay untrained, and so do the
    words of activities, which the earlier model knows too well to leave room for a reward.

    Args:
        unet: Untrained denoiser.
        text_encoder: Untrained text encoder.
        tokenizer: Folder of its tokenizer.
        folder: Pipeline folder of the earlier model.
    """
    from diffusers import UNet2DConditionModel

    unet.load_state_dict(UNet2DConditionModel.from_pretrained(folder / "unet").float().state_dict())
    _copy_text_encoder(text_encoder, tokenizer, folder)


@torch.no_grad()
def start_flow_text_encoder(text_encoder: Any, tokenizer: Path, folder: Path) -> None:
    """Copies the text encoder of a pipeline folder into an untrained one of more layers.

    The layers that the earlier encoder lacks start as the identity, since nothing reads their
    branches yet. Arguments as of `start_denoiser`.
    """
    known = _copy_text_encoder(text_encoder, tokenizer, folder)
    for layer in _layers(text_encoder)[known:]:
        for last in (layer.self_attn.out_proj, layer.mlp.fc2):
            last.weight.zero_()
            last.bias.zero_()


def _layers(text_encoder: Any) -> Any:
    return next(m.layers for m in text_encoder.modules() if hasattr(m, "layers"))


def _copy_text_encoder(text_encoder: Any, tokenizer: Path, folder: Path) -> int:
    """Copies layers and known tokens of a pipeline folder's text encoder; returns its layers."""
    from transformers import CLIPTextModel, CLIPTokenizer

    earlier: Any = CLIPTextModel.from_pretrained(folder / "text_encoder").float()
    weights = earlier.state_dict()
    (name,) = (key for key in weights if key.endswith("token_embedding.weight"))
    rows = weights.pop(name)
    inner = getattr(text_encoder, "text_model", text_encoder)  # without the projection
    if unknown := inner.load_state_dict(weights, strict=False).unexpected_keys:
        raise ValueError(f"the text encoder of {folder} has other weights: {', '.join(unknown)}")
    embedding = text_encoder.get_input_embeddings().weight
    before = CLIPTokenizer.from_pretrained(folder / "tokenizer").get_vocab()
    for token, index in CLIPTokenizer.from_pretrained(tokenizer).get_vocab().items():
        if token in before and token not in ACTIVITY_TOKENS:
            embedding[index] = rows[before[token]]
    return len(_layers(earlier))
