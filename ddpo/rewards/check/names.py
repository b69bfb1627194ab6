"""The names of the checks, which are known without importing torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from ddpo.errors import ConfigError
from ddpo.registry import unknown_name

__all__ = ["NAMES", "OF_THE_CARD", "check_names"]

OF_THE_CARD: Final = (
    "card-valid",
    "card-round-trip",
    "card-options",
    "cache-key",
    "light-listing",
    "missing-weights",
    "construction",
)
"""Checks that need no weights."""

NAMES: Final = (
    *OF_THE_CARD,
    "contract",
    "empty-batch",
    "single-picture",
    "order",
    "no-silent-score",
    "batch-invariance",
    "batch-sizes",
    "repeatability",
    "random-state",
    "global-settings",
    "declared-inputs",
    "input-unchanged",
    "pixel-forms",
    "rounding",
    "pixel-scale",
    "picture-modes",
    "picture-sizes",
    "prompt-texts",
    "long-prompt",
    "golden-scores",
    "direction",
    "score-range",
    "gradient",
    "threads",
    "memory",
)
"""All checks, in the order in which they run."""


def check_names(only: Collection[str] | None, expected_failures: Mapping[str, str]) -> None:
    """Refuses unknown checks.

    Args:
        only: names of the checks to run; None for all of them.
        expected_failures: name of a check → reason of its failure.

    Raises:
        UnknownNameError: there is no such check; the message names the nearest.
        ConfigError: an expected failure has no reason.
    """
    for name in (*(only or ()), *expected_failures):
        if name not in NAMES:
            raise unknown_name("check", name, NAMES)
    for name, reason in expected_failures.items():
        if not reason.strip():
            raise ConfigError(f"the expected failure of {name!r} needs a reason")
