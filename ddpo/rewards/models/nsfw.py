"""A guard: the probability of not safe for work, by Falconsai's ViT-B/16."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpo.devices import in_float64
from ddpo.errors import ConfigError, MissingResourceError
from ddpo.io.json_files import read_foreign_json
from ddpo.rewards.cards import CARDS
from ddpo.rewards.cards.guard import FALCONSAI
from ddpo.rewards.models.load_errors import first_sentence
from ddpo.rewards.offload import place
from ddpo.types import ImageBatch, RewardOutput
from ddpo.weights import offline, without_loading_bars

__all__ = ["Nsfw", "preprocess"]

LABEL: Final = "nsfw"
AT_ONCE: Final = 16  # images
STEPS: Final = ("do_resize", "do_rescale", "do_normalize")


def preprocess(image: Image.Image, settings: Mapping[str, Any]) -> Tensor:
    """The steps of transformers' ViT processor on Pillow: stretch, scale, normalise.

    Args:
        image: RGB image.
        settings: content of preprocessor_config.json; defaults are those of
            `transformers.ViTImageProcessor`.

    Returns:
        float32 `[3, height, width]`.
    """
    size = settings.get("size", 224)
    height, width = (size, size) if isinstance(size, int) else (size["height"], size["width"])
    stretched = image.resize((width, height), settings.get("resample", Image.Resampling.BILINEAR))
    pixels = (np.asarray(stretched, np.float64) * settings.get("rescale_factor", 1 / 255)).astype(
        np.float32
    )
    mean, std = (
        np.asarray(settings.get(name, [0.5] * 3), np.float32)
        for name in ("image_mean", "image_std")
    )
    return torch.from_numpy(np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1)))


def _checked(settings: Mapping[str, Any], model: str, side: int) -> Mapping[str, Any]:
    """The settings, if `preprocess` has their steps and the model takes their size.

    Raises:
        ConfigError: A step or the size does not fit.
    """
    done = {
        name
        for name, value in settings.items()
        if name.startswith("do_") and value and name != "do_convert_rgb"
    }
    if odd := sorted(
        {step for step in STEPS if not settings.get(step, True)} | (done - set(STEPS))
    ):
        raise ConfigError(
            f"reward 'nsfw': preprocessor_config.json of {model} has {odd[0]}={settings[odd[0]]}, "
            "which is not known here"
        )
    size = settings.get("size", 224)
    if size not in (side, {"height": side, "width": side}):
        raise ConfigError(
            f"reward 'nsfw': preprocessor_config.json of {model} makes images of {size}, "
            f"the model takes {side}×{side}"
        )
    return settings


def _label(names: Mapping[int, str], model: str) -> int:
    """The index of the one class that is called nsfw."""
    found = [index for index, name in names.items() if str(name).strip().casefold() == LABEL]
    if len(found) != 1:
        labels = ", ".join(map(str, names.values()))
        raise ConfigError(f"reward 'nsfw': {model} has the labels {labels}, not one {LABEL!r}")
    return int(found[0])


@without_loading_bars()
def _load(model: str) -> tuple[Any, Mapping[str, Any]]:
    """The classifier in float32, every tensor from the file, and its preprocessing settings."""
    from safetensors import SafetensorError
    from transformers import ViTForImageClassification
    from transformers.utils import cached_file

    where = {
        "local_files_only": offline(),
        "revision": FALCONSAI.revision if model == FALCONSAI.source else "main",
    }
    try:
        settings = read_foreign_json(Path(cached_file(model, "preprocessor_config.json", **where)))
        classifier, info = ViTForImageClassification.from_pretrained(
            model, dtype=torch.float32, output_loading_info=True, **where
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        source = FALCONSAI.source
        cause = first_sentence(error)
        raise MissingResourceError(
            f"reward 'nsfw' needs {source} ({FALCONSAI.megabytes:g} MB, {FALCONSAI.licence}): "
            f"run `ddpo rewards download nsfw`, or give a folder as model=…; {cause}"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise MissingResourceError(
            f"reward 'nsfw': the classifier {model} lacks {len(missing)} tensors, "
            f"such as {missing[0]}"
        )
    return classifier.eval().requires_grad_(False), settings


class Nsfw:
    """P(nsfw) of an image, 0 … 1: higher is worse.

    Args:
        model: folder or hub id of a ViT classifier with one class called "nsfw", at any index.
        device: torch device.

    Raises:
        MissingResourceError: The model is neither here nor downloadable, or is incomplete.
        ConfigError: The model has no such class, or unknown preprocessing steps.
    """

    card = CARDS["nsfw"]

    def __init__(self, model: str = FALCONSAI.source, device: str = "cpu") -> None:
        classifier, settings = _load(model)
        self._index = _label(classifier.config.id2label, model)
        self._settings = _checked(settings, model, classifier.config.image_size)
        self._device = torch.device(device)
        self._model = place(classifier, self._device)

    def _log_odds(self, batch: ImageBatch) -> Tensor:
        """The logarithm of P(nsfw) / (1 − P(nsfw)), float64 `[batch]`."""
        pixels = torch.stack([preprocess(image, self._settings) for image in batch.images]).to(
            self._device
        )
        logits: Tensor = in_float64(self._model(pixel_values=pixels).logits)
        others = [index for index in range(logits.shape[1]) if index != self._index]
        return logits[:, self._index] - logits[:, others].logsumexp(1)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; part `log_odds` is the logit of the score, which does not saturate."""
        if not len(batch):
            return RewardOutput(torch.zeros(0), {"log_odds": torch.zeros(0)})
        with torch.no_grad():
            odds = torch.cat(
                [
                    self._log_odds(batch[start : start + AT_ONCE])
                    for start in range(0, len(batch), AT_ONCE)
                ]
            ).cpu()
        return RewardOutput(odds.sigmoid().float(), {"log_odds": odds.float()})
