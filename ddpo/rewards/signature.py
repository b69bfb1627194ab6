"""The line that fixes a score, in the manner of sacreBLEU: two scores with the same signature may be compared."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ddpo.loading import source_digest
from ddpo.rewards.card import PLACEMENT, RewardCard, WeightFile
from ddpo.rewards.code import files_digest

__all__ = ["identity", "signature"]


def signature(card: RewardCard, options: Mapping[str, Any] | None = None, origin: str = "ddpo") -> str:
    """`reward:id|version:…|card:fingerprint|pixels:…|preprocessing:…|dtype:…|weights:…|options:…|library:version…|ddpo:version`.

    Options at their default are left out of `options`; all of them enter the fingerprint.
    """
    return "|".join(f"{name}:{value}" for name, value in _parts(card, options, origin).items())


def identity(card: RewardCard, options: Mapping[str, Any] | None = None, origin: str = "ddpo") -> str:
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
    changed = ",".join(f"{name}={value}" for name, value in sorted(chosen.items()) if value != defaults.get(name))
    parts = {
        "reward": card.id,
        "version": card.version,
        "card": card.fingerprint({**defaults, **chosen}),
        "pixels": card.pixels,
        "preprocessing": card.preprocessing or "not stated",
        "dtype": chosen.get("dtype") or card.dtype,
        "weights": "+".join(_short(weight) for weight in card.weights) or "none",
        "options": changed or "default",
    }
    if origin != "ddpo":
        parts["origin"] = origin
    parts |= {library: _version(library) for library in card.libraries}
    parts["ddpo"] = _version("ddpo")
    return {name: " ".join(str(value).replace("|", "/").split()) for name, value in parts.items()}


def _short(weight: WeightFile) -> str:
    name = weight.source.rstrip("/").rpartition("/")[2]
    return f"{name}@{f'sha256-{weight.sha256[:12]}' if weight.sha256 else weight.revision[:12]}"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
