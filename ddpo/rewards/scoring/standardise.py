"""Score distributions on disk, by which the scores of a reward can be standardised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.io.atomic import write_json
from ddpo.io.fields import COUNT, SHORT, Fields, MapOf, Real, Whole
from ddpo.io.json_files import JsonError, check_fields, read_json
from ddpo.rewards.card import PLACEMENT, RewardCard

__all__ = [
    "ScoreDistribution",
    "load_reference",
    "save_reference",
    "scale_of",
    "without_placement",
]

SCHEMA: Final = 1
LEAST_SD: Final = 5e-324  # the least number above 0
FIELDS: Final[Fields] = {
    "reward": SHORT,
    "version": SHORT,
    "options": dict,
    "scale": SHORT,
    "signature": str,
    "count": COUNT,
    "unscorable": COUNT,
    "mean": Real(),
    "sd": Real(LEAST_SD),
    "percentiles": MapOf(Real()),
    "images": SHORT,
    "created": SHORT,
    "ddpo": SHORT,
    "schema": Whole(1, SCHEMA),
}
"""Fields of `ScoreDistribution` in a file."""


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
    sha256: str = field(default="", compare=False)  # of all other values; "" in older files

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
    values = asdict(reference)
    write_json(path, values | {"sha256": _checksum(values)})


def load_reference(path: Path) -> ScoreDistribution:
    """The distribution in a file of `save_reference`.

    Raises:
        MissingResourceError: The file does not exist.
        ConfigError: It is not a distribution, is damaged, or was written by a newer ddpo.
    """
    if not path.exists():
        advice = f"make it with `ddpo rewards calibrate REWARD IMAGES… --out {path}`"
        raise MissingResourceError(f"z={path}: no such file; {advice}")
    try:
        values = read_json(path, error=ConfigError)
    except ConfigError as error:
        reason = str(error).removeprefix(f"{path} ")
        raise ConfigError(f"z={path} cannot be read as JSON: {reason}") from error
    schema = values.get("schema")
    if type(schema) is int and schema > SCHEMA:
        versions = f"schema {schema}, this ddpo reads {SCHEMA}"
        raise ConfigError(f"z={path} is of a newer ddpo ({versions}): upgrade ddpo")
    written = values.get("sha256")
    if written and written != _checksum(values):
        raise ConfigError(
            f"z={path} is damaged: its content has changed since it was written, by its SHA-256; "
            "make it again with `ddpo rewards calibrate`"
        )
    if not {"reward", "mean", "sd", "scale"} <= set(values):
        raise ConfigError(f"z={path} is not a reference distribution of `ddpo rewards calibrate`")
    try:
        check_fields(values, FIELDS)
    except JsonError as error:
        raise ConfigError(f"z={path} is damaged: {error}") from error
    return ScoreDistribution(**{name: values[name] for name in FIELDS})


def _checksum(values: Mapping[str, Any]) -> str:
    """SHA-256 of all values but the checksum itself and the time, so that equal ones are equal."""
    others = {name: value for name, value in values.items() if name not in ("sha256", "created")}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()
