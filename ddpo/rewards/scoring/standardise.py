"""Score distributions on disk, by which the scores of a reward can be standardised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.io.atomic import write_json
from ddpo.io.json_files import parse_json
from ddpo.rewards.card import PLACEMENT, RewardCard

__all__ = [
    "ScoreDistribution",
    "load_reference",
    "save_reference",
    "scale_of",
    "without_placement",
]

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class ScoreDistribution:
    """The distribution of one reward's native scores over one set of images."""

    reward: str  # id
    version: str
    options: Mapping[str, Any]  # all options but the device
    scale: str  # result of `scale_of`
    signature: str  # signature of the reward when it was calibrated
    count: int  # images with a score
    unscorable: int
    mean: float
    sd: float  # of the sample, n - 1
    percentiles: Mapping[str, float]  # "1" … "99"
    images: str  # SHA-256 over the set of images with their prompts
    created: str  # UTC
    ddpo: str  # version
    schema: int = SCHEMA

    def check(self, card: RewardCard, options: Mapping[str, Any], origin: str, path: str) -> None:
        """Raises unless the scores of a reward are on the scale of this distribution.

        Raises:
            ConfigError: The reward, version, options, weights or file differ, as the message says.
        """
        if self.scale == scale_of(card, options, origin):
            return
        mine = (card.id, card.version, without_placement(options))
        theirs = (self.reward, self.version, dict(self.options))
        names = ("reward", "version", "options")
        found = [
            f"{name} {then}, not {now}"
            for name, then, now in zip(names, theirs, mine, strict=True)
            if then != now
        ]
        difference = "; ".join(found) or "other weights, preprocessing or code"
        advice = f"make one for {card.id!r} with `ddpo rewards calibrate`"
        raise ConfigError(f"z={path} was made with {difference}: {advice}")


def without_placement(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that may change a score: all but the device."""
    return {name: value for name, value in options.items() if name not in PLACEMENT}


def scale_of(card: RewardCard, options: Mapping[str, Any], origin: str) -> str:
    """The fingerprint of everything that fixes the scale of a reward's scores.

    These are its id, version, weights, preprocessing, dtype and options, and the hash of a user's
    file, whose author may forget to raise the version.
    """
    file_hash = origin.partition("sha256:")[2]
    return card.fingerprint(without_placement(options)) + (f"-{file_hash}" if file_hash else "")


def save_reference(reference: ScoreDistribution, path: Path) -> None:
    """Writes a distribution as JSON, atomically.

    Raises:
        StorageFailure: `path` cannot be written.
    """
    write_json(path, asdict(reference))


def load_reference(path: Path) -> ScoreDistribution:
    """The distribution in a file of `save_reference`.

    Raises:
        MissingResourceError: The file does not exist.
        ConfigError: It is not a distribution, is damaged, or was written by a newer ddpo.
    """
    try:
        values = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        advice = f"make it with `ddpo rewards calibrate REWARD IMAGES… --out {path}`"
        raise MissingResourceError(f"z={path}: no such file; {advice}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"z={path} cannot be read as JSON: {error}") from error
    schema = values.get("schema") if isinstance(values, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        versions = f"schema {schema}, this ddpo reads {SCHEMA}"
        raise ConfigError(f"z={path} is of a newer ddpo ({versions}): upgrade ddpo")
    try:
        reference = ScoreDistribution(**values)
        sound = _finite(reference.mean) and _finite(reference.sd) and reference.sd > 0
    except TypeError as error:
        raise ConfigError(
            f"z={path} is not a reference distribution of `ddpo rewards calibrate`"
        ) from error
    if not sound or not isinstance(reference.options, dict) or not isinstance(reference.scale, str):
        raise ConfigError(f"z={path} is damaged: mean {reference.mean}, sd {reference.sd}")
    return reference


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
