"""Noise floors: the size of score changes under edits that no viewer minds.

A gain below the floor is no evidence. Measured floors are kept beside the scores, so that a resumed
evaluation does not measure them again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpo.errors import CheckpointError
from ddpo.eval.generate.image_store import ImageStore
from ddpo.io.atomic import write_json
from ddpo.io.fields import MapOf, Maybe, Real
from ddpo.io.json_files import JsonError, check_fields, read_json, say_once
from ddpo.reward_quality.edits import EDITS, same_image_edits
from ddpo.reward_quality.sensitivity import edited_batch, sensitivity
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.types import ImageBatch, Prompt

__all__ = ["FLOOR_IMAGES", "NoiseFloors", "noise_floor"]

FLOOR_IMAGES: Final = 24
FILE: Final = "noise_floors.json"
FIRST_EDITS: Final = ("flip", "crop 1 px", "JPEG q95")
"""The edits of a floor whose key names none, as in all earlier files."""


def noise_floor(
    scorer: Scorer, images: Sequence[NDArray[np.uint8]], prompts: Sequence[Prompt]
) -> float:
    """The largest median |change| of the score under `same_image_edits`, in score units.

    Up to 24 images are taken, evenly spread. The result depends only on the images, the prompts
    and the reward, so it may be kept.

    Args:
        scorer: scorer of the reward.
        images: images of the base model, uint8 `[height, width, 3]` each; sizes may differ.
        prompts: prompt of each image.

    Returns:
        NaN where it is not measured: no image has a score, the reward judges groups, or it runs on
        a server, whose answers cost time or money.

    Raises:
        RewardFailure: the reward failed on all images.
    """
    card = scorer.reward.card
    on_a_server = bool(card.calls.retries)
    if not images or "group" in card.inputs or on_a_server:
        return math.nan
    edits = {name: EDITS[name] for name in same_image_edits(card.inputs)}
    batches = [
        edited_batch(Image.fromarray(images[place]), prompts[place], edits)
        for place in _spread(len(images))
    ]
    table = _scores(scorer, batches)
    edited = {name: table[:, 1 + place] for place, name in enumerate(edits)}
    return sensitivity(table[:, 0], edited).noise_floor


class NoiseFloors:
    """The noise floor of each reward on some images of the base model.

    A kept floor counts only if it was measured under the edits of today, which its key names.

    Args:
        out: output folder of the evaluation.
        images: SHA-256 and prompt of the base model's images; `FLOOR_IMAGES` are taken.
    """

    def __init__(self, out: Path, images: Sequence[tuple[str, Prompt]]) -> None:
        self._chosen = [images[place] for place in _spread(len(images))]
        self._file = out / FILE
        text = json.dumps([[sha256, prompt.id] for sha256, prompt in self._chosen])
        self._images = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._found = self._read()

    def known(self, reward: ResolvedReward) -> bool:
        """True if the floor of this reward was measured on these images."""
        return self._key(reward) in self._found

    def measure(self, reward: ResolvedReward, scorer: Scorer, store: ImageStore) -> None:
        """Measures and keeps the floor of a reward; raises as `noise_floor`."""
        if not self.known(reward):
            pixels = [store.pixels(sha256) for sha256, _ in self._chosen]
            value = noise_floor(scorer, pixels, [prompt for _, prompt in self._chosen])
            self._found[self._key(reward)] = None if math.isnan(value) else value
            write_json(self._file, self._found)

    def value(self, reward: ResolvedReward) -> float:
        """The floor, in the reward's unit; NaN if it was not or could not be measured."""
        found = self._found.get(self._key(reward))
        return math.nan if found is None else found

    def _key(self, reward: ResolvedReward) -> str:
        edits = same_image_edits(reward.card.inputs)
        named = "" if edits == FIRST_EDITS else f"{', '.join(edits)}: "
        return f"{self._images} {named}{reward.identity}"

    def _read(self) -> dict[str, float | None]:
        if not self._file.exists():
            return {}
        try:
            values = read_json(self._file)
            check_fields(values, MapOf(Maybe(Real(0))))
        except (CheckpointError, JsonError) as error:
            reason = str(error).removeprefix(f"{self._file} ")
            say_once(f"{self._file}: the noise floors are measured again ({reason})")
            return {}
        return values


def _spread(count: int) -> list[int]:
    """The places of at most `FLOOR_IMAGES` of `count` images, evenly spread."""
    taken = min(count, FLOOR_IMAGES)
    return [place * count // taken for place in range(taken)]


def _scores(scorer: Scorer, batches: Sequence[ImageBatch]) -> NDArray[np.float64]:
    """The scores of each image and its edits `[images, 1 + edits]`; one call per image size."""
    table = np.full((len(batches), len(batches[0])), math.nan)
    for shape in dict.fromkeys(batch.uint8.shape for batch in batches):
        alike = [place for place, batch in enumerate(batches) if batch.uint8.shape == shape]
        pixels = np.concatenate([batches[place].uint8 for place in alike])
        prompts = [prompt for place in alike for prompt in batches[place].prompts]
        output = scorer.score_each(ImageBatch.of_uint8(pixels, prompts))
        table[alike] = output.values.numpy().reshape(len(alike), -1)
    return table
