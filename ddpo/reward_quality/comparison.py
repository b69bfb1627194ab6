"""Several rewards over the same pictures: agreement of each pair, and the sensitivity of each reward, from one pass over the files."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ddpo.errors import ConfigError
from ddpo.inputs.input_image import InputImage
from ddpo.reward_quality.agreement import Agreement, Disagreement, agreement, disagreements
from ddpo.reward_quality.edits import EDITS, SAME_IMAGE
from ddpo.reward_quality.sensitivity import Sensitivity, edited_batch, sensitivity
from ddpo.rewards.image_files import score_files
from ddpo.rewards.image_files.stream import decode_ahead
from ddpo.rewards.scoring.scorer import Scorer, processors
from ddpo.stats.paired import RESAMPLES
from ddpo.types import ImageBatch, Prompt

__all__ = [
    "Comparison",
    "RewardScores",
    "compare_rewards",
    "finite",
    "prompt_clusters",
    "score_for_comparison",
]

Floats = NDArray[np.float64]
DISAGREEMENTS_KEPT: Final = 20  # for each pair


@dataclass(frozen=True, slots=True)
class RewardScores:
    """What one reward gave for all files."""

    name: str
    scores: Floats  # [images]; NaN where there is none
    edited: Mapping[str, Floats] = field(
        default_factory=dict
    )  # edit → [images]; empty without edits
    errors: Mapping[int, str] = field(default_factory=dict)  # image → why it has no score
    failed: int = 0  # images, or edits of one, on which the reward broke, rather than found that they have no score


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that `ddpo rewards compare` tells."""

    files: tuple[str, ...]
    rewards: tuple[RewardScores, ...]
    clustered: bool  # whether the images of a prompt were drawn together
    agreements: Mapping[tuple[str, str], Agreement]
    disagreements: Mapping[tuple[str, str], tuple[Disagreement, ...]]  # largest first
    sensitivities: Mapping[str, Sensitivity]  # empty without edits

    def to_dict(self, signatures: Mapping[str, str]) -> dict[str, Any]:
        """Plain JSON values: the figures, every score, and the signature of every reward."""
        return finite(
            {
                "images": list(self.files),
                "rewards": [
                    {
                        "name": one.name,
                        "signature": signatures[one.name],
                        "scores": one.scores.tolist(),
                        "failed": one.failed,
                        "errors": {
                            self.files[index]: reason for index, reason in one.errors.items()
                        },
                        "sensitivity": _sensitivity_record(self.sensitivities[one.name])
                        if one.name in self.sensitivities
                        else None,
                    }
                    for one in self.rewards
                ],
                "agreement": [
                    {
                        "rewards": list(pair),
                        **asdict(found),
                        "resampled": "prompts" if self.clustered else "images",
                        "disagreements": [
                            {"image": self.files[one.index], **asdict(one)}
                            for one in self.disagreements[pair]
                        ],
                    }
                    for pair, found in self.agreements.items()
                ],
                "noise_floor": f"largest median |change| over the edits {', '.join(SAME_IMAGE)}",
                "interval": f"95 %, percentile bootstrap, {RESAMPLES} resamples",
            }
        )


def _sensitivity_record(found: Sensitivity) -> dict[str, Any]:
    return {**asdict(found), "noise_share": found.noise_share}


