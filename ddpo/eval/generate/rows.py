"""One score of one picture: the row that everything else is computed from, and that `samples.parquet` keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One score of one picture. `score` is NaN, with a reason in `error`, where the picture could not be scored."""

    model: str  # "base", or the name of a tuned model
    split: str
    prompt_id: str
    prompt: str
    index: int  # which picture of the prompt; pictures of one index share all noise, whatever the model
    image_sha256: str  # of the decoded pixels, uint8 `[height, width, 3]`
    image: str  # file, relative to the output folder
    reward: str
    signature: str
    score: float
    parts: Mapping[str, float] = field(
        default_factory=dict
    )  # named sub-scores, where the reward gives some
    error: str | None = None
