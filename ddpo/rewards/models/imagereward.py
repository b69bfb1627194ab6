"""ImageReward v1.0: BLIP-large of image and prompt, with an affine head on its first text token."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import linear

from ddpo import weights
from ddpo.devices import in_float64
from ddpo.errors import MissingResourceError
from ddpo.io.json_files import read_foreign_json
from ddpo.rewards.card import WeightFile
from ddpo.rewards.cards import CARDS
from ddpo.rewards.cards.preference import BERT_VOCABULARY, IMAGE_REWARD
from ddpo.rewards.models.clip_pixels import prepared
from ddpo.rewards.models.load_errors import load_errors_as
from ddpo.rewards.models.onednn_linear import pack_linears
from ddpo.rewards.models.shared_encoders import encoder_dtype
from ddpo.rewards.offload import place
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["ImageReward", "load_blip"]

MEAN: Final = 0.16717362830052426
STD: Final = 1.0333394966054072
TOKENS: Final = 35
"""Source of the three: THUDM/ImageReward, ImageReward/ImageReward.py."""
VIT: Final[dict[str, Any]] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 16,
    "image_size": 224,
    "layer_norm_eps": 1e-6,
}
"""BLIP's large image encoder. Source: salesforce/BLIP, models/blip.py and models/vit.py."""
OF_BERT: Final = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
)
UNUSED: Final = (
    "blip.vision_proj.",
    "blip.text_proj.",
    "blip.text_encoder.embeddings.position_ids",
)
"""Keys of the checkpoint that no score depends on.

These are projections of BLIP's pre-training, and the numbers 0, 1, 2 …
"""
RENAMED: Final = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.", "encoder.layers."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"\.attn\.qkv\.", ".self_attn.qkv."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
)
"""Key of the image encoder in the checkpoint → key of transformers, as patterns."""
AT_ONCE: Final = 16  # images


def load_blip(checkpoint: Path, config: Path) -> tuple[Any, Any, list[tuple[Tensor, Tensor]]]:
    """Image encoder, text encoder and the head's layers (weight, bias), in float32.

    Every key of the checkpoint is used, or is known to have no effect.

    Args:
        checkpoint: path of ImageReward.pt, which is read without running code from it.
        config: path of med_config.json, with the sizes of the text encoder.

    Raises:
        MissingResourceError: One of them is another file.
    """
    files = f"{checkpoint} with {config.name}"
    with load_errors_as(f"reward 'imagereward': {files} is no checkpoint of ImageReward v1.0"):
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        sizes = read_foreign_json(config)
        with torch.random.fork_rng(devices=[]):
            return _models(state, {name: sizes[name] for name in OF_BERT})


def _models(
    state: Mapping[str, Tensor], sizes: Mapping[str, Any]
) -> tuple[Any, Any, list[tuple[Tensor, Tensor]]]:
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    left = {name: tensor.float() for name, tensor in state.items() if not name.startswith(UNUSED)}
    image, text, head = (
        _taken(left, prefix)
        for prefix in ("blip.visual_encoder.", "blip.text_encoder.", "mlp.layers.")
    )
    if left:
        raise ValueError(f"{len(left)} keys of no known part, such as {next(iter(left))}")
    vision: Any = BlipVisionModel(BlipVisionConfig(**VIT))
    vision.load_state_dict({_renamed(name): tensor for name, tensor in image.items()})
    special = {"bos_token_id": None, "eos_token_id": None, "sep_token_id": None, "pad_token_id": 0}
    config = BlipTextConfig(**sizes, **special, encoder_hidden_size=VIT["hidden_size"])
    reader: Any = BlipTextModel(config, add_pooling_layer=False)
    reader.load_state_dict(text)
    layers = [(head.pop(f"{index}.weight"), head.pop(f"{index}.bias")) for index in (0, 2, 4, 6, 7)]
    if head:
        raise ValueError(f"the head has more than five layers: {next(iter(head))}")
    return vision.eval().requires_grad_(False), reader.eval().requires_grad_(False), layers


def _taken(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): state.pop(name)
        for name in [name for name in state if name.startswith(prefix)]
    }


def _renamed(name: str) -> str:
    for pattern, new in RENAMED:
        name = re.sub(pattern, new, name)
    return name


def _file(path: str | None, name: str, megabytes: float, weight: WeightFile) -> Path:
    what = f"reward 'imagereward' needs {name} ({megabytes:g} MB, {weight.licence}), which"
    if path is None:
        return weights.fetch_hub_file(weight.source, name, weight.revision, weight.sha256, what)
    if not Path(path).is_file():
        raise MissingResourceError(f"{what} is not at {path}")
    return Path(path)


class ImageReward:
    """Human preference for an image as an answer to its prompt, in standard deviations.

    Args:
        checkpoint: path of a local copy of `ImageReward.pt`; None to fetch it.
        config: path of a local copy of `med_config.json`; None to fetch it.
        vocabulary: path of a local copy of `vocab.txt` of bert-base-uncased; None to fetch it.
        device: torch device of model and head.
        dtype: precision of both encoders, "float32" or "bfloat16"; the head is float64.

    Raises:
        ConfigError: The dtype is not known.
        MissingResourceError: A file is neither here nor downloadable, or is another file. The
            smallest are looked for first.
    """

    card = CARDS["imagereward"]

    def __init__(
        self,
        checkpoint: str | None = None,
        config: str | None = None,
        vocabulary: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        from transformers import BertTokenizer

        self._device = torch.device(device)
        self._dtype = encoder_dtype(self.card.id, dtype)
        words = _file(vocabulary, "vocab.txt", BERT_VOCABULARY.megabytes, BERT_VOCABULARY)
        sizes = _file(config, "med_config.json", 0.001, IMAGE_REWARD)
        file = _file(checkpoint, "ImageReward.pt", IMAGE_REWARD.megabytes, IMAGE_REWARD)
        vision, text, head = load_blip(file, sizes)
        self._vision, self._text = (
            place(each, self._device, self._dtype) for each in (vision, text)
        )
        pack_linears(self._vision)
        pack_linears(self._text)
        self._head = [
            (in_float64(weight.to(self._device)), in_float64(bias.to(self._device)))
            for weight, bias in head
        ]
        self._tokenizer: Any = BertTokenizer(str(words))
        # as BLIP does; it matters only to a prompt that spells them
        self._tokenizer.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)

    def _scores(self, batch: ImageBatch) -> Tensor:
        """Scores float64 `[batch]`; texts are padded to 35 tokens, and the padding is masked."""
        pixels = prepared(batch.images, self._device)
        image = self._vision(pixel_values=pixels.to(self._dtype)).last_hidden_state
        texts = [prompt.text for prompt in batch.prompts]
        tokens = self._tokenizer(
            texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self._device)
        hidden = self._text(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(
                image.shape[:2], dtype=torch.long, device=self._device
            ),
        ).last_hidden_state[:, 0]
        features: Tensor = in_float64(hidden)
        for weight, bias in self._head:
            features = linear(features, weight, bias)
        return (features[:, 0] - MEAN) / STD

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; part `truncated` is 1 where the prompt was truncated."""
        if not len(batch):
            return RewardOutput(torch.zeros(0), {"truncated": torch.zeros(0)})
        with torch.no_grad():
            parts = [
                self._scores(batch[start : start + AT_ONCE])
                for start in range(0, len(batch), AT_ONCE)
            ]
        cut = [
            float(len(self._tokenizer(prompt.text)["input_ids"]) > TOKENS)
            for prompt in batch.prompts
        ]
        return RewardOutput(torch.cat(parts).float().cpu(), {"truncated": torch.tensor(cut)})
