"""Any model of OpenCLIP as a reward: prompt alignment, or the score of a head on the image."""

from __future__ import annotations

import shlex
import threading
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from ddpo.devices import in_float64
from ddpo.errors import ConfigError, MissingResourceError, one_line
from ddpo.rewards.cards import CARDS
from ddpo.rewards.models.clip_pair import cosines
from ddpo.rewards.models.clip_pixels import not_too_long
from ddpo.rewards.models.clip_text import Remembered
from ddpo.rewards.models.laion_head import head_scores, read_head
from ddpo.rewards.models.load_errors import LOAD_ERRORS, short_cause
from ddpo.rewards.models.onednn_linear import SelfAttention, pack_linears
from ddpo.rewards.models.open_clip_model import OpenClipSource, build_model, tokenizer_name
from ddpo.rewards.models.open_clip_source import find_source
from ddpo.rewards.models.shared_encoders import (
    SharedEncoder,
    encoder_dtype,
    shared_encoder,
    side_by_side,
)
from ddpo.rewards.offload import place
from ddpo.rewards.scoring.user_reward import card_for
from ddpo.rewards.tools.availability import fetch_weight
from ddpo.types import ImageBatch, RewardOutput
from ddpo.weights import offline

__all__ = ["OpenClip", "TextEncoder", "load_model", "open_clip_encoder", "transform_of"]

AT_ONCE: Final = 16  # texts
TOKENIZER_PATTERNS: Final = ("*token*", "config.json", "*.model", "*.txt")

_texts: weakref.WeakValueDictionary[tuple[str, str], TextEncoder] = weakref.WeakValueDictionary()
_door = threading.Lock()


def load_model(source: OpenClipSource, reward: str) -> Any:
    """The OpenCLIP model of a source, float32, in eval mode, every tensor from the checkpoint.

    Args:
        source: model and weights.
        reward: id of the reward, for messages.

    Raises:
        MissingResourceError: The checkpoint is neither here nor downloadable, or is another one.
    """
    from open_clip import load_checkpoint

    file = fetch_weight(source.checkpoint, reward)
    try:
        with torch.random.fork_rng(devices=[]):
            model = build_model(source.config)
        load_checkpoint(model, str(file), strict=True, weights_only=True)
    except MissingResourceError:
        raise
    except LOAD_ERRORS as error:
        cause = short_cause(error)
        raise MissingResourceError(
            f"reward {reward!r}: {file} is no checkpoint of {source.name.split()[0]} ({cause})",
        ) from error
    return model.float().eval().requires_grad_(False)


def transform_of(source: OpenClipSource, visual: Any) -> Callable[[Image.Image], Tensor]:
    """OpenCLIP's own preprocessing of the model: RGB image → float32 `[3, height, width]`.

    Raises:
        ConfigError: The configuration has preprocessing that OpenCLIP does not know.
    """
    from open_clip.transform import PreprocessCfg, image_transform_v2

    fields = {**source.preprocessing, "size": visual.image_size}
    try:
        transform = image_transform_v2(PreprocessCfg(**fields), is_train=False)
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(
            f"reward 'open_clip': {source.name} has preprocessing that OpenCLIP does not know: "
            f"{one_line(error)}; {', '.join(f'{name} {value}' for name, value in fields.items())}",
        ) from error

    def prepare(image: Image.Image) -> Tensor:
        pixels: Tensor = transform(not_too_long(image))
        return pixels

    return prepare


def open_clip_encoder(
    source: OpenClipSource,
    device: str,
    dtype: torch.dtype,
    visual: Callable[[], Any],
) -> SharedEncoder:
    """The shared image encoder of a source.

    Args:
        source: model and weights.
        device: torch device.
        dtype: precision of the encoder.
        visual: loader of the model's image half; called unless another reward holds the encoder.
    """
    kind = "" if dtype == torch.float32 else f", {str(dtype).removeprefix('torch.')}"
    name = source.backbone + kind
    return shared_encoder(name, device, lambda: _image_embeddings(source, visual(), device, dtype))


