"""The noise floor of a reward: how far its scores move under edits that no viewer minds. A gain below it is no evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpo.reward_quality.edits import EDITS, SAME_IMAGE
from ddpo.reward_quality.sensitivity import edited_batch, sensitivity
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.types import ImageBatch, Prompt

__all__ = ["FLOOR_IMAGES", "noise_floor"]

FLOOR_IMAGES: Final = 24
_EDITS: Final = {name: EDITS[name] for name in SAME_IMAGE}


def noise_floor(
    scorer: Scorer, pictures: Sequence[NDArray[np.uint8]], prompts: Sequence[Prompt]
) -> float:
    """The largest, over the edits of `SAME_IMAGE`, of the median |change| of the score over pictures; in the reward's own unit.

    Up to 24 pictures are taken, evenly spread over those that are given. The result depends on the pictures, the prompts and the reward
    alone, so it may be kept.

    Args:
        scorer: of the reward.
        pictures: of the base model, uint8 `[height, width, 3]` each; sizes may differ.
        prompts: one per picture.

    Returns:
        NaN where it is not measured: no picture has a score, the reward judges groups, or it runs on a server, whose answers cost time or
        money.

    Raises:
        RewardFailure: the reward is broken.
    """
    card = scorer.reward.card
    if (
        not pictures or "group" in card.inputs or card.calls.retries
    ):  # only what may be away for a while is tried again
        return math.nan
    count = min(len(pictures), FLOOR_IMAGES)
    places = [place * len(pictures) // count for place in range(count)]
    batches = [
        edited_batch(Image.fromarray(pictures[place]), prompts[place], _EDITS) for place in places
    ]
    table = np.full((count, 1 + len(_EDITS)), math.nan)
    for shape in dict.fromkeys(batch.uint8.shape for batch in batches):
        alike = [place for place, batch in enumerate(batches) if batch.uint8.shape == shape]
        together = np.concatenate([batches[place].uint8 for place in alike])
        batch = ImageBatch.of_uint8(
            together, [prompt for place in alike for prompt in batches[place].prompts]
        )
        table[alike] = scorer.score_each(batch).values.numpy().reshape(len(alike), -1)
    return sensitivity(
        table[:, 0], {name: table[:, 1 + place] for place, name in enumerate(_EDITS)}
    ).noise_floor
