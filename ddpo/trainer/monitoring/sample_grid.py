"""The grid of pictures of a run: always the same prompts from the same noise, so that one sees what the training changes."""

from __future__ import annotations

from typing import Final

from PIL.Image import Image

from ddpo.images import contact_sheet, to_pil
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, sample_images
from ddpo.prompts import PromptSet
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.rollout import sampler_settings

__all__ = ["draw_grid"]

PROMPTS: Final = 8  # the first of the list
ROWS: Final = 2


def draw_grid(policy: Policy, prompts: PromptSet, config: TrainConfig) -> Image:
    """The grid as the policy draws it now: a row for each noise, a column for each prompt."""
    shown = prompts.prompts[:PROMPTS]
    keys = [
        SampleKey(prompt, -1 - row) for row in range(ROWS) for prompt in shown
    ]  # training uses the indices from 0
    batches = sample_images(policy, keys, sampler_settings(config.sample), config.seed)
    pictures = [picture for batch in batches for picture in to_pil(batch.pixels)]
    return contact_sheet(pictures, columns=len(shown))
