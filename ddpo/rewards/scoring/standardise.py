"""Stored reference distributions: where a reward's scores lie on pictures of your choice, so that they can be standardised."""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo import __version__
from ddpo.errors import ConfigError, MissingResourceError, RewardFailure
from ddpo.io.atomic import write_json
from ddpo.io.json_files import parse_json
from ddpo.rewards.card import PLACEMENT, RewardCard

if TYPE_CHECKING:
    from ddpo.inputs.input_image import InputImage
    from ddpo.rewards.scoring.resolve import ResolvedReward, ScorerOf

__all__ = [
    "PERCENTILES",
    "ScoreDistribution",
    "calibrate",
    "load_reference",
    "reference_of",
    "save_reference",
]

PERCENTILES: Final = (1, 5, 25, 50, 75, 95, 99)
SCHEMA: Final = 1
LEAST_SCORES: Final = 2  # a standard deviation needs as many


@dataclass(frozen=True, slots=True)
class ScoreDistribution:
    """The distribution of one reward's native scores over one set of pictures."""

    reward: str  # id
    version: str
    options: Mapping[str, Any]  # all of them, but for the device
    scale: str  # fingerprint of what fixes the scale: id, version, weights, preprocessing, dtype, options, a user's file
    signature: str  # of the reward when it was calibrated
    count: int  # pictures with a score
    unscorable: int
    mean: float
    sd: float  # of the sample, n - 1
    percentiles: Mapping[str, float]  # "1" … "99"
    images: str  # SHA-256 over the set of pictures with their prompts
    created: str  # UTC
    ddpo: str  # version
    schema: int = SCHEMA

    def check(self, card: RewardCard, options: Mapping[str, Any], origin: str, path: str) -> None:
        """Makes sure that the scores of a reward are on the scale of this distribution.

        Raises:
            ConfigError: it was made with another reward, version, options, weights or file; says which.
        """
        if self.scale == _scale(card, options, origin):
            return
        mine = (card.id, card.version, _options(options))
        theirs = (self.reward, self.version, dict(self.options))
        names = ("reward", "version", "options")
        found = [
            f"{name} {then}, not {now}"
            for name, then, now in zip(names, theirs, mine, strict=True)
            if then != now
        ]
        difference = "; ".join(found) or "other weights, preprocessing or code"
        raise ConfigError(
            f"z={path} was made with {difference}: make one for {card.id!r} with `ddpo rewards calibrate`"
        )


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in PLACEMENT}


def _scale(card: RewardCard, options: Mapping[str, Any], origin: str) -> str:
    file_hash = origin.partition("sha256:")[
        2
    ]  # of a user's file, whose author may forget to raise the version
    return card.fingerprint(_options(options)) + (f"-{file_hash}" if file_hash else "")


def reference_of(
    found: ResolvedReward, scores: Sequence[float | None], images: str, reason: str = ""
) -> ScoreDistribution:
    """The distribution of scores.

    Args:
        found: the reward that gave them.
        scores: one per picture; None for an unscorable one.
        images: hash of the set of pictures.
        reason: why the first unscorable one is so, for the message if there are too many.

    Raises:
        ConfigError: fewer than two scores, or all of them equal.
    """
    import numpy as np

    values = np.array([score for score in scores if score is not None], dtype=np.float64)
    name = found.card.id
    if len(values) < LEAST_SCORES:
        why = f" (the first without a score: {reason})" if reason else ""
        raise ConfigError(
            f"reward {name!r} scored {len(values)} of {len(scores)} pictures{why}: a distribution needs at least {LEAST_SCORES} scores"
        )
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    if values.min() == values.max():
        raise ConfigError(
            f"reward {name!r} gave all {len(values)} pictures the same score, {mean:g}: there is no spread to standardise by"
        )
    percentiles = dict(
        zip(map(str, PERCENTILES), np.percentile(values, PERCENTILES).tolist(), strict=True)
    )
    return ScoreDistribution(
        reward=name,
        version=found.card.version,
        options=_options(found.options),
        scale=_scale(found.card, found.options, found.origin),
        signature=found.signature,
        count=len(values),
        unscorable=len(scores) - len(values),
        mean=mean,
        sd=sd,
        percentiles=percentiles,
        images=images,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        ddpo=__version__,
    )


