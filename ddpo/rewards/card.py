"""`RewardCard`: what there is to know about a reward, as pure data. Standard library only, so that listing is fast."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ddpo.errors import ConfigError, NewerApiError

__all__ = [
    "API_VERSION",
    "PLACEMENT",
    "Calls",
    "Golden",
    "RewardCard",
    "RewardOption",
    "WeightFile",
]

API_VERSION = 1
"""The version of the card's fields and of the `Reward` protocol; a card made for a newer one is refused."""

PLACEMENT: Final = ("device",)
"""Options that say where a reward runs. No score depends on them: they enter no signature and no cache key."""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One weight file or model repository that a reward loads."""

    source: str
    """One of four forms.

    owner/name, owner/name/file     a repository of the Hugging Face hub, or a file of one; of "owner/name/a|b" the first that exists
    https://…                       an address
    package:module/file             a file inside an installed package
    file:/path                      a file on this machine, which an option names
    """
    revision: str  # commit or tag
    sha256: str | None  # of the file; None where a repository of several files is meant
    megabytes: float  # 0: not known
    licence: str  # SPDX id or name

    @property
    def size(self) -> str:
        """The size in words."""
        return f"{self.megabytes:g} MB" if self.megabytes else "size not known"


@dataclass(frozen=True, slots=True)
class Golden:
    """A score known from elsewhere: the reward of fixture picture `fixture` must be `score` ± `tolerance`."""

    fixture: str  # a name of ddpo.rewards.fixtures
    score: float
    tolerance: float
    source: str


@dataclass(frozen=True, slots=True)
class RewardOption:
    """An option of a reward, given as `--reward name:option=value` or as a keyword of its constructor."""

    name: str
    default: str | float | int | bool | None
    help: str


@dataclass(frozen=True, slots=True)
class Calls:
    """How the scorer may call a reward."""

    concurrency: int = (
        0  # calls at once; 0: as many as processors for a thread-safe reward on the CPU, else one
    )
    timeout_s: float | None = None  # of one call; None: no limit
    retries: int = 0  # of a call that raised RewardUnavailable, ConnectionError or TimeoutError
    batch: int = 0  # pictures in one call, at most; 0: as many as the scorer likes


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardCard:
    """The facts about one reward. A new scale needs a new id; a new score on the old scale a new version.

    Raises:
        NewerApiError: the card was made for a newer API.
        ConfigError: the id or `load` has not the right form.
    """

    id: str  # lower_snake, or vendor/name for third parties
    version: str
    summary: str  # one line: what it measures
    load: str  # "module:attribute" of a Reward class or a factory taking the options as keywords
    family: str  # "pixels", "clip", "vlm", …
    flaws: str  # how it gets gamed, what it cannot see
    unit: str = ""
    direction: Literal["higher", "lower"] = (
        "higher"  # which way is better, for a reader; a trainer always maximises
    )
    range: tuple[float | None, float | None] = (None, None)
    typical: tuple[float, float, float] | None = None  # 5th, 50th and 95th percentile
    typical_source: str = ""
    inputs: tuple[Literal["image", "prompt", "metadata", "context", "group"], ...] = ("image",)
    optional: tuple[
        Literal["image", "prompt", "metadata", "context", "group"], ...
    ] = ()  # inputs that a score can do without
    metadata: tuple[str, ...] = ()  # the keys of a prompt's metadata that the score depends on
    pixels: Literal["uint8", "float"] = (
        "uint8"  # the form that is scored; "uint8" means that floats are rounded first
    )
    preprocessing: str = ""  # what is done to the pixels before scoring; part of the signature
    dtype: str = "float64"  # in which the score is computed; part of the signature
    accelerator_dtype: str = (
        ""  # precision on an accelerator, of a reward that takes float32 on the CPU; "": the same
    )
    differentiable: bool = False
    deterministic: bool = True
    batch_invariant: bool = True
    thread_safe: bool = False  # several threads may call one instance at once; else the scorer lets one in at a time
    calls: Calls = Calls()
    cache: bool = True  # False: looking a score up costs more than computing it
    backbone: str = ""  # the tower it shares with other rewards, as named in ddpo.rewards.models.shared_encoders; "": none
    device: Literal["cpu", "any"] = "cpu"
    memory_mb: int = 0
    extra: str | None = None  # pip install "distribution[extra]"
    libraries: tuple[
        str, ...
    ] = ()  # distributions, or libjpeg, whose version may move the score; part of the signature
    weights: tuple[WeightFile, ...] = ()
    code_licence: str = "Apache-2.0"
    paper: str = ""
    lineage: tuple[
        str, ...
    ] = ()  # backbones, data or, of pixel statistics, properties that it shares with other rewards: not independent
    golden: tuple[Golden, ...] = ()
    options: tuple[RewardOption, ...] = ()
    for_options: str | None = (
        None  # "module:function": (card, options) → the card that holds for them; None: it is always this one
    )
    api: int = API_VERSION

    def __post_init__(self) -> None:
        if (
            not self.id
            or self.id != self.id.lower()
            or not all(c.isalnum() or c in "_-/.+" for c in self.id)
        ):
            raise ConfigError(
                f"reward id {self.id!r} must be lower-case letters, digits and _ - / . +"
            )
        if ":" not in self.load:
            raise ConfigError(
                f"card {self.id!r}: load={self.load!r} is not of the form 'module:attribute'"
            )
        if self.api > API_VERSION:
            raise NewerApiError(
                f"card {self.id!r} is made for API {self.api}, this ddpo has {API_VERSION}: upgrade ddpo"
            )

    def to_dict(self) -> dict[str, Any]:
        """The card as plain JSON values; without `optional` if it is empty, since older versions do not know it."""
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return {name: value for name, value in values.items() if name != "optional" or value}

    @property
    def needs_prompt(self) -> bool:
        """True if an image without a prompt has no score."""
        return "prompt" in self.inputs and "prompt" not in self.optional

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RewardCard:
        """The card that `to_dict` gave, also after a trip through JSON.

        Raises:
            ConfigError: an unknown or missing field.
        """
        nested = {"weights": WeightFile, "golden": Golden, "options": RewardOption}
        try:
            fields: dict[str, Any] = {
                name: tuple(nested[name](**part) for part in value)
                if name in nested
                else tuple(value)
                if isinstance(value, list)
                else value
                for name, value in values.items()
            }
            if isinstance(fields.get("calls"), Mapping):
                fields["calls"] = Calls(**fields["calls"])
            return cls(**fields)
        except TypeError as error:
            raise ConfigError(f"not a reward card: {error}") from error

    def fingerprint(self, options: Mapping[str, Any] | None = None) -> str:
        """Sixteen hexadecimal digits that change whenever the score may: id, version, weights, preprocessing, dtype, options.

        Where it runs does not count: options of `PLACEMENT` stand at their default.
        """
        defaults = {option.name: option.default for option in self.options}
        settled = {
            name: defaults.get(name) if name in PLACEMENT else value
            for name, value in (options or {}).items()
        }
        parts = [
            self.id,
            self.version,
            [asdict(w) for w in self.weights],
            self.pixels,
            self.preprocessing,
            self.dtype,
            settled,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[
            :16
        ]