def finite(value: dict[str, Any]) -> dict[str, Any]:
    """The same JSON values with None for NaN and infinity, which are not JSON."""
    return {key: _finite(part) for key, part in value.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return finite(value)
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def compare_rewards(scored: Sequence[RewardScores], pictures: Sequence[InputImage]) -> Comparison:
    """Agreement of every pair of rewards, and the sensitivity of each one that was scored with edits.

    Args:
        scored: from `score_for_comparison`.
        pictures: what was scored. If a prompt has several pictures, intervals resample prompts.
    """
    clusters = prompt_clusters(pictures)
    pairs = {(a.name, b.name): (a.scores, b.scores) for a, b in combinations(scored, 2)}
    return Comparison(
        tuple(picture.file for picture in pictures),
        tuple(scored),
        clusters is not None,
        {names: agreement(*scores, clusters) for names, scores in pairs.items()},
        {
            names: tuple(disagreements(*scores, DISAGREEMENTS_KEPT))
            for names, scores in pairs.items()
        },
        {one.name: sensitivity(one.scores, one.edited) for one in scored if one.edited},
    )


def prompt_clusters(pictures: Sequence[InputImage]) -> list[Hashable] | None:
    """The prompt of each picture if the pictures of a prompt have to be drawn together: two prompts or more, one of them more than once.

    A picture without a prompt stands for itself.
    """
    labels: list[Hashable] = [
        index if one.prompt is None else one.prompt.text for index, one in enumerate(pictures)
    ]
    return labels if 1 < len(set(labels)) < len(labels) else None


def score_for_comparison(
    scorers: Mapping[str, Scorer],
    pictures: Sequence[InputImage],
    *,
    with_edits: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> list[RewardScores]:
    """The scores of all pictures and, if wanted, of their edits; each file is decoded once.

    A picture and its edits are one batch, so that memory does not grow with the number of files.

    Args:
        scorers: name → scorer.
        pictures: files with their prompts; one that cannot be read has no score, and a reason.
        with_edits: whether the edits are scored as well.
        progress: called with the number of files done since the last call.

    Raises:
        ConfigError: a reward judges by the prompt and a picture has none, or it ranks pictures within a group.
        RewardFailure: a reward is broken.
    """
    _check(scorers, pictures)
    if not with_edits:
        return _originals(scorers, pictures, progress)
    scores = {name: np.full((len(pictures), 1 + len(EDITS)), math.nan) for name in scorers}
    errors: dict[str, dict[int, str]] = {name: {} for name in scorers}
    failed = dict.fromkeys(scorers, 0)
    for index, decoded in enumerate(decode_ahead(pictures, processors(), 2 * processors())):
        batch = (
            None
            if decoded.image is None
            else edited_batch(decoded.image, decoded.source.prompt or Prompt(""))
        )
        for name, scorer in scorers.items():
            if batch is None:
                errors[name][index] = str(decoded.error)
                continue
            scores[name][index], reason, broken = _with_edits(scorer, batch)
            failed[name] += broken
            if reason is not None:
                errors[name][index] = reason
        progress(1)
    return [
        RewardScores(
            name,
            table[:, 0],
            {edit: table[:, 1 + place] for place, edit in enumerate(EDITS)},
            errors[name],
            failed[name],
        )
        for name, table in scores.items()
    ]


def _with_edits(scorer: Scorer, batch: ImageBatch) -> tuple[Floats, str | None, int]:
    """The scores of a picture and its edits, why the picture has none, and on how many of them the reward broke.

    The picture goes first and alone: the edits of one that has no score would tell nothing.
    """
    values = np.full(len(batch), math.nan)
    original = scorer.score_each(batch[:1])
    values[:1] = original.values.numpy()
    if (reason := original.errors[0]) is not None:
        return values, reason, len(original.failed)
    edited = scorer.score_each(batch[1:])
    values[1:] = edited.values.numpy()
    return values, None, len(edited.failed)


def _originals(
    scorers: Mapping[str, Scorer], pictures: Sequence[InputImage], progress: Callable[[int], None]
) -> list[RewardScores]:
    """The scores of the files as they are."""
    scores = {name: np.full(len(pictures), math.nan) for name in scorers}
    errors: dict[str, dict[int, str]] = {name: {} for name in scorers}
    failed = dict.fromkeys(scorers, 0)
    batch_size = max(scorer.batch_size for scorer in scorers.values())
    for index, rows in enumerate(score_files(list(scorers.values()), pictures, batch_size)):
        for name, row in zip(scorers, rows, strict=True):
            failed[name] += row.status == "failed"
            if row.score is None:
                errors[name][index] = str(row.error)
            else:
                scores[name][index] = row.score
        progress(1)
    return [
        RewardScores(name, table, {}, errors[name], failed[name]) for name, table in scores.items()
    ]


def _check(scorers: Mapping[str, Scorer], pictures: Sequence[InputImage]) -> None:
    bare = next((picture.file for picture in pictures if picture.prompt is None), None)
    for name, scorer in scorers.items():
        if scorer.reward.card.needs_prompt and bare is not None:
            hint = "give prompts with --prompts FILE or --prompt TEXT"
            raise ConfigError(
                f"reward {name!r} judges a picture by its prompt and {bare} has none: {hint}"
            )
        if "group" in scorer.reward.card.inputs:
            raise ConfigError(
                f"reward {name!r} ranks pictures within a batch; it has no score for a picture of its own"
            )
