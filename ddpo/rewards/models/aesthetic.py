"""The LAION aesthetic predictors v2 ("improved") and v1: affine maps of the normalised CLIP ViT-L/14 image embedding.

The tower is that of transformers and not open_clip's: it reads the hub's checkpoint as it is, and open_clip's `ViT-L-14` with OpenAI's
weights computes GELU where they were trained with QuickGELU, unless told, which moves the score by 0.4. With the same weights the two
packages agree (tests/rewards/test_clip_family.py), so open_clip need not be installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ddpo import weights
from ddpo.errors import MissingResourceError
from ddpo.rewards.backbones import shared_tower
from ddpo.rewards.card import WeightFile
from ddpo.rewards.catalog import CARDS
from ddpo.rewards.catalog_clip import CLIP_L14, LAION_V1_HEAD, LAION_V2_HEAD
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

SIDE: Final = 224
LONGEST: Final = 64  # times the shorter side; of longer pictures the middle, which is all that is seen, is cut out first
MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
STD: Final = (0.26862954, 0.26130258, 0.27577711)
"""Source: openai/CLIP, clip.py, the normalisation of its preprocessing."""


def collapse_head(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The head's linear layers 768-1024-128-64-16-1, which have no activation between them, as one map w·e + b.

    Returns:
        w float32 `[768]` and b float32 `[]`, multiplied out in float64.
    """
    indices = sorted({int(name.split(".")[1]) for name in state})
    weight, bias = torch.eye(768, dtype=torch.float64), torch.zeros(768, dtype=torch.float64)
    for index in indices:
        layer = state[f"layers.{index}.weight"].double()
        weight, bias = layer @ weight, layer @ bias + state[f"layers.{index}.bias"].double()
    return weight[0].float(), bias[0].float()


def head_scores(embeddings: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The affine head: w · e/|e| + b. Embeddings `[batch, 768]` of any length → float32 `[batch]`.

    Summed in float64, so that the order in which a processor adds up a batch does not show.
    """
    unit = torch.nn.functional.normalize(embeddings.double(), dim=-1)
    return (torch.matmul(unit, weight.double()) + bias).float()


def preprocess(image: Image.Image, half: Callable[[float], int] = round) -> Tensor:
    """CLIP's own preprocessing: PIL bicubic to 224 on the shorter side, centre crop, normalised. RGB → float32 `[3, 224, 224]`.

    Args:
        image: RGB.
        half: makes a margin of half a pixel whole; `round` in OpenAI's code and open_clip, `math.floor` in transformers' processor.

    Source: openai/CLIP, clip.py. Resizing tensors instead moves aesthetic scores by up to 0.08.
    """
    shorter = min(image.size)
    if max(image.size) > LONGEST * shorter:
        size = min(image.width, LONGEST * shorter), min(image.height, LONGEST * shorter)
        image = ImageOps.fit(image, size, Image.Resampling.NEAREST)
    width, height = (SIDE * side // shorter for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = half((width - SIDE) / 2), half((height - SIDE) / 2)
    array = np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)), dtype=np.float32) / 255
    normal = (torch.from_numpy(array) - torch.tensor(MEAN)) / torch.tensor(STD)
    return normal.permute(2, 0, 1).contiguous()


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


def clip_embeddings(tower: CLIPVisionModelWithProjection, device: str) -> Callable[[ImageBatch], Tensor]:
    """Pictures → projected embeddings `[batch, width]` of an image tower, which is moved to `device`."""
    model: Any = tower.to(torch.device(device))

    def embed(batch: ImageBatch) -> Tensor:
        inputs = torch.stack([preprocess(image) for image in batch.images]).to(device)
        embeddings: Tensor = model(pixel_values=inputs).image_embeds
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

    Raises:
        MissingResourceError: weights are missing; the head is asked for first, it is the smaller.
    """

    card = CARDS["aesthetic"]

    def __init__(self, head: str | None = None, clip: str | None = None, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._weight, self._bias = (tensor.to(self._device) for tensor in self._load_head(head))
        self._tower = shared_tower(self.card.backbone, device, lambda: clip_embeddings(load_clip(clip, self.card.id), device))

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
