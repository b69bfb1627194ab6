"""The line that fixes a score, in the manner of sacreBLEU: two scores with the same signature may be compared."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from ddpo.devices import AUTO, accelerator
from ddpo.rewards.card import PLACEMENT, RewardCard, WeightFile
from ddpo.rewards.code import files_digest
from ddpo.user_code import source_digest

__all__ = ["identity", "signature"]

JPEG_CODEC: Final = (
    "libjpeg"  # among a card's libraries: the codec inside Pillow, of which there are several
)
STAND_INS: Final[Mapping[str, tuple[str, ...]]] = {
    "pillow": ("pillow-simd",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
    "opencv-python-headless": (
        "opencv-python",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    ),
}
"""Distributions that bring the same module as another one."""


def signature(
    card: RewardCard, options: Mapping[str, Any] | None = None, origin: str = "ddpo"
) -> str:
    """`reward:id|version:…|card:fingerprint|pixels:…|preprocessing:…|dtype:…|weights:…|options:…|library:version…|ddpo:version`.

    Options at their default are left out of `options`; all of them enter the fingerprint.
    """
    return "|".join(f"{name}:{value}" for name, value in _parts(card, options, origin).items())


def identity(
    card: RewardCard, options: Mapping[str, Any] | None = None, origin: str = "ddpo"
) -> str:
    """What may move a score: the signature, with the state of the reward's source and local files in place of ddpo's version.

    It is the reward's part of a cache key.
    """
    parts = {name: value for name, value in _parts(card, options, origin).items() if name != "ddpo"}
    if "sha256:" not in origin:  # which is that of the source
        parts["source"] = source_digest(card.load.partition(":")[0]) or "unknown"
    if files := files_digest((options or {}).values()):
        parts["files"] = files
    return "|".join(f"{name}:{value}" for name, value in parts.items())


def _parts(card: RewardCard, options: Mapping[str, Any] | None, origin: str) -> dict[str, str]:
    chosen = {name: value for name, value in (options or {}).items() if name not in PLACEMENT}
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
    """The precision of a reward where it runs: on the CPU and on an accelerator it may differ, and so may scores."""
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
    """The version of a library, or name and version of each distribution that may stand in its place."""
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
    """Name and version of the JPEG codec with which Pillow was built; it may be the system's."""
    from PIL import features

    if features.check_feature("libjpeg_turbo"):
        kind = "mozjpeg" if features.check_feature("mozjpeg") else "turbo"
        return f"{kind} {features.version_feature('libjpeg_turbo')}"
    return f"plain {features.version_codec('jpg')}"
