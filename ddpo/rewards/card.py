"""`RewardCard`: the facts about a reward as plain data.

Only the standard library is imported, so that listing rewards is fast.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Final, Literal

from ddpo.errors import ConfigError, NewerApiError
from ddpo.io.json_files import JsonError
from ddpo.io.records import record_of
from ddpo.ranges import BILLION, SECONDS, Range, check_numbers
from ddpo.text import byte_size, facts_html, shown_value
from ddpo.word_lists import listed

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
"""Version of the card's fields and of the `Reward` protocol; a card for a newer one is refused."""

LATER_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "aesthetic": ("model",),
    "clip_score": ("model",),
}
"""Options that came to a card without a new version, because no score changes at their default.

At the default they enter no fingerprint, so that older scores stay valid.
"""

CALLS: Final = Range(low=0, high=1000, whole=True)
BATCH_OR_ZERO: Final = Range(low=0, high=BILLION, whole=True)

PLACEMENT: Final = ("device",)
"""Options that choose where a reward runs; they enter no signature and no cache key."""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One weight file or model repository that a reward loads."""

    source: str
    """One of four forms.

    owner/name              a repository of the Hugging Face hub
    owner/name/file         a file of one; of "owner/name/a|b" the first that exists
    https://…               an address
    package:module/file     a file inside an installed package
    file:/path              a file on this machine, named by an option
    """
    revision: str  # commit or tag
    sha256: str | None  # of the file; None for a repository of several files
    megabytes: float  # 0: unknown
    licence: str  # SPDX id or name

    @property
    def size(self) -> str:
        """The size as text."""
        return f"{self.megabytes:g} MB" if self.megabytes else "size not known"


@dataclass(frozen=True, slots=True)
class Golden:
    """A known score: the reward of the fixture image must be `score` ± `tolerance`."""

    fixture: str  # a name of ddpo.rewards.fixtures
    score: float
    tolerance: float
    source: str


@dataclass(frozen=True, slots=True)
class RewardOption:
    """An option of a reward: `--reward name:option=value`, or a keyword of its constructor."""

    name: str
    default: str | float | int | bool | None
    help: str


@dataclass(frozen=True, slots=True)
class Calls:
    """The limits within which the scorer may call a reward."""

    # Concurrent calls. 0: one, or as many as processors for a thread-safe reward on the CPU.
    concurrency: Annotated[int, CALLS] = 0
    timeout_s: Annotated[float | None, SECONDS] = None  # of one call; None: no limit
    # After RewardUnavailable, ConnectionError or TimeoutError.
    retries: Annotated[int, CALLS] = 0
    # Largest number of images per call; 0: the scorer's choice.
    batch: Annotated[int, BATCH_OR_ZERO] = 0

    def __post_init__(self) -> None:
        check_numbers(self, "calls.")


Input = Literal["image", "prompt", "metadata", "context", "group"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RewardCard:
    """The facts about one reward.

    A new scale needs a new id. A new score on the same scale needs a new version, which governs
    whether stored scores are still valid.

    Raises:
        NewerApiError: The card was made for a newer API.
        ConfigError: The id or `load` is malformed, or a list holds something other than words.
    """

    id: str  # lower_snake, or vendor/name for third parties
    version: str
    summary: str  # one line: the quantity that it measures
    load: str  # "module:attribute" of a Reward class, or of a factory taking options as keywords
    family: str  # "pixels", "clip", "vlm", …
    flaws: str  # how it is gamed, and its blind spots
    unit: str = ""
    direction: Literal["higher", "lower"] = "higher"  # is better; a trainer always maximises
    range: tuple[float | None, float | None] = (None, None)
    typical: tuple[float, float, float] | None = None  # 5th, 50th and 95th percentile
    typical_source: str = ""
    inputs: tuple[Input, ...] = ("image",)
    optional: tuple[Input, ...] = ()  # inputs without which an image still has a score
    metadata: tuple[str, ...] = ()  # metadata keys of a prompt on which the score depends
    pixels: Literal["uint8", "float"] = "uint8"  # as scored; for "uint8" floats are rounded
    preprocessing: str = ""  # steps before scoring; part of the signature
    dtype: str = "float64"  # precision of the score; part of the signature
    # Precision on an accelerator, if the reward uses float32 on the CPU; "": the same.
    accelerator_dtype: str = ""
    differentiable: bool = False
    deterministic: bool = True
    batch_invariant: bool = True
    thread_safe: bool = False  # False: the scorer makes one call at a time
    calls: Calls = Calls()
    cache: bool = True  # False: a look-up costs more than the score
    # Encoder shared with other rewards, as named in ddpo.rewards.models.shared_encoders; "": none.
    backbone: str = ""
    device: Literal["cpu", "any"] = "cpu"
    memory_mb: int = 0
    extra: str | None = None  # pip install "distribution[extra]"
    # Distributions, or libjpeg, whose version may change the score; part of the signature.
    libraries: tuple[str, ...] = ()
    weights: tuple[WeightFile, ...] = ()
    code_licence: str = "Apache-2.0"
    paper: str = ""
    # Backbones, data or pixel properties shared with other rewards, which are not independent.
    lineage: tuple[str, ...] = ()
    golden: tuple[Golden, ...] = ()
    options: tuple[RewardOption, ...] = ()
    # "module:function" from (card, options) to the card for these options; None: always this one.
    for_options: str | None = None
    api: int = API_VERSION

    def __post_init__(self) -> None:
        allowed = all(letter.isalnum() or letter in "_-/.+" for letter in self.id)
        if not self.id or self.id != self.id.lower() or not allowed:
            raise ConfigError(
                f"reward id {self.id!r} must be lower-case letters, digits and _ - / . +"
            )
        listed(self, "inputs", "optional", "metadata", "libraries", "lineage")
        if ":" not in self.load:
            raise ConfigError(
                f"card {self.id!r}: load={self.load!r} is not of the form 'module:attribute'"
            )
        if self.api > API_VERSION:
            raise _newer(self.id, self.api)

    def __repr__(self) -> str:
        return f"<card {self.id}: {self.summary}>"

    def _repr_html_(self) -> str:
        options = ", ".join(f"{option.name}={option.default}" for option in self.options)
        facts = {
            "scale": self.scale_text,
            "needs": self.needs_text,
            "options": options,
            "known flaws": self.flaws,
            "source": self.paper,
        }
        return facts_html(f"{self.id}: {self.summary}", facts)

    @property
    def scale_text(self) -> str:
        """Range and unit in words."""
        low, high = (f"{bound:g}" if bound is not None else "" for bound in self.range)
        bounds = f"{low or '−∞'} … {high or '∞'}" if low or high else ""
        if bounds and self.unit:
            return f"{bounds} ({self.unit})"
        return bounds or self.unit or "not stated"

    @property
    def needs_text(self) -> str:
        """Requirements in words: prompts, weights with their size, an extra."""
        size = sum(weight.megabytes for weight in self.weights)
        size_text = byte_size(size * 1e6) if size else "of unknown size"
        things = ["prompt"] if self.needs_prompt else []
        things += [f"weights {size_text}"] if self.weights else []
        things += [f"extra [{self.extra}]"] if self.extra else []
        return ", ".join(things) or "nothing"

    def to_dict(self) -> dict[str, Any]:
        """The card as plain JSON values, without an empty `optional`, unknown to older versions."""
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
        """The card that `to_dict` wrote, also after a round trip through JSON.

        Raises:
            ConfigError: A field is unknown or missing.
        """
        api = values.get("api")
        if type(api) is int and api > API_VERSION:  # whose other fields may differ
            raise _newer(values.get("id"), api)
        known = {field.name for field in fields(cls)}
        if unknown := sorted(map(str, set(values) - known)):
            raise ConfigError(f"not a reward card: unexpected field {unknown[0]!r}")
        try:
            return record_of(cls, values)
        except JsonError as error:
            raise ConfigError(f"not a reward card: {error}") from error

    def fingerprint(self, options: Mapping[str, Any] | None = None) -> str:
        """Sixteen hexadecimal digits that change whenever the score may.

        They depend on id, version, weights, pixels, preprocessing, dtype and options, but not on
        the device: options of `PLACEMENT` count as their default.
        """
        defaults = {option.name: option.default for option in self.options}
        settled = {
            name: defaults.get(name) if name in PLACEMENT else shown_value(name, value)
            for name, value in (options or {}).items()
            if value != defaults.get(name) or name not in LATER_OPTIONS.get(self.id, ())
        }
        weights = [asdict(weight) for weight in self.weights]
        parts = [
            self.id,
            self.version,
            weights,
            self.pixels,
            self.preprocessing,
            self.dtype,
            settled,
        ]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _newer(id: object, api: int) -> NewerApiError:
    text = f"is made for API {api}, this ddpo has {API_VERSION}: upgrade ddpo"
    return NewerApiError(f"card {id!r} {text}")
