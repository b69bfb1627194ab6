"""The LAION aesthetic predictors v2 ("improved") and v1 on CLIP ViT-L/14.

Both are affine maps of the normalised image embedding. Either transformers or OpenCLIP runs the
encoder, and with the same weights they agree. OpenAI's weights were trained with QuickGELU, and
another activation moves the score by 0.4. Up to version 2.28, OpenCLIP took QuickGELU with these
weights whatever the model's name; LAION's notebook of v1 asks for 1.3. Since 2.29 `ViT-L-14`
computes GELU unless QuickGELU is requested, as it is here. docs/performance.md compares both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from ddpo import weights
from ddpo.errors import ConfigError, MissingResourceError
from ddpo.io.json_files import read_foreign_json
from ddpo.rewards.card import RewardCard, WeightFile
from ddpo.rewards.cards import CARDS
from ddpo.rewards.cards.clip import CLIP_L14, LAION_V1_HEAD, LAION_V2_HEAD
from ddpo.rewards.models.clip_pixels import SIDE, prepared, preprocess
from ddpo.rewards.models.embedded_judges import judge_folder
from ddpo.rewards.models.laion_head import collapse_head, head_scores, read_head
from ddpo.rewards.models.onednn_linear import pack_linears
from ddpo.rewards.models.open_clip import load_model, open_clip_encoder
from ddpo.rewards.models.open_clip_model import OpenClipSource
from ddpo.rewards.models.open_clip_source import find_source
from ddpo.rewards.models.shared_encoders import encoder_dtype, shared_encoder
from ddpo.rewards.offload import place
from ddpo.rewards.scoring.user_reward import card_for
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


VISION_SIZES: Final = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "patch_size",
    "hidden_act",
)
"""Fields of a CLIP's `vision_config` that `image_encoder` takes."""


def load_head(path: str | None) -> tuple[Tensor, Tensor]:
    """The collapsed head v2 of the official file, whose hash is verified before it is read.

    Args:
        path: path of a local copy; None to fetch the file.

    Raises:
        MissingResourceError: The file is neither here nor downloadable, or it is another file.
    """
    return collapse_head(_head_state(path, LAION_V2_HEAD, "aesthetic"))


def load_linear_head(path: str | None) -> tuple[Tensor, Tensor]:
    """The head v1, one linear layer: w float32 `[768]` and b float32 `[]`; as `load_head`."""
    state = _head_state(path, LAION_V1_HEAD, "aesthetic_v1")
    return state["weight"][0].float(), state["bias"][0].float()


def _head_state(path: str | None, head: WeightFile, reward: str) -> dict[str, Tensor]:
    what = _name(reward, "LAION aesthetic head", head)
    sha256 = head.sha256 or ""
    if path:
        file = weights.verified(Path(path), sha256, what)
    else:
        file = weights.fetch_url(head.source, sha256, what)
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def load_clip(path: str | None, reward: str = "aesthetic") -> CLIPVisionModelWithProjection:
    """OpenAI's CLIP ViT-L/14 image encoder with projection (QuickGELU), float32.

    Args:
        path: path of a local copy of the checkpoint; None to fetch it. Its hash is verified.
        reward: id of the reward, for messages.

    Raises:
        MissingResourceError: The file is neither here nor downloadable, or it is another file.
    """
    what = _name(reward, "CLIP ViT-L/14", CLIP_L14)
    sha256 = CLIP_L14.sha256 or ""
    if path:
        file = weights.verified(Path(path), sha256, what)
    else:
        file = weights.fetch_hub_file(
            CLIP_L14.source, "model.safetensors", CLIP_L14.revision, sha256, what
        )
    from safetensors.torch import load_file

    return image_encoder(load_file(file))


