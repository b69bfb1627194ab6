"""Comparison of rewards on the same images: agreement of pairs, and sensitivity to edits."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ddpo.devices import processors
from ddpo.errors import ConfigError
from ddpo.inputs.input_image import InputImage
from ddpo.io.finite import finite
from ddpo.reward_quality.agreement import Agreement, Disagreement, agreement, disagreements
from ddpo.reward_quality.edits import EDITS, SAME_IMAGE, same_image_edits
from ddpo.reward_quality.sensitivity import Sensitivity, edited_batch, sensitivity
from ddpo.rewards.image_files import score_files
from ddpo.rewards.image_files.stream import decode_ahead
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.stats.paired import RESAMPLES
from ddpo.types import ImageBatch, Prompt

__all__ = [
    "Comparison",
    "RewardScores",
    "compare_rewards",
    "prompt_clusters",
    "score_for_comparison",
]

Floats = NDArray[np.float64]
DISAGREEMENTS_KEPT: Final = 20  # for each pair


@dataclass(frozen=True, slots=True)
class RewardScores:
    """The scores of all files by one reward."""

    name: str
    scores: Floats  # [images]; NaN where there is none
    edited: Mapping[str, Floats] = field(default_factory=dict)  # edit → [images]
    errors: Mapping[int, str] = field(default_factory=dict)  # image → why it has no score
    failed: int = 0  # images and edits on which the reward itself failed
    same_image: Sequence[str] = SAME_IMAGE  # edits that set the noise floor

    @property
    def scored(self) -> int:
        """Number of images with a score."""
        return int(np.isfinite(self.scores).sum())


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of `ddpo rewards compare`."""

    files: tuple[str, ...]
    rewards: tuple[RewardScores, ...]
    clustered: bool  # whether intervals resample prompts
    agreements: Mapping[tuple[str, str], Agreement]
    disagreements: Mapping[tuple[str, str], tuple[Disagreement, ...]]  # largest first
    sensitivities: Mapping[str, Sensitivity]  # empty without edits

    def to_dict(self, signatures: Mapping[str, str]) -> dict[str, Any]:
        """Plain JSON values: the figures, every score, and the signature of every reward."""
        values: dict[str, Any] = finite(
            {
                "images": list(self.files),
                "rewards": [self._reward(one, signatures[one.name]) for one in self.rewards],
                "agreement": [self._agreement(pair) for pair in self.agreements],
                "noise_floor": f"largest median |change| over the edits {', '.join(SAME_IMAGE)}; "
                "without flip for a reward that reads the prompt",
                "interval": f"95 %, percentile bootstrap, {RESAMPLES} resamples",
            }
        )
        return values

    def _reward(self, scored: RewardScores, signature: str) -> dict[str, Any]:
        found = self.sensitivities.get(scored.name)
        sensitivity = None if found is None else asdict(found) | {"noise_share": found.noise_share}
        return {
            "name": scored.name,
            "signature": signature,
            "scores": scored.scores.tolist(),
            "failed": scored.failed,
            "errors": {self.files[index]: reason for index, reason in scored.errors.items()},
            "sensitivity": sensitivity,
        }

    def _agreement(self, pair: tuple[str, str]) -> dict[str, Any]:
        return {
            "rewards": list(pair),
            **asdict(self.agreements[pair]),
            "resampled": "prompts" if self.clustered else "images",
            "disagreements": [
                {"image": self.files[one.index], **asdict(one)} for one in self.disagreements[pair]
            ],
        }


def compare_rewards(scored: Sequence[RewardScores], images: Sequence[InputImage]) -> Comparison:
    """Agreement of every pair of rewards, and sensitivity of each reward scored with edits.

    Args:
        scored: scores from `score_for_comparison`.
        images: scored images. If a prompt has several images, intervals resample prompts.
    """
    clusters = prompt_clusters(images)
    pairs = {(a.name, b.name): (a.scores, b.scores) for a, b in combinations(scored, 2)}
    return Comparison(
        files=tuple(image.file for image in images),
        rewards=tuple(scored),
        clustered=clusters is not None,
        agreements={names: agreement(*scores, clusters) for names, scores in pairs.items()},
        disagreements={
            names: tuple(disagreements(*scores, DISAGREEMENTS_KEPT))
            for names, scores in pairs.items()
        },
        sensitivities={
            one.name: sensitivity(one.scores, one.edited, one.same_image)
            for one in scored
            if one.edited
        },
    )


