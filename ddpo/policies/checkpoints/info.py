"""The facts of a checkpoint and of the base model that it was trained from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ddpo.policies.model_place import fingerprint, place_of, same_place

__all__ = ["POLICY_FILE", "BaseFacts", "CheckpointInfo"]

POLICY_FILE: Final = "policy.json"


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """A base model as recorded in a checkpoint or run."""

    word: str  # the user's spelling
    place: str = ""  # absolute path at training time; "" for names, hub ids and old files
    fingerprint: str = ""  # of the denoiser; "" without one

    @classmethod
    def of(cls, word: str, record: Mapping[str, Any]) -> BaseFacts:
        """The facts from a record of `facts_of`, which is empty in old files."""
        return cls(word, str(record.get("place") or ""), str(record.get("fingerprint") or ""))

    def usable(self) -> str:
        """The word that finds the base model from the current directory.

        It is the user's spelling if that leads to the recorded place or denoiser, and else the
        recorded place, which may no longer exist.
        """
        if not self.place or self.is_model(self.word):
            return self.word
        return self.place

    def is_model(self, word: str) -> bool:
        """True if a word names this model, by its denoiser if known and else by its place."""
        if not self.place:
            return same_place(word, self.word)
        if self.fingerprint:
            return fingerprint(word) == self.fingerprint
        return self.is_at(word)

    def is_at(self, word: str) -> bool:
        """True if a word leads to the recorded place."""
        place = place_of(word)
        return place is not None and place.place == self.place


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """The facts of a checkpoint folder."""

    folder: Path  # the checkpoint; for another trainer's, perhaps the file itself
    model: str  # id or folder of the base model
    kind: str  # "lora" or "full"
    iteration: int
    run: Path | None  # the run folder around it
    adapter: dict[str, Any]  # LoRA rank, alpha and targets
    weights: Path  # LORA_FILE or UNET, or other weights of other models and trainers
    base: BaseFacts | None = None  # the recorded base model; None for other trainers' files
    digests: Mapping[str, str] = field(default_factory=dict)  # file → SHA-256; {} in old ones
    facts_digest: str = ""  # as of `_facts_digest` when it was written; "" in old ones

    @property
    def external(self) -> bool:
        """True for a checkpoint of another trainer, in diffusers' formats and without facts."""
        return not (self.folder / POLICY_FILE).is_file()
