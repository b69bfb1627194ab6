"""Noise floors that were measured, kept beside the scores so that an evaluation that goes on does not measure them again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ddpo.eval.analysis.noise_floor import FLOOR_IMAGES, noise_floor
from ddpo.eval.generate.image_store import ImageStore
from ddpo.io.atomic import write_json
from ddpo.io.json_files import parse_json
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.types import Prompt

__all__ = ["NoiseFloors"]

FILE: Final = "noise_floors.json"


class NoiseFloors:
    """The noise floor of each reward on some pictures of the base model.

    Args:
        out: the output folder.
        pictures: SHA-256 and prompt of the base model's pictures, of which `FLOOR_IMAGES`, evenly spread, are taken.
    """

    def __init__(self, out: Path, pictures: Sequence[tuple[str, Prompt]]) -> None:
        count = min(len(pictures), FLOOR_IMAGES)
        self._chosen = [pictures[place * len(pictures) // count] for place in range(count)]
        self._file = out / FILE
        text = json.dumps([[sha256, prompt.id] for sha256, prompt in self._chosen])
        self._pictures = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._found = self._read()

    def known(self, identity: str) -> bool:
        """Whether the floor of the reward of this identity was measured on these pictures."""
        return self._key(identity) in self._found

    def measure(self, identity: str, scorer: Scorer, store: ImageStore) -> None:
        """Measures and keeps one; raises as `noise_floor`."""
        if not self.known(identity):
            pixels = [store.pixels(sha256) for sha256, _ in self._chosen]
            value = noise_floor(scorer, pixels, [prompt for _, prompt in self._chosen])
            self._found[self._key(identity)] = None if math.isnan(value) else value
            write_json(self._file, self._found)

    def value(self, identity: str) -> float:
        """The floor, in the reward's unit; NaN if it was not or could not be measured."""
        found = self._found.get(self._key(identity))
        return math.nan if found is None else found

    def _key(self, identity: str) -> str:
        return f"{self._pictures} {identity}"

    def _read(self) -> dict[str, float | None]:
        try:
            values = parse_json(self._file.read_bytes())
            return {
                str(key): None if value is None else float(value) for key, value in values.items()
            }
        except (OSError, ValueError, AttributeError, TypeError):
            return {}
