"""The models of an evaluation: the base model and everything that is compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["BASE", "ModelFacts"]

BASE: Final = "base"
"""The name of the base model in tables; no other model has it."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A tuned model: a checkpoint of a run, or a folder of pictures that someone else's model made."""

    name: str  # what tables call it, distinct: the run's folder name; "NAME@ITERATION" for an earlier checkpoint
    checkpoint: str  # as the user named it, or the folder
    kind: str  # "lora", "full", or "images"
    run: str  # name of the run folder; "" if it lies in none
    iteration: int  # of the checkpoint; -1 if unknown
    queries: int  # reward queries up to then; -1 if unknown
    trained_on: str  # id of the run's reward; "" if unknown
    training_seed: int  # -1 if unknown
    seeds: int  # pictures per prompt
    history: bool  # an earlier checkpoint of a run that is here with a later one: it is in the course of training, not in the tables
    identity: str  # SHA-256 over the checkpoint's weights; "" if unknown
    recipe: str = ""  # digest of the run's settings but its seed and length; "" if unknown
