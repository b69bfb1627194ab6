"""The DINOv2 image encoder: class tokens of `Dinov2Model`, preprocessed by Pillow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpo.errors import MissingResourceError
from ddpo.rewards.card import RewardCard
from ddpo.rewards.cards.diversity import DINO_BACKBONE, DINOV2
from ddpo.rewards.models.clip_pixels import square
from ddpo.rewards.models.load_errors import first_sentence
from ddpo.rewards.models.shared_encoders import SharedEncoder, shared_encoder, side_by_side
from ddpo.rewards.offload import place
from ddpo.types import ImageBatch
from ddpo.weights import offline, without_loading_bars

__all__ = ["dino_encoder", "preprocess"]

SHORTER: Final = 256
MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)
"""ImageNet's. Source: facebook/dinov2-base, preprocessor_config.json."""
AT_ONCE: Final = 16  # images


def preprocess(image: Image.Image) -> Tensor:
    """DINOv2's input of an RGB image, float32 `[3, 224, 224]`.

    PIL bicubic to 256 on the shorter side, centre crop 224, ImageNet's mean and standard deviation.
    Margins and lengths are rounded down to whole pixels, as in transformers.
    """
    array = torch.from_numpy(square(image, math.floor, SHORTER).astype(np.float32) / 255)
    return ((array - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1).contiguous()


def dino_encoder(card: RewardCard, model: str, device: str) -> SharedEncoder:
    """The encoder from images to class tokens float32 `[batch, width]`, shared between rewards.

    Args:
        card: card of the reward.
        model: folder or hub id of a `transformers.Dinov2Model`.
        device: torch device.

    Raises:
        MissingResourceError: The model is neither here nor downloadable, is incomplete, or is of
            another kind.
    """
    name = DINO_BACKBONE if model == DINOV2.source else f"{DINO_BACKBONE}, from {model}"
    return shared_encoder(name, device, lambda: _embeddings(_load(card, model), device))


def _embeddings(model: Any, device: str) -> Callable[[ImageBatch], Tensor]:
    model = place(model, device)

    def embed(batch: ImageBatch) -> Tensor:
        tokens = []
        for start in range(0, len(batch), AT_ONCE):
            inputs = torch.stack(
                side_by_side(preprocess, batch[start : start + AT_ONCE].images)
            ).to(device)
            tokens.append(model(pixel_values=inputs).last_hidden_state[:, 0])
        return torch.cat(tokens)

    return embed


@without_loading_bars()
def _load(card: RewardCard, source: str) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoConfig, Dinov2Model

    where = {
        "revision": DINOV2.revision if source == DINOV2.source else "main",
        "local_files_only": offline(),
    }
    try:
        config: Any = AutoConfig.from_pretrained(source, **where)
        if config.model_type != "dinov2":
            kind = config.model_type
            raise MissingResourceError(
                f"reward {card.id!r}: {source} is a model of type {kind!r}, not 'dinov2'"
            )
        model, info = Dinov2Model.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True, **where
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, MissingResourceError):
            raise
        raise MissingResourceError(
            f"reward {card.id!r} needs {DINOV2.source} ({DINOV2.megabytes:g} MB, "
            f"{DINOV2.licence}): run `ddpo rewards download {card.id}`, or give a folder as "
            f"dino=…; {first_sentence(error)}"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise MissingResourceError(
            f"reward {card.id!r}: the model {source} lacks {len(missing)} tensors, "
            f"such as {missing[0]}"
        )
    return model.eval().requires_grad_(False)
