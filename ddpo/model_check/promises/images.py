"""The promise that images without noise are those of diffusers' own pipeline."""

from __future__ import annotations

from ddpo.model_check.diffusers_pipeline import TOLERANCE, largest_difference, pipeline_of
from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped

__all__ = ["equal_images"]


def equal_images(tested: ModelUnderTest) -> str | None:
    """At eta = 0 the images are those of diffusers' own pipeline, with and without guidance."""
    pipeline = pipeline_of(tested.word)
    if pipeline is None:
        raise CheckSkipped("the model is no pipeline of diffusers")
    pipeline.to(tested.policy.device)
    found = []
    for guidance in (1.0, 3.0):
        away = largest_difference(tested, tested.policy, pipeline, guidance)
        if not away <= TOLERANCE:
            raise CheckFailed(
                f"with a guidance of {guidance:g} an image differs by {away:.2g} from that of "
                f"diffusers' {type(pipeline).__name__}"
            )
        found.append(away)
    return f"equal to {max(found):.1e}"
