"""Human Preference Score v2.1 and v2.0: the cosine of image and prompt in a fine-tuned ViT-H/14.

The original resizes tensors, without saying whether to antialias. When both releases were
published, torchvision (before 0.17) did not, and the published tables come from that; it does so
now. The default here is as published; `antialias=True` is as it would run today.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize, pad

from ddpo import weights
from ddpo.devices import in_float64
from ddpo.errors import ConfigError, MissingResourceError
from ddpo.rewards.cards import CARDS
from ddpo.rewards.cards.preference import HPS
from ddpo.rewards.models.clip_pixels import MEAN, SIDE, STD
from ddpo.rewards.models.clip_text import Remembered, cut, padded
from ddpo.rewards.models.load_errors import load_errors_as
from ddpo.rewards.models.onednn_linear import SelfAttention, pack_linears
from ddpo.rewards.models.shared_encoders import encoder_dtype
from ddpo.rewards.offload import place
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Hpsv2", "load_model", "preprocess"]

CHECKPOINTS: Final = {"v2.1": "HPS_v2.1_compressed.pt", "v2.0": "HPS_v2_compressed.pt"}
"""Source: tgxs002/HPSv2, hpsv2/utils.py."""
SIZES: Final[dict[str, Any]] = {
    "embed_dim": 1024,
    "vision_cfg": {
        "image_size": 224,
        "layers": 32,
        "width": 1280,
        "head_width": 80,
        "patch_size": 14,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 1024,
        "heads": 16,
        "layers": 24,
    },
}
"""OpenCLIP's ViT-H-14, which has the exact GELU."""
AT_ONCE: Final = 16  # images


def preprocess(pixels: Tensor, antialias: bool = False) -> Tensor:
    """The whole image, its longest side resized to 224, centred on a black square and normalised.

    Two cases that fail in the original are handled: a side that would round to 0 pixels gets 1, and
    an image with a longest side of 224 is padded too.

    Args:
        pixels: float32 `[batch, 3, height, width]` in [0, 1].
        antialias: True to average over all pixels when shrinking.

    Returns:
        float32 `[batch, 3, 224, 224]`.

    Source: tgxs002/HPSv2, hpsv2/src/open_clip/transform.py. Values beyond [0, 1] from bicubic
    resizing are kept, as there.
    """
    scale = SIDE / max(pixels.shape[2:])
    height, width = (max(1, round(side * scale)) for side in pixels.shape[2:])
    if scale != 1:
        pixels = interpolate(
            pixels, size=(height, width), mode="bicubic", align_corners=False, antialias=antialias
        )
    top, left = ((SIDE - length) // 2 for length in (height, width))
    square = pad(pixels, (left, SIDE - width - left, top, SIDE - height - top))
    return (square - square.new_tensor(MEAN).view(3, 1, 1)) / square.new_tensor(STD).view(3, 1, 1)


def load_model(file: Path) -> Any:
    """The OpenCLIP model of an official checkpoint, float32; every key of the file is used.

    The file is read without running code from it.

    Raises:
        MissingResourceError: The file is not such a checkpoint.
    """
    open_clip = import_module("open_clip")
    with load_errors_as(f"reward 'hpsv2': {file} is no checkpoint of HPS v2"):
        state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
        with torch.random.fork_rng(devices=[]):
            model: Any = open_clip.CLIP(**SIZES)
        model.load_state_dict(state)
    return model.float().eval().requires_grad_(False)


def _checkpoint(release: str, path: str | None) -> Path:
    if release not in CHECKPOINTS:
        raise ConfigError(
            f"reward 'hpsv2': release is {release!r}, not one of {', '.join(CHECKPOINTS)}"
        )
    size = f"about {HPS.megabytes / 1000:.1f} GB"
    what = f"reward 'hpsv2' needs HPS {release} ({size}, {HPS.licence}), which"
    if path is None:
        return weights.fetch_hub_file(
            HPS.source, CHECKPOINTS[release], HPS.revision, HPS.sha256, what
        )
    if not Path(path).is_file():
        raise MissingResourceError(f"{what} is not at {path}")
    return Path(path)


class Hpsv2:
    """Human preference for an image, given its prompt.

    Args:
        release: release of the weights, "v2.1" or "v2.0".
        checkpoint: path of a local copy of the release's file; None to fetch it.
        antialias: True to antialias the resize.
        device: torch device of both encoders.
        dtype: precision of both encoders, "float32" or "bfloat16"; the cosine is float64.

    Raises:
        ConfigError: The release or dtype is not known.
        MissingResourceError: The checkpoint is neither here nor downloadable, or is another file.
    """

    card = CARDS["hpsv2"]

    def __init__(
        self,
        release: str = "v2.1",
        checkpoint: str | None = None,
        antialias: bool = False,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self._device = torch.device(device)
        self._dtype = encoder_dtype(self.card.id, dtype)
        self._antialias = antialias
        self._model = place(load_model(_checkpoint(release, checkpoint)), self._device, self._dtype)
        for block in (
            *self._model.visual.transformer.resblocks,
            *self._model.transformer.resblocks,
        ):
            block.attn = SelfAttention(block.attn)
        pack_linears(self._model)
        self._tokenizer: Any = import_module("open_clip").SimpleTokenizer()
        self._texts = Remembered(self._embeddings)

    def _image_embeddings(self, batch: ImageBatch) -> Tensor:
        """Unit embeddings float64 `[batch, width]` of the images."""
        parts = []
        for start in range(0, len(batch), AT_ONCE):
            levels = torch.from_numpy(batch[start : start + AT_ONCE].uint8.copy()).to(self._device)
            pixels = (
                levels.permute(0, 3, 1, 2)
                .to(torch.float32, memory_format=torch.contiguous_format)
                .div_(255)
            )
            parts.append(
                self._model.encode_image(preprocess(pixels, self._antialias).to(self._dtype))
            )
        return normalize(in_float64(torch.cat(parts)), dim=-1)

    def _embeddings(self, texts: list[str]) -> list[tuple[Tensor, bool]]:
        """Unit embedding float64 `[width]` and truncation of each text.

        OpenCLIP itself pads all texts to 77 tokens, with the same result.
        """
        words = self._tokenizer
        model = self._model
        ids = [[words.sot_token_id, *words.encode(text), words.eot_token_id] for text in texts]
        limit = len(model.positional_embedding)
        found: dict[int, Tensor] = {}
        for places, tokens in padded([cut(each, limit) for each in ids], limit, 0):
            tokens = tokens.to(self._device)
            length = tokens.shape[1]
            hidden = model.token_embedding(tokens) + model.positional_embedding[:length]
            hidden = model.ln_final(
                model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
            )
            rows = torch.arange(len(tokens), device=self._device)
            ends = hidden[rows, tokens.argmax(-1)]  # the end token has the largest id
            made = normalize(in_float64(ends @ model.text_projection), dim=-1)
            found |= dict(zip(places, made, strict=True))
        return [(found[place], len(each) > limit) for place, each in enumerate(ids)]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; part `truncated` is 1 where the prompt was truncated."""
        if not len(batch):
            return RewardOutput(torch.zeros(0), {"truncated": torch.zeros(0)})
        with torch.no_grad():
            embeddings, truncated = self._texts.embed([prompt.text for prompt in batch.prompts])
            cosines = (self._image_embeddings(batch) * embeddings).sum(-1)
        return RewardOutput(cosines.float().cpu(), {"truncated": truncated})
