"""Measures the distribution of a reward's scores on a set of images."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from ddpo import __version__
from ddpo.errors import ConfigError, ImageError, RewardFailure
from ddpo.inputs.input_image import InputImage
from ddpo.rewards.image_files import score_files
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.scoring.scorer import Scorer, make_scorer
from ddpo.rewards.scoring.standardise import ScoreDistribution, scale_of, without_placement

__all__ = ["calibrate", "reference_of"]

PERCENTILES: Final = (1, 5, 25, 50, 75, 95, 99)
LEAST_SCORES: Final = 2  # a standard deviation needs two


def calibrate(
    found: ResolvedReward,
    images: Iterable[InputImage],
    batch_size: int = 16,
    scorer_of: Callable[[ResolvedReward], Scorer] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> ScoreDistribution:
    """Scores image files and returns the distribution of the scores.

    Args:
        found: One reward, without weight or steps.
        images: Image files with their prompts, read as needed.
        batch_size: Images per call of the reward.
        scorer_of: Function that makes the scorer, such as one with a cache.
        progress: Function called after each image.

    Raises:
        ConfigError: A combination of rewards, a missing prompt, or scores without spread.
        RewardFailure: The reward failed on an image, so that the distribution would lack it.
    """
    if found.parts:
        raise ConfigError(
            "calibrate one reward at a time, without weight, z or clamp; "
            f"{found.card.id!r} is a combination"
        )
    scorer = scorer_of(found) if scorer_of else make_scorer(found, batch_size)
    scores: list[float | None] = []
    reason = ""
    digests: list[bytes] = []
    seen: deque[InputImage] = deque()  # images that were read ahead of their rows

    def watched() -> Iterator[InputImage]:
        for image in images:
            seen.append(image)
            yield image

    for (row,) in score_files([scorer], watched(), batch_size):
        if row.status == "failed":
            raise RewardFailure(f"{row.error} ({row.file}); no reference distribution was made")
        scores.append(row.score)
        reason = reason or row.error or ""
        digests.append(_digest(seen.popleft()))
        progress()
    digest = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
    return reference_of(found, scores, digest, reason)


def reference_of(
    found: ResolvedReward, scores: Sequence[float | None], images: str, reason: str = ""
) -> ScoreDistribution:
    """The distribution of a reward's scores.

    Args:
        found: The reward that gave the scores.
        scores: One score per image; None for an unscorable one.
        images: Hash of the set of images.
        reason: Reason of the first unscorable image, for the error message.

    Raises:
        ConfigError: There are fewer than two scores, or all are equal.
    """
    values = np.array([score for score in scores if score is not None], dtype=np.float64)
    name = found.card.id
    if len(values) < LEAST_SCORES:
        why = f" (the first without a score: {reason})" if reason else ""
        raise ConfigError(
            f"reward {name!r} scored {len(values)} of {len(scores)} images{why}: "
            f"a distribution needs at least {LEAST_SCORES} scores"
        )
    mean = float(values.mean())
    sd = float(values.std(ddof=1))
    if values.min() == values.max():
        raise ConfigError(
            f"reward {name!r} gave all {len(values)} images the same score, {mean:g}: "
            "there is no spread to standardise by"
        )
    percentiles = np.percentile(values, PERCENTILES).tolist()
    return ScoreDistribution(
        reward=name,
        version=found.card.version,
        options=without_placement(found.options),
        scale=scale_of(found.card, found.options, found.origin),
        signature=found.signature,
        count=len(values),
        unscorable=len(scores) - len(values),
        mean=mean,
        sd=sd,
        percentiles=dict(zip(map(str, PERCENTILES), percentiles, strict=True)),
        images=images,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        ddpo=__version__,
    )


def _digest(image: InputImage) -> bytes:
    """SHA-256 over a file's bytes and its prompt.

    Sorted, these digests identify a set of images independent of its folder and order.
    """
    try:
        digest = hashlib.sha256(image.encoded())
    except (OSError, ImageError):
        digest = hashlib.sha256(b"unreadable")
    digest.update(image.prompt.id.encode() if image.prompt is not None else b"")
    return digest.digest()
