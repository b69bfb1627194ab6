"""Validation of a reward on human preferences: scores each image of a file once, then the pairs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ddpo.errors import ConfigError, RewardFailure
from ddpo.inputs.input_image import InputImage
from ddpo.io.finite import finite
from ddpo.reward_quality.preference_file import PairRow
from ddpo.rewards.card import RewardCard
from ddpo.rewards.image_files import score_files
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.stats.bradley_terry import Calibration, calibration
from ddpo.stats.paired import RESAMPLES
from ddpo.stats.pairwise import CONVENTIONS, Accuracy, pairwise_accuracy
from ddpo.types import Prompt

__all__ = ["ScoredPairs", "Validation", "score_pairs", "validate_pairs"]

REASONS_KEPT: Final = 10
Floats = NDArray[np.float64]
Key = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """The pairs of a preference file with the scores of both images; NaN where there is none.

    Attributes:
        choices: 1 first preferred, 0 second, 0.5 tie, `[pairs]`.
        first: scores of the first images, `[pairs]`.
        second: scores of the second images, `[pairs]`.
        prompts: prompt of each pair, or its row where it has none.
        images: number of distinct images (with distinct prompts, if the reward judges by them).
        errors: first few reasons for missing scores.
        failed: number of images on which the reward itself failed.
    """

    choices: Floats
    first: Floats
    second: Floats
    prompts: tuple[Hashable, ...]
    images: int
    errors: tuple[str, ...]
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Validation:
    """The result of `ddpo rewards validate`."""

    pairs: int  # number of judged pairs
    excluded: int  # number of pairs without both scores
    prompts: int
    preferred_first: int
    preferred_second: int
    ties: int  # pairs that people could not decide
    equal_scores: int
    lower_is_better: bool
    accuracy: dict[str, Accuracy]  # convention → accuracy
    calibration: Calibration

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rules = {
            name: {"rule": one.rule, "source": one.source} for name, one in CONVENTIONS.items()
        }
        accuracy = {name: {**asdict(found), **rules[name]} for name, found in self.accuracy.items()}
        values: dict[str, Any] = finite(
            {
                **asdict(self),
                "accuracy": accuracy,
                "interval": f"95 %, percentile bootstrap over prompts, {RESAMPLES} resamples",
            }
        )
        return values


def validate_pairs(scored: ScoredPairs, *, lower_is_better: bool = False) -> Validation:
    """Pairwise accuracy by every convention, and calibration.

    Pairs without both scores are left out and counted.

    Raises:
        ConfigError: no pair has both scores.
        RewardFailure: no pair has both scores, because the reward failed.
    """
    differences = scored.first - scored.second
    if lower_is_better:
        differences = -differences
    kept = np.flatnonzero(~np.isnan(differences))
    if not len(kept):
        why = scored.errors[0] if scored.errors else "the file has no row with a label"
        error = RewardFailure if scored.failed else ConfigError
        raise error(f"none of the {len(scored.choices)} pairs has a score for both images: {why}")
    choices = scored.choices[kept]
    differences = differences[kept]
    prompts = [scored.prompts[index] for index in kept]
    return Validation(
        pairs=len(kept),
        excluded=len(scored.choices) - len(kept),
        prompts=len(set(prompts)),
        preferred_first=int((choices == 1).sum()),
        preferred_second=int((choices == 0).sum()),
        ties=int((choices == 0.5).sum()),
        equal_scores=int((differences == 0).sum()),
        lower_is_better=lower_is_better,
        accuracy={
            name: pairwise_accuracy(one, choices, differences, prompts)
            for name, one in CONVENTIONS.items()
        },
        calibration=calibration(choices, differences, prompts),
    )


def score_pairs(
    scorer: Scorer,
    rows: Iterable[PairRow],
    batch_size: int = 16,
    progress: Callable[[int], None] = lambda done: None,
) -> ScoredPairs:
    """Scores every distinct image of `rows` once.

    Images are distinct by path or bytes, and by prompt if the reward judges by it. Memory does not
    grow with the size of the images. Embedded images pass through a temporary folder.

    Args:
        scorer: scorer of the reward.
        rows: pairs, read as needed.
        batch_size: largest number of images per call.
        progress: receiver of the number of images scored since the last call.

    Raises:
        ConfigError: the reward needs a prompt that a row lacks, or ranks images within a group.
        RewardFailure: the reward failed on all images.
    """
    with TemporaryDirectory(prefix="ddpo-") as folder:
        pairs = _Pairs(rows, scorer.reward.card, Path(folder))
        scores: list[float] = []
        errors: list[str] = []
        failed = 0
        for (row,) in score_files([scorer], pairs.images(), batch_size):
            scores.append(math.nan if row.score is None else row.score)
            failed += row.status == "failed"
            name = pairs.done(row.file)
            if row.error is not None and len(errors) < REASONS_KEPT:
                errors.append(row.error.replace(row.file, name))
            progress(1)
        table = np.array(scores, dtype=np.float64)
        return ScoredPairs(
            choices=np.array(pairs.choices, dtype=np.float64),
            first=table[np.array(pairs.first, dtype=np.int64)],
            second=table[np.array(pairs.second, dtype=np.int64)],
            prompts=tuple(pairs.prompts),
            images=len(table),
            errors=tuple(errors),
            failed=failed,
        )


class _Pairs:
    """The distinct images of the pairs, in order of first appearance, and those of each pair."""

    def __init__(self, rows: Iterable[PairRow], card: RewardCard, folder: Path) -> None:
        self._rows = rows
        self._card = card
        self._folder = folder
        self._by_prompt = bool({"prompt", "metadata"} & set(card.inputs))
        self._places: dict[Key, int] = {}
        self._embedded: dict[str, str] = {}  # temporary file → its name in messages
        self.choices: list[float] = []
        self.first: list[int] = []
        self.second: list[int] = []
        self.prompts: list[Hashable] = []

    def images(self) -> Iterator[InputImage]:
        """The images to score."""
        for row in self._rows:
            if row.prompt is None and self._by_prompt:
                raise ConfigError(
                    f"{row.where}: no prompt, and reward {self._card.id!r} judges an image by it"
                )
            self.choices.append(row.choice)
            self.prompts.append(row.where if row.prompt is None else row.prompt.text)
            for image, name, places in (
                (row.image_a, "image_a", self.first),
                (row.image_b, "image_b", self.second),
            ):
                key = self._key(image, row.prompt)
                new = key not in self._places
                places.append(self._places.setdefault(key, len(self._places)))
                if new:
                    yield InputImage(self._file(image, f"{row.where} {name}"), row.prompt)

    def done(self, file: str) -> str:
        """Removes a scored image of the temporary folder; returns its name for messages."""
        if file not in self._embedded:
            return file
        Path(file).unlink()
        return self._embedded.pop(file)

    def _key(self, image: Path | bytes, prompt: Prompt | None) -> Key:
        content = str(image) if isinstance(image, Path) else hashlib.sha256(image).digest()
        if not self._by_prompt or prompt is None:
            return (content,)
        return content, prompt.text, json.dumps(dict(prompt.metadata), sort_keys=True)

    def _file(self, image: Path | bytes, name: str) -> str:
        if isinstance(image, Path):
            return str(image)
        path = self._folder / str(len(self._places))
        path.write_bytes(image)
        self._embedded[str(path)] = name
        return str(path)