def prompt_clusters(images: Sequence[InputImage]) -> list[Hashable] | None:
    """The prompt of each image where prompts have to be resampled; None otherwise.

    That is so for two prompts or more, one of them with several images. An image without a prompt
    is a cluster of its own.
    """
    labels: list[Hashable] = [
        index if one.prompt is None else one.prompt.text for index, one in enumerate(images)
    ]
    return labels if 1 < len(set(labels)) < len(labels) else None


def score_for_comparison(
    scorers: Mapping[str, Scorer],
    images: Sequence[InputImage],
    *,
    with_edits: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> list[RewardScores]:
    """The scores of all images and, unless switched off, of their edits.

    Each file is decoded once. An image and its edits are one batch, so that memory does not grow
    with the number of files.

    Args:
        scorers: name → scorer.
        images: files with their prompts; a file that cannot be read has a reason and no score.
        with_edits: whether to score the edits too.
        progress: receiver of the number of files done since the last call.

    Raises:
        ConfigError: a reward needs a prompt that an image lacks, or ranks images within a group.
        RewardFailure: a reward failed on all images.
    """
    _check(scorers, images)
    if not with_edits:
        return _originals(scorers, images, progress)
    scores = {name: np.full((len(images), 1 + len(EDITS)), math.nan) for name in scorers}
    errors: dict[str, dict[int, str]] = {name: {} for name in scorers}
    failed = dict.fromkeys(scorers, 0)
    for index, decoded in enumerate(decode_ahead(images, processors(), 2 * processors())):
        if decoded.image is None:
            for name in scorers:
                errors[name][index] = str(decoded.error)
        else:
            batch = edited_batch(decoded.image, images[index].prompt or Prompt(""))
            for name, scorer in scorers.items():
                scores[name][index], reason, failures = _with_edits(scorer, batch)
                failed[name] += failures
                if reason is not None:
                    errors[name][index] = reason
        progress(1)
    edited = {
        name: {edit: table[:, 1 + place] for place, edit in enumerate(EDITS)}
        for name, table in scores.items()
    }
    return [
        RewardScores(
            *(name, scores[name][:, 0], edited[name], errors[name], failed[name]),
            same_image=same_image_edits(scorer.reward.card.inputs),
        )
        for name, scorer in scorers.items()
    ]


def _with_edits(scorer: Scorer, batch: ImageBatch) -> tuple[Floats, str | None, int]:
    """The scores of an image and its edits, the reason for a missing score, and the failures.

    The image is scored first, since the edits of an image without a score are of no use.
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
    scorers: Mapping[str, Scorer], images: Sequence[InputImage], progress: Callable[[int], None]
) -> list[RewardScores]:
    """The scores of the files as they are."""
    scores = {name: np.full(len(images), math.nan) for name in scorers}
    errors: dict[str, dict[int, str]] = {name: {} for name in scorers}
    failed = dict.fromkeys(scorers, 0)
    batch_size = max(scorer.batch_size for scorer in scorers.values())
    for index, rows in enumerate(score_files(list(scorers.values()), images, batch_size)):
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


def _check(scorers: Mapping[str, Scorer], images: Sequence[InputImage]) -> None:
    bare = next((image.file for image in images if image.prompt is None), None)
    for name, scorer in scorers.items():
        if scorer.reward.card.needs_prompt and bare is not None:
            raise ConfigError(
                f"reward {name!r} judges an image by its prompt and {bare} has none: "
                "give prompts with --prompts FILE or --prompt TEXT"
            )
        if "group" in scorer.reward.card.inputs:
            raise ConfigError(
                f"reward {name!r} ranks images within a batch and has no score for a single image"
            )
