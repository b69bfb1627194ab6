"""The promises of a model, one module each: a function whose docstring is the demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.model_check.promises.conditioning import conditioning_per_item
from ddpo.model_check.promises.construction import construction
from ddpo.model_check.promises.decoding import decoding
from ddpo.model_check.promises.gradient import gradient
from ddpo.model_check.promises.images import equal_images
from ddpo.model_check.promises.log_prob import log_prob
from ddpo.model_check.promises.lora import lora_there_and_back
from ddpo.model_check.promises.marginal import marginal
from ddpo.model_check.promises.memory import memory
from ddpo.model_check.promises.prediction import prediction_per_item
from ddpo.model_check.promises.random_state import random_state
from ddpo.model_check.promises.ratio import ratio_bfloat16, ratio_float16, ratio_float32
from ddpo.model_check.promises.reference import reference
from ddpo.model_check.promises.resume import resume
from ddpo.model_check.promises.trained_weights import trained_weights

__all__ = ["CHECKS", "Probe"]

Probe = Callable[[ModelUnderTest], str | None]

CHECKS: Final[dict[str, Probe]] = {
    probe.__name__.replace("_", "-"): probe
    for probe in (
        construction,
        trained_weights,
        conditioning_per_item,
        prediction_per_item,
        decoding,
        random_state,
        marginal,
        log_prob,
        equal_images,
        ratio_float32,
        ratio_bfloat16,
        ratio_float16,
        gradient,
        reference,
        lora_there_and_back,
        resume,
        memory,
    )
}
"""Name → check, in the order in which they run. The docstring is the demand."""