def _image_embeddings(
    source: OpenClipSource,
    visual: Any,
    device: str,
    dtype: torch.dtype,
) -> Callable[[ImageBatch], Tensor]:
    prepare = transform_of(source, visual)
    visual = place(visual, device, dtype)
    _quicken(visual)

    def embed(batch: ImageBatch) -> Tensor:
        pixels = torch.stack(side_by_side(prepare, batch.images))
        found = visual(pixels.to(device, dtype))
        # CoCa's encoder gives its tokens too
        embeddings: Tensor = found[0] if isinstance(found, tuple) else found
        return embeddings

    return embed


def _quicken(visual: nn.Module) -> None:
    """Packs the linear layers of OpenCLIP's own vision transformer.

    Other encoders stay as they are: some of them use the weights of a layer without calling it.
    """
    from open_clip.transformer import ResidualAttentionBlock

    transformer = getattr(visual, "transformer", None)
    blocks = list(getattr(transformer, "resblocks", ()))
    plain = [type(each) is ResidualAttentionBlock and each.attn.batch_first for each in blocks]
    if transformer is None or not plain or not all(plain):
        return
    for block in blocks:
        block.attn = SelfAttention(block.attn)
    pack_linears(transformer)


class TextEncoder(Remembered):
    """The text half of an OpenCLIP model with its tokenizer; each text runs once.

    Args:
        source: model and weights.
        model: the loaded model; its image half is not kept.
        device: torch device.
    """

    def __init__(self, source: OpenClipSource, model: Any, device: str) -> None:
        super().__init__(self._embeddings)
        self._model = model
        self._device = torch.device(device)
        self._tokenizer = _tokenizer(source)
        self._limit = int(self._tokenizer.context_length)
        self.scale = float(model.logit_scale.double().exp())
        self.bias = 0.0 if model.logit_bias is None else float(model.logit_bias)

    def _embeddings(self, texts: list[str]) -> list[tuple[Tensor, bool]]:
        parts = []
        for start in range(0, len(texts), AT_ONCE):
            tokens = self._tokenizer(texts[start : start + AT_ONCE]).to(self._device)
            parts.append(normalize(in_float64(self._model.encode_text(tokens)), dim=-1))
        return list(zip(torch.cat(parts), [self._is_cut(text) for text in texts], strict=True))

    def _is_cut(self, text: str) -> bool:
        """True if the text has more tokens than the encoder reads."""
        tokenizer = self._tokenizer
        if hasattr(tokenizer, "encode"):  # OpenCLIP's own, which adds a start and an end token
            return len(tokenizer.encode(text)) + 2 > self._limit
        clean = tokenizer.clean_fn(text)
        inner = tokenizer.tokenizer
        if tokenizer.tokenizer_mode == "clips":  # which adds a start, an end and a class token
            ids = inner(clean, add_special_tokens=False, verbose=False).input_ids
            return len(ids) + 3 > self._limit
        return len(inner(clean, verbose=False).input_ids) > self._limit


def _tokenizer(source: OpenClipSource) -> Any:
    """The model's own tokenizer.

    Raises:
        MissingResourceError: It is neither here nor downloadable, or needs another library.
    """
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

    name = tokenizer_name(source)
    length = source.text.get("context_length", DEFAULT_CONTEXT_LENGTH)
    options = source.text.get("tokenizer_kwargs", {})
    if name is None:
        return SimpleTokenizer(context_length=length, **options)
    try:
        return HFTokenizer(
            name,
            context_length=length,
            tokenizer_mode=source.text.get("tokenizer_mode"),
            local_files_only=offline(),
            **options,
        )
    except (OSError, ValueError, ImportError, TypeError, LookupError) as error:
        cause = short_cause(error)
        model = source.name.split()[0]
        patterns = " ".join(f"--include {shlex.quote(each)}" for each in TOKENIZER_PATTERNS)
        cure = f"run `hf download {name} {patterns}`"
        if source.folder:
            cure = "put its files into that folder"
        raise MissingResourceError(
            f"reward 'open_clip' needs the tokenizer of {model} from {name}: {cure} ({cause})",
        ) from error


