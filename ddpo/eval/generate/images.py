"""The pictures of an evaluation, with what was written down of them when they were drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ddpo.eval.generate.image_store import StoredImage
from ddpo.eval.generate.samples import Sample

__all__ = ["EvalImages"]


@dataclass(frozen=True, slots=True)
class EvalImages:
    """What was drawn, or given."""

    compared: tuple[Sample, ...]  # model by model, the base model first, split by split
    facts: Mapping[tuple[str, str, int], Mapping[str, Any]] = field(
        default_factory=dict
    )  # (model, prompt id, index) → facts
    swapped: Mapping[tuple[str, str, str], StoredImage] = field(
        default_factory=dict
    )  # (model, prompt id of the noise, of the text)
    choice: tuple[Sample, ...] = ()  # of the base model, for best-of-n; in no table
