"""The signature of a score, in the manner of sacreBLEU: scores with the same one are comparable."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from ddpo.devices import AUTO, accelerator
from ddpo.rewards.card import PLACEMENT, RewardCard, WeightFile
from ddpo.rewards.code import files_digest
from ddpo.rewards.hub_cache import floating_commits
from ddpo.rewards.spec import EMBEDDED_OPTION
from ddpo.text import shown_value
from ddpo.user_code import source_digest

__all__ = ["identity", "signature"]

# Among a card's libraries: the codec inside Pillow, of which there are several.
JPEG_CODEC: Final = "libjpeg"
STAND_INS: Final[Mapping[str, tuple[str, ...]]] = {
    "pillow": ("pillow-simd",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
    "opencv-python-headless": (
        "opencv-python",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    ),
}
"""Distributions that provide the same module as another one."""

FIRST_SOURCES: Final[Mapping[tuple[str, str], str]] = {
    ("colorfulness", "1"): "d89f6fe9961a",
    ("contrast", "1"): "f8622e99a926",
    ("darkness", "1"): "97d655c36dfa",
    ("diversity_dino", "1"): "b4c168e2013d",
    ("diversity_lpips", "1"): "b4c168e2013d",
    ("edge_density", "1"): "6b8c4433c6e9",
    ("entropy", "1"): "2033d04c48de",
    ("high_frequency", "1"): "32010d98d13f",
    ("imagereward", "1"): "f2bac907cbaa",
    ("nsfw", "1"): "7071c37bb8c8",
    ("pickscore", "1"): "6b54c93f5d82",
    ("rotation_symmetry", "1"): "2c17a0a96284",
    ("saturation", "1"): "b3adcb19ab68",
    ("sharpness", "1"): "72e2cb1c5181",
    ("symmetry", "1"): "2c17a0a96284",
    ("vendi", "1"): "53fbe60e388b",
}
"""Id and version of a reward → text after `source:` in its identity, fixed once and for all.

Identities once held a digest of the module's source. These constants keep the scores of that time
valid. Never recompute them, and add none: a new version of a card has no such field.
"""
FIRST_COMPOSED_SOURCE: Final = "2ab3fe50fad5"
"""The same text for combinations of rewards."""


def signature(
    card: RewardCard, options: Mapping[str, Any] | None = None, origin: str = "ddpo"
) -> str:
    """`reward:id|version:…|card:fingerprint|pixels:…|…|options:…|library:version…|ddpo:version`.

    `options` lacks those at their default; all of them enter the fingerprint.
    """
    return "|".join(f"{name}:{value}" for name, value in _parts(card, options, origin).items())


def identity(
    card: RewardCard, options: Mapping[str, Any] | None = None, origin: str = "ddpo"
) -> str:
    """The fields of the signature that may change a score: the reward's part of a cache key.

    The state of a plug-in's source and of local files stands in place of ddpo's version. For the
    rewards of this package the card's version governs, so that a reworded comment keeps scores
    valid. The hash of a user's file is in its origin. Weights that a card names by a branch of the
    hub count by the commit that lies in the hub's cache.
    """
    parts = {name: value for name, value in _parts(card, options, origin).items() if name != "ddpo"}
    if source := _source(card, origin):
        parts["source"] = source
    places = [option[1] for option in (options or {}).items() if option != EMBEDDED_OPTION]
    if files := files_digest(places):
        parts["files"] = files
    if commits := floating_commits(card, options or {}):
        parts["commits"] = "+".join(f"{name}@{commit}" for name, commit in commits.items())
    return "|".join(f"{name}:{value}" for name, value in parts.items())


def _source(card: RewardCard, origin: str) -> str:
    """The text after `source:` in an identity; "" for no such field."""
    if "sha256:" in origin:  # of the source already
        return ""
    module = card.load.partition(":")[0]
    if module.partition(".")[0] != "ddpo":
        return source_digest(module) or "unknown"
    if card.family == "composed":
        return FIRST_COMPOSED_SOURCE
    return FIRST_SOURCES.get((card.id, card.version), "")


def _parts(card: RewardCard, options: Mapping[str, Any] | None, origin: str) -> dict[str, str]:
    chosen = {
        name: shown_value(name, value)
        for name, value in (options or {}).items()
        if name not in PLACEMENT
    }
    defaults = {option.name: option.default for option in card.options}
    changed = ",".join(
        f"{name}={value}" for name, value in sorted(chosen.items()) if value != defaults.get(name)
    )
    parts = {
        "reward": card.id,
        "version": card.version,
        "card": card.fingerprint({**defaults, **chosen}),
        "pixels": card.pixels,
        "preprocessing": card.preprocessing or "not stated",
        "dtype": chosen.get("dtype") or _precision(card, options or {}),
        "weights": "+".join(_weight_text(weight) for weight in card.weights) or "none",
        "options": changed or "default",
    }
    if origin != "ddpo":
        parts["origin"] = origin
    parts |= {library: _version(library) for library in card.libraries}
    parts["ddpo"] = _version("ddpo")
    return {name: " ".join(str(value).replace("|", "/").split()) for name, value in parts.items()}


def _precision(card: RewardCard, options: Mapping[str, Any]) -> str:
    """The precision where the reward runs; on an accelerator it may differ from the CPU's."""
    served = any(str(value).startswith(("http://", "https://")) for value in options.values())
    if not card.accelerator_dtype or served:
        return card.dtype
    device = str(options.get("device", AUTO))
    kind = accelerator() or "cpu" if device == AUTO else device.partition(":")[0]
    return "float32" if kind == "cpu" else card.accelerator_dtype


def _weight_text(weight: WeightFile) -> str:
    name = weight.source.rstrip("/").rpartition("/")[2]
    return f"{name}@{f'sha256-{weight.sha256[:12]}' if weight.sha256 else weight.revision[:12]}"


def _version(library: str) -> str:
    """The version of a library, or name and version of each distribution that replaces it."""
    if library == JPEG_CODEC:
        return _jpeg_codec()
    found = {name: _installed(name) for name in (library, *STAND_INS.get(library, ()))}
    present = {name: number for name, number in found.items() if number}
    if set(present) <= {library}:
        return present.get(library, "not installed")
    return "+".join(f"{name} {number}" for name, number in present.items())


def _installed(distribution: str) -> str:
    """The version of a distribution; "" if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _jpeg_codec() -> str:
    """Name and version of the JPEG codec with which Pillow was built."""
    from PIL import features

    if features.check_feature("libjpeg_turbo"):
        kind = "mozjpeg" if features.check_feature("mozjpeg") else "turbo"
        return f"{kind} {features.version_feature('libjpeg_turbo')}"
    return f"plain {features.version_codec('jpg')}"
