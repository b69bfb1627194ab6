"""What the user asks of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

__all__ = ["EVAL_SEED", "EvalConfig"]

EVAL_SEED: Final = 1_000_003  # noise that no training run with an ordinary seed has seen


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig:
    """None and () stand for the defaults, most of which come from the run.

    Either `checkpoints` are given, whose pictures are drawn here, or `images`: folders of pictures that something else drew.
    """

    checkpoints: tuple[str, ...] = ()  # run folders, checkpoint folders or hub ids
    images: tuple[str, ...] = ()  # "NAME=FOLDER"; one of them "base=FOLDER"
    base: str | None = None  # the base model, where a checkpoint does not name it
    prompts: tuple[str, ...] = ()  # lists or files, "NAME=FILE" to give the split a name
    trained_prompts: str | None = None  # the list of the training, where the run does not tell
    rewards: tuple[str, ...] = ()
    held_out: bool = True  # score with independent rewards and pixel statistics too
    leaks: Literal["report", "drop"] = "report"
    seeds: int = 4
    seed: int = EVAL_SEED
    history: int = 6  # earlier checkpoints of each run
    history_seeds: int = 2
    best_of: int | None = (
        None  # how many pictures of the base model the best is chosen of; None: the run’s queries per prompt; 0: none
    )
    steps: int | None = None
    guidance: float | None = None
    eta: float | None = None
    out: Path | None = None
    device: str | None = None