def image_encoder(state: Mapping[str, Tensor], **sizes: Any) -> CLIPVisionModelWithProjection:
    """The image encoder from the tensors of a whole CLIP checkpoint.

    Args:
        state: tensors by name.
        sizes: fields of `CLIPVisionConfig` that differ from ViT-L/14's.

    Raises:
        MissingResourceError: A tensor of the encoder is missing.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    large = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
    }
    config = CLIPVisionConfig(
        **{**large, "image_size": SIDE, "projection_dim": 768, "hidden_act": "quick_gelu", **sizes}
    )
    model = CLIPVisionModelWithProjection(config)
    mine = {
        name: value
        for name, value in state.items()
        if name.startswith(("vision_model.", "visual_projection."))
    }
    missing = model.load_state_dict(mine, strict=False).missing_keys
    if missing := [name for name in missing if not name.endswith("position_ids")]:
        raise MissingResourceError(
            f"the CLIP checkpoint lacks {len(missing)} tensors of the image encoder, "
            f"such as {missing[0]}"
        )
    return model.float().eval().requires_grad_(False)


def clip_embeddings(
    encoder: CLIPVisionModelWithProjection, device: str, dtype: torch.dtype = torch.float32
) -> Callable[[ImageBatch], Tensor]:
    """Function from images to projected embeddings `[batch, width]` of an image encoder.

    The encoder is moved to `device` and cannot be trained afterwards.
    """
    model: Any = place(encoder, device, dtype)
    pack_linears(model)

    def embed(batch: ImageBatch) -> Tensor:
        embeddings: Tensor = model(
            pixel_values=prepared(batch.images, device).to(dtype)
        ).image_embeds
        return embeddings

    return embed


def load_embedded_head(reward: str) -> tuple[Tensor, Tensor]:
    """The embedded head: w float32 `[112]` and b float32 `[]`; raises as `judge_folder`."""
    return read_head(judge_folder("aesthetic_head") / "head.safetensors", reward)


def load_embedded_clip() -> CLIPVisionModelWithProjection:
    """The image encoder of the embedded CLIP, float32; raises as `judge_folder`."""
    from safetensors.torch import load_file

    folder = judge_folder("dual_encoder")
    sizes = read_foreign_json(folder / "config.json", error=MissingResourceError)
    vision = {name: sizes["vision_config"][name] for name in VISION_SIZES}
    return image_encoder(
        load_file(folder / "model.safetensors"), projection_dim=sizes["projection_dim"], **vision
    )


def _name(reward: str, what: str, weight: WeightFile) -> str:
    return f"reward '{reward}' needs {what} ({weight.megabytes:g} MB, {weight.licence}), which"


def card_for_tower(card: RewardCard, options: Mapping[str, Any]) -> RewardCard:
    """The card with the weights and libraries of the package that runs the encoder.

    Raises:
        ConfigError: The package is not known.
        MissingResourceError: There is no file at the option `clip`.
    """
    if options["tower"] == "transformers":
        return card
    source = _open_clip_source(card.id, options["tower"], options["clip"])
    return replace(
        card,
        weights=(card.weights[0], *source.files),
        libraries=("torch", "open_clip_torch", "torchvision", "pillow"),
        backbone=source.backbone,
    )


def _open_clip_source(reward: str, tower: str, clip: str | None) -> OpenClipSource:
    if tower != "open_clip":
        raise ConfigError(
            f"reward {reward!r}: tower is {tower!r}, not one of transformers, open_clip"
        )
    if clip is None:
        return find_source("ViT-L-14", "openai")
    if not Path(clip).is_file():
        what = _name(reward, "OpenCLIP's ViT-L-14", CLIP_L14)
        raise MissingResourceError(f"{what} is not at {clip}")
    return find_source("ViT-L-14-quickgelu", clip)


class Aesthetic:
    """Predicted mean rating of an image.

    Args:
        head: path of a local copy of the head's file; None to fetch it.
        clip: path of a local copy of the CLIP checkpoint (`model.safetensors`), or with
            `tower="open_clip"` of a checkpoint of OpenCLIP; None to fetch it.
        tower: package that runs the CLIP encoder, "transformers" or "open_clip".
        device: torch device of the CLIP encoder.
        dtype: precision of the CLIP encoder, "float32" or "bfloat16"; the head is float64.
        model: "emoji" for the embedded head and CLIP; None for LAION's.

    Raises:
        ConfigError: The package, dtype or model is not known.
        MissingResourceError: Weights are missing. The head, which is smaller, is looked for first.
    """

    card = CARDS["aesthetic"]

    def __init__(
        self,
        head: str | None = None,
        clip: str | None = None,
        tower: str = "transformers",
        device: str = "cpu",
        dtype: str = "float32",
        model: str | None = None,
    ) -> None:
        kind = encoder_dtype(self.card.id, dtype)
        options = {
            "head": head,
            "clip": clip,
            "tower": tower,
            "device": device,
            "dtype": dtype,
            "model": model,
        }
        self.card = card_for(self.card, options, "ddpo")
        loaded = self._load_head(head) if model is None else load_embedded_head(self.card.id)
        self._weight, self._bias = (part.to(device) for part in loaded)
        if tower == "open_clip":
            source = _open_clip_source(self.card.id, tower, clip)
            self._encoder = open_clip_encoder(
                source, device, kind, lambda: load_model(source, self.card.id).visual
            )
            return
        name = self.card.backbone if kind == torch.float32 else f"{self.card.backbone}, {dtype}"

        def load() -> CLIPVisionModelWithProjection:
            return load_clip(clip, self.card.id) if model is None else load_embedded_clip()

        self._encoder = shared_encoder(name, device, lambda: clip_embeddings(load(), device, kind))

    def _load_head(self, path: str | None) -> tuple[Tensor, Tensor]:
        return load_head(path)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        if not len(batch):
            return RewardOutput(torch.zeros(0))
        return RewardOutput(
            head_scores(self._encoder.embed(batch).float(), self._weight, self._bias).cpu()
        )


class AestheticV1(Aesthetic):
    """Predicted mean rating by the predictor v1; arguments as in `Aesthetic`, without `model`."""

    card = CARDS["aesthetic_v1"]

    def __init__(
        self,
        head: str | None = None,
        clip: str | None = None,
        tower: str = "transformers",
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        super().__init__(head, clip, tower, device, dtype)

    def _load_head(self, path: str | None) -> tuple[Tensor, Tensor]:
        return load_linear_head(path)