def calibrate(
    found: ResolvedReward,
    pictures: Iterable[InputImage],
    batch_size: int = 16,
    scorer_of: ScorerOf | None = None,
    progress: Callable[[], None] = lambda: None,
) -> ScoreDistribution:
    """Scores picture files and returns the distribution of the scores.

    Args:
        found: one reward, without weight or steps.
        pictures: files with their prompts; drawn from as needed.
        batch_size: pictures per call of the reward.
        scorer_of: makes the scorer, such as one with a cache; a plain one by default.
        progress: called for each picture that is done.

    Raises:
        ConfigError: a combination of rewards, a missing prompt, or scores without spread.
        RewardFailure: the reward failed on a picture; a distribution without it would not be that of the set.
    """
    from ddpo.rewards.image_files import score_files
    from ddpo.rewards.scoring.scorer import make_scorer

    if found.parts:
        raise ConfigError(
            f"calibrate one reward at a time, without weight, z or clamp; {found.card.id!r} is a combination"
        )
    scorer = scorer_of(found) if scorer_of else make_scorer(found, batch_size)
    scores: list[float | None] = []
    reason = ""
    digests: list[bytes] = []
    seen: deque[InputImage] = deque()  # drawn by the decoders, ahead of the rows

    def drawn() -> Iterator[InputImage]:
        for picture in pictures:
            seen.append(picture)
            yield picture

    for (row,) in score_files([scorer], drawn(), batch_size):
        if row.status == "failed":
            raise RewardFailure(f"{row.error} ({row.file}); no reference distribution was made")
        scores.append(row.score)
        reason = reason or row.error or ""
        digests.append(_digest(seen.popleft()))
        progress()
    return reference_of(
        found, scores, hashlib.sha256(b"".join(sorted(digests))).hexdigest(), reason
    )


def _digest(picture: InputImage) -> bytes:
    """SHA-256 over a file's bytes and its prompt; sorted, they name a set of pictures wherever and in whatever order it lies."""
    try:
        digest = hashlib.sha256(picture.encoded())
    except OSError:
        digest = hashlib.sha256(b"unreadable")
    digest.update(picture.prompt.id.encode() if picture.prompt is not None else b"")
    return digest.digest()


def save_reference(reference: ScoreDistribution, path: Path) -> None:
    """Writes JSON, atomically.

    Raises:
        ConfigError: `path` cannot be written.
    """
    try:
        write_json(path, asdict(reference))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def load_reference(path: Path) -> ScoreDistribution:
    """Reads what `save_reference` wrote.

    Raises:
        MissingResourceError: no such file.
        ConfigError: it is not a reference distribution, or of a newer ddpo.
    """
    try:
        values = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingResourceError(
            f"z={path}: no such file; make it with `ddpo rewards calibrate REWARD IMAGES… --out {path}`"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"z={path} cannot be read as JSON: {error}") from error
    if (
        isinstance(values, dict)
        and isinstance(values.get("schema"), int)
        and values["schema"] > SCHEMA
    ):
        raise ConfigError(
            f"z={path} is of a newer ddpo (schema {values['schema']}, this ddpo reads {SCHEMA}): upgrade ddpo"
        )
    try:
        reference = ScoreDistribution(**values)
        sound = all(map(_finite, (reference.mean, reference.sd))) and reference.sd > 0
    except TypeError as error:
        raise ConfigError(
            f"z={path} is not a reference distribution of `ddpo rewards calibrate`"
        ) from error
    if not sound or not isinstance(reference.options, dict) or not isinstance(reference.scale, str):
        raise ConfigError(f"z={path} is damaged: mean {reference.mean}, sd {reference.sd}")
    return reference


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
