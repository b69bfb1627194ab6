"""Does a reward order pictures as people do? Scores every picture of a preference file once, and judges the pairs."""

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

from ddpo.errors import ConfigError
from ddpo.inputs.input_image import InputImage
from ddpo.reward_quality.comparison import finite
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
    """The pairs of a preference file with the scores of both pictures; NaN where there is none."""

    choices: Floats  # [pairs]: 1 first preferred, 0 second, 0.5 tie
    first: Floats  # [pairs]
    second: Floats  # [pairs]
    prompts: tuple[
        Hashable, ...
    ]  # what a pair belongs to: its prompt, or its row where it has none
    pictures: int  # distinct pictures (with distinct prompts, if the reward judges by them), each scored once
    errors: tuple[str, ...]  # the first few reasons why pictures have no score
    failed: int = 0  # pictures on which the reward broke, rather than found that they have no score


@dataclass(frozen=True, slots=True)
class Validation:
    """Everything that `ddpo rewards validate` tells."""

    pairs: int  # that were judged
    excluded: int  # pairs with a picture that has no score
    prompts: int
    preferred_first: int
    preferred_second: int
    ties: int  # that people could not decide
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
        return finite(
            {
                **asdict(self),
                "accuracy": accuracy,
                "interval": f"95 %, percentile bootstrap over prompts, {RESAMPLES} resamples",
            }
        )


def validate_pairs(scored: ScoredPairs, *, lower_is_better: bool = False) -> Validation:
    """Pairwise accuracy by every convention, and calibration. Pairs with a picture that has no score are left out and counted.

    Raises:
        ConfigError: no pair is left.
    """
    differences = (
        (scored.second - scored.first) if lower_is_better else (scored.first - scored.second)
    )
    kept = np.flatnonzero(~np.isnan(differences))
    if not len(kept):
        why = scored.errors[0] if scored.errors else "the file has no row with a label"
        raise ConfigError(
            f"none of the {len(scored.choices)} pairs has a score for both images: {why}"
        )
    choices, differences, prompts = (
        scored.choices[kept],
        differences[kept],
        [scored.prompts[index] for index in kept],
    )
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
    """Scores every distinct picture of `rows` once: by its path, or its bytes; with its prompt if the reward judges by it.

    What is in memory does not grow with the size of the pictures. Embedded pictures pass through a temporary folder.

    Args:
        scorer: of the reward.
        rows: the pairs, drawn from as needed.
        batch_size: pictures that are scored together, at most.
        progress: called with the number of pictures scored since the last call.

    Raises:
        ConfigError: the reward needs a prompt and a row has none, or it ranks pictures within a group.
        RewardFailure: the reward is broken.
    """
    with TemporaryDirectory(prefix="ddpo-") as folder:
        board = _Pairs(rows, scorer.reward.card, Path(folder))
        scores: list[float] = []
        errors: list[str] = []
        failed = 0
        for (row,) in score_files([scorer], board.pictures(), batch_size):
            scores.append(math.nan if row.score is None else row.score)
            failed += row.status == "failed"
            name = board.done(row.file)
            if row.error is not None and len(errors) < REASONS_KEPT:
                errors.append(row.error.replace(row.file, name))
            progress(1)
        table = np.array(scores, dtype=np.float64)
        first, second = (np.array(places, dtype=np.int64) for places in (board.first, board.second))
        choices = np.array(board.choices, dtype=np.float64)
        return ScoredPairs(
            choices,
            table[first],
            table[second],
            tuple(board.prompts),
            len(table),
            tuple(errors),
            failed,
        )


class _Pairs:
    """Hands out the distinct pictures of the pairs in the order in which they first come, and remembers which pair has which."""

    def __init__(self, rows: Iterable[PairRow], card: RewardCard, folder: Path) -> None:
        self._rows, self._card, self._folder = rows, card, folder
        self._by_prompt = bool({"prompt", "metadata"} & set(card.inputs))
        self._places: dict[Key, int] = {}
        self._embedded: dict[str, str] = {}  # temporary file → what to call it
        self.choices: list[float] = []
        self.first: list[int] = []
        self.second: list[int] = []
        self.prompts: list[Hashable] = []

    def pictures(self) -> Iterator[InputImage]:
        """The pictures to score."""
        for row in self._rows:
            if row.prompt is None and self._by_prompt:
                raise ConfigError(
                    f"{row.where}: no prompt, and reward {self._card.id!r} judges a picture by it"
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
        """Removes a picture of the temporary folder, once it is scored; returns what to call the file in messages."""
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
