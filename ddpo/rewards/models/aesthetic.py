"""The LAION aesthetic predictors v2 ("improved") and v1: affine maps of the normalised CLIP ViT-L/14 image embedding.

The tower is that of transformers and not open_clip's: it reads the hub's checkpoint as it is, and open_clip's `ViT-L-14` with OpenAI's
weights computes GELU where they were trained with QuickGELU, unless told, which moves the score by 0.4. With the same weights the two
packages agree (tests/rewards/test_clip_family.py), so open_clip need not be installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ddpo import weights
from ddpo.errors import MissingResourceError
from ddpo.rewards.backbones import shared_tower, tower_dtype
from ddpo.rewards.card import WeightFile
from ddpo.rewards.catalog import CARDS
from ddpo.rewards.catalog_clip import CLIP_L14, LAION_V1_HEAD, LAION_V2_HEAD
from ddpo.rewards.linear import pack_linears
from ddpo.rewards.models.clip_pixels import SIDE, prepared, preprocess
from ddpo.rewards.models.laion_head import collapse_head, head_scores
from ddpo.types import ImageBatch, RewardOutput

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection

__all__ = [
    "Aesthetic",
    "AestheticV1",
    "clip_embeddings",
    "collapse_head",
    "head_scores",
    "load_clip",
    "load_head",
    "load_linear_head",
    "preprocess",
]


def load_head(path: str | None) -> tuple[Tensor, Tensor]:
    """The collapsed head v2 of the official file, given or fetched; read only after its hash was verified.

    Raises:
        MissingResourceError: it is not here and cannot be fetched, or is another file.
    """
    return collapse_head(_head_state(path, LAION_V2_HEAD, "aesthetic"))


def load_linear_head(path: str | None) -> tuple[Tensor, Tensor]:
    """The head v1, one linear layer: w float32 `[768]` and b float32 `[]`; raises as `load_head`."""
    state = _head_state(path, LAION_V1_HEAD, "aesthetic_v1")
    return state["weight"][0].float(), state["bias"][0].float()


def _head_state(path: str | None, head: WeightFile, reward: str) -> dict[str, Tensor]:
    what, sha256 = _name(reward, "LAION aesthetic head", head), head.sha256 or ""
    file = weights.verified(Path(path), sha256, what) if path else weights.fetch_url(head.source, sha256, what)
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def load_clip(path: str | None, reward: str = "aesthetic") -> CLIPVisionModelWithProjection:
    """OpenAI's CLIP ViT-L/14 image tower with projection (QuickGELU), float32, from the verified checkpoint, given or fetched.

    Raises:
        MissingResourceError: it is not here and cannot be fetched, or is another file.
    """
    what, sha256 = _name(reward, "CLIP ViT-L/14", CLIP_L14), CLIP_L14.sha256 or ""
    if path:
        file = weights.verified(Path(path), sha256, what)
    else:
        file = weights.fetch_hub_file(CLIP_L14.source, "model.safetensors", CLIP_L14.revision, sha256, what)
    from safetensors.torch import load_file

    return image_tower(load_file(file))


def image_tower(state: Mapping[str, Tensor], **sizes: Any) -> CLIPVisionModelWithProjection:
    """The image tower from the tensors of a whole CLIP checkpoint; `sizes` replace ViT-L/14's for other towers.

    Raises:
        MissingResourceError: a tensor of the tower is missing.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    large = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14}
    config = CLIPVisionConfig(**{**large, "image_size": SIDE, "projection_dim": 768, "hidden_act": "quick_gelu", **sizes})
    model = CLIPVisionModelWithProjection(config)
    mine = {name: value for name, value in state.items() if name.startswith(("vision_model.", "visual_projection."))}
    missing = model.load_state_dict(mine, strict=False).missing_keys
    if missing := [name for name in missing if not name.endswith("position_ids")]:
        raise MissingResourceError(f"the CLIP checkpoint lacks {len(missing)} tensors of the image tower, such as {missing[0]}")
    return model.float().eval().requires_grad_(False)


def clip_embeddings(
    tower: CLIPVisionModelWithProjection, device: str, dtype: torch.dtype = torch.float32
) -> Callable[[ImageBatch], Tensor]:
    """Pictures → projected embeddings `[batch, width]` of an image tower, which is moved to `device` and made ready for use alone."""
    model: Any = tower.to(torch.device(device), dtype)
    pack_linears(model)

    def embed(batch: ImageBatch) -> Tensor:
        embeddings: Tensor = model(pixel_values=prepared(batch.images, device).to(dtype)).image_embeds
        return embeddings

    return embed


def _name(reward: str, what: str, weight: WeightFile) -> str:
    return f"reward '{reward}' needs {what} ({weight.megabytes:g} MB, {weight.licence}), which"


class Aesthetic:
    """Predicted mean rating of a picture.

    Args:
        head: local copy of the head's file, else it is fetched.
        clip: local copy of the CLIP checkpoint (`model.safetensors`), else it is fetched.
        device: where the CLIP tower runs.
        dtype: in which the CLIP tower computes, "float32" or "bfloat16"; the head is float64.

    Raises:
        ConfigError: no such dtype.
        MissingResourceError: weights are missing; the head is asked for first, it is the smaller.
    """

    card = CARDS["aesthetic"]

    def __init__(self, head: str | None = None, clip: str | None = None, device: str = "cpu", dtype: str = "float32") -> None:
        self._device, kind = torch.device(device), tower_dtype(self.card.id, dtype)
        self._weight, self._bias = (tensor.to(self._device) for tensor in self._load_head(head))
        name = self.card.backbone if kind == torch.float32 else f"{self.card.backbone}, {dtype}"
        self._tower = shared_tower(name, device, lambda: clip_embeddings(load_clip(clip, self.card.id), device, kind))

    def _load_head(self, path: str | None) -> tuple[Tensor, Tensor]:
        return load_head(path)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        if not len(batch):
            return RewardOutput(torch.zeros(0))
        return RewardOutput(head_scores(self._tower.embed(batch).float(), self._weight, self._bias).cpu())


class AestheticV1(Aesthetic):
    """Predicted mean rating of a picture by the first predictor; same arguments, tower and pass as `Aesthetic`."""

    card = CARDS["aesthetic_v1"]

    def _load_head(self, path: str | None) -> tuple[Tensor, Tensor]:
        return load_linear_head(path)
