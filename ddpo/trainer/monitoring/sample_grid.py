"""The image grid of a run, always of the same prompts and noise, so that changes are visible."""

from __future__ import annotations

from PIL.Image import Image

from ddpo.images import contact_sheet, to_pil
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, sample_images
from ddpo.prompts import PromptSet
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.monitoring.grid_shape import GAP, PROMPTS, ROWS
from ddpo.trainer.rollout import sampler_settings

__all__ = ["draw_grid"]


def draw_grid(policy: Policy, prompts: PromptSet, config: TrainConfig) -> Image:
    """The grid that the policy samples now: a row for each noise, a column for each prompt.

    Args:
        policy: the policy that samples.
        prompts: prompts of the run.
        config: settings of the run.
    """
    shown = prompts.prompts[:PROMPTS]
    # training uses the indices from 0
    keys = [SampleKey(prompt, -1 - row) for row in range(ROWS) for prompt in shown]
    batches = sample_images(policy, keys, sampler_settings(config.sample), config.seed)
    images = [image for batch in batches for image in to_pil(batch.pixels)]
    return contact_sheet(images, columns=len(shown), gap=GAP)
