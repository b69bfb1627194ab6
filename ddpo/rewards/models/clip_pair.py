"""A CLIP model with both encoders, from a folder or the hub: cosines of images and texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ddpo.devices import in_float64
from ddpo.errors import ConfigError, MissingResourceError, one_line
from ddpo.rewards.card import RewardCard
from ddpo.rewards.models.clip_pixels import SIDE, prepared
from ddpo.rewards.models.clip_text import ClipText
from ddpo.rewards.models.clip_words import TextReader, plain_reader
from ddpo.rewards.models.onednn_linear import pack_linears
from ddpo.rewards.models.shared_encoders import encoder_dtype, shared_encoder
from ddpo.rewards.offload import place
from ddpo.types import ImageBatch
from ddpo.weights import offline, without_loading_bars

__all__ = ["ClipPair", "cosines"]


def cosines(images: Tensor, texts: Tensor) -> Tensor:
    """The cosine of each image with its text: both `[batch, width]` → float64 `[batch]`."""
    return (normalize(in_float64(images), dim=-1) * normalize(in_float64(texts), dim=-1)).sum(-1)


class ClipPair:
    """Image and text encoder of a CLIP model.

    The image encoder is shared with other rewards; the text encoder remembers its own embeddings.

    Args:
        card: card of the reward, which names the backbone and the weights.
        clip: folder or hub id of a `transformers.CLIPModel`.
        tokenizer: folder or hub id of its tokenizer.
        device: torch device of both encoders.
        dtype: precision of both encoders, "float32" or "bfloat16"; the cosine is float64.
        half: rounding of half a pixel, as in `clip_pixels.square`.
        reader: function from the loaded tokenizer to the reader of texts.
        backbone: name under which the image encoder is shared; "" for the card's, with the folder
            if that is not the card's own.

    Raises:
        MissingResourceError: A file is neither here nor downloadable, or is incomplete.
        ConfigError: The dtype is not known, the model takes images of another size, or its
            vocabulary is smaller than the tokenizer's.
    """

    def __init__(
        self,
        card: RewardCard,
        clip: str,
        tokenizer: str,
        device: str,
        dtype: str = "float32",
        half: Callable[[float], int] = round,
        reader: Callable[[Any], TextReader] = plain_reader,
        backbone: str = "",
    ) -> None:
        kind = encoder_dtype(card.id, dtype)
        model, words = _load(card, clip, tokenizer)
        self.logit_scale = float(model.logit_scale.exp())
        model = place(model, device, kind)
        pack_linears(model)
        own = card.backbone if clip == card.weights[0].source else f"{card.backbone}, from {clip}"
        name = backbone or own
        name = name if kind == torch.float32 else f"{name}, {dtype}"
        self.text = ClipText(model, reader(words), int(words.eos_token_id))
        self.encoder = shared_encoder(name, device, lambda: _image_embeddings(model, half))

    def cosines(self, batch: ImageBatch, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Cosines of at least one image with its text, and 1 where a text was truncated.

        Returns:
            Cosines float64 `[batch]` and truncation flags float32 `[batch]`, both on the CPU.
        """
        text, truncated = self.text.embed(texts)
        return cosines(self.encoder.embed(batch), text).cpu(), truncated


def _image_embeddings(model: Any, half: Callable[[float], int]) -> Callable[[ImageBatch], Tensor]:
    vision = model.vision_model  # the text half is not held
    projection = model.visual_projection
    device = model.device
    dtype = model.dtype

    def embed(batch: ImageBatch) -> Tensor:
        inputs = prepared(batch.images, device, half)
        embeddings: Tensor = projection(vision(pixel_values=inputs.to(dtype)).pooler_output)
        return embeddings

    return embed


@without_loading_bars()
def _load(card: RewardCard, clip: str, tokenizer: str) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoTokenizer, CLIPModel

    revisions = {weight.source: weight.revision for weight in card.weights}
    where = {"local_files_only": offline()}
    try:
        words = AutoTokenizer.from_pretrained(
            tokenizer, revision=revisions.get(tokenizer, "main"), **where
        )
        model, info = CLIPModel.from_pretrained(
            clip,
            revision=revisions.get(clip, "main"),
            dtype=torch.float32,
            output_loading_info=True,
            **where,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise MissingResourceError(_missing(card, error)) from error
    if missing := sorted(
        name for name in info["missing_keys"] if not name.endswith("position_ids")
    ):
        raise MissingResourceError(
            f"reward {card.id!r}: the CLIP model {clip} lacks {len(missing)} tensors, "
            f"such as {missing[0]}"
        )
    if (side := model.config.vision_config.image_size) != SIDE:
        raise ConfigError(
            f"reward {card.id!r}: the CLIP model {clip} takes images of {side}×{side}, "
            f"not {SIDE}×{SIDE}"
        )
    if len(words) > (size := model.config.text_config.vocab_size):
        raise ConfigError(
            f"reward {card.id!r}: the tokenizer {tokenizer} has {len(words)} tokens, "
            f"the CLIP model {clip} knows {size}"
        )
    return model.eval().requires_grad_(False), words


def _missing(card: RewardCard, error: Exception) -> str:
    model, *tokenizers = card.weights
    needed = [
        f"{model.source} ({model.megabytes:g} MB, {model.licence})",
        *(f"the tokenizer of {each.source}" for each in tokenizers),
    ]
    folders = " and ".join(
        f"{option.name}=…" for option in card.options if option.name not in ("device", "dtype")
    )
    return (
        f"reward {card.id!r} needs {' and '.join(needed)}: run `ddpo rewards download {card.id}`, "
        f"or give folders as {folders}; {one_line(error).split('. ')[0]}"
    )
