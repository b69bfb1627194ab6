"""The models of an evaluation: the base model and every model that is compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["BASE", "ModelFacts"]

BASE: Final = "base"
"""The name of the base model in tables; no other model has it."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A tuned model: a checkpoint of a run, or a folder of images from another program.

    Attributes:
        name: distinct name in tables: the run's folder, "NAME@ITERATION" for earlier checkpoints.
        checkpoint: the checkpoint as the user named it, or the folder of images.
        kind: "lora", "full", or "images".
        run: name of the run folder; "" outside a run.
        iteration: iteration of the checkpoint; -1 if unknown.
        queries: reward queries up to that iteration; -1 if unknown.
        trained_on: id of the run's reward; "" if unknown.
        training_seed: seed of the training; -1 if unknown.
        seeds: images per prompt.
        history: True for an earlier checkpoint of a compared run; it appears in the run history
            and not in the tables.
        identity: SHA-256 over the checkpoint's weights; "" if unknown.
        recipe: digest of the run's settings without seed and length; "" if unknown.
    """

    name: str
    checkpoint: str
    kind: str
    run: str
    iteration: int
    queries: int
    trained_on: str
    training_seed: int
    seeds: int
    history: bool
    identity: str
    recipe: str = ""
