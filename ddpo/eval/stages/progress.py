"""Progress events of a running evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["EvalProgress", "Observer", "ignore_progress"]


@dataclass(frozen=True, slots=True)
class EvalProgress:
    """The state of a stage after some images are sampled or scored."""

    stage: Literal["sampling", "scoring", "analysing"]
    what: str  # the model or the reward
    done: int
    total: int
    found: int  # of `done`, left by an earlier evaluation


Observer = Callable[[EvalProgress], None]


def ignore_progress(event: EvalProgress) -> None:
    """An observer that does nothing."""