class OpenClip:
    """Agreement of image and prompt in a model of OpenCLIP, or the score of a head.

    Args:
        model: name of a model of OpenCLIP, hf-hub:owner/name, or local-dir:FOLDER.
        pretrained: tag of the weights, or path of a checkpoint; None where there is no choice.
        score: "cosine", "logit" (logit scale · cosine + logit bias) or "probability" (its sigmoid).
        head: path of a LAION-style head on the normalised image embedding; the prompt is not used.
        device: torch device of both encoders.
        dtype: precision of both encoders, "float32" or "bfloat16"; the cosine is float64.

    Raises:
        ConfigError: OpenCLIP has no such model or weights, or options do not go together.
        MissingResourceError: Weights, head or tokenizer are not here, or are other files.

    Source: Cherti et al., arXiv 2212.07143; SigLIP's logit: Zhai et al., arXiv 2303.15343.
    """

    card = CARDS["open_clip"]

    def __init__(
        self,
        model: str = "ViT-B-32",
        pretrained: str | None = None,
        score: str = "cosine",
        head: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        kind = encoder_dtype(self.card.id, dtype)
        options = {
            "model": model,
            "pretrained": pretrained,
            "score": score,
            "head": head,
            "device": device,
            "dtype": dtype,
        }
        self.card = card_for(self.card, options, "ddpo")
        source = find_source(model, pretrained)
        self._score = score
        self._head = None if head is None else _head(Path(head), source, device)
        halves = cache(lambda: _halves(source))
        self._image = open_clip_encoder(source, device, kind, lambda: halves()[0])
        self._text = None
        if head is None:
            self._text = _text_encoder(source, device, kind, lambda: halves()[1])

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; part `truncated` is 1 where the prompt was truncated."""
        if not len(batch):
            return RewardOutput(
                torch.zeros(0),
                {} if self._text is None else {"truncated": torch.zeros(0)},
            )
        images = self._image.embed(batch)
        if self._head is not None:
            return RewardOutput(head_scores(images, *self._head).cpu())
        assert self._text is not None  # noqa: S101  # one of the two is there
        texts, truncated = self._text.embed([prompt.text for prompt in batch.prompts])
        values = cosines(images, texts)
        if self._score != "cosine":
            values = self._text.scale * values + self._text.bias
        if self._score == "probability":
            values = values.sigmoid()
        return RewardOutput(values.float().cpu(), {"truncated": truncated})


def _halves(source: OpenClipSource) -> tuple[Any, Any]:
    """The image half of a model, and the model without it."""
    model = load_model(source, "open_clip")
    visual = model.visual
    del model.visual
    return visual, model


def _text_encoder(
    source: OpenClipSource,
    device: str,
    dtype: torch.dtype,
    load: Callable[[], Any],
) -> TextEncoder:
    """The text encoder of a source, shared between rewards."""
    key = (f"{source.backbone} {dtype}", str(torch.device(device)))
    with _door:
        encoder = _texts.get(key)
        if encoder is None:
            network = place(load(), device, dtype)
            encoder = _texts[key] = TextEncoder(source, network, device)
        return encoder


def _head(file: Path, source: OpenClipSource, device: str) -> tuple[Tensor, Tensor]:
    weight, bias = read_head(file, "open_clip")
    width = source.config["embed_dim"]
    if len(weight) != width:
        raise ConfigError(
            f"reward 'open_clip': {file} takes {len(weight)} numbers, {source.name} gives {width}",
        )
    return weight.to(device), bias.to(device)
