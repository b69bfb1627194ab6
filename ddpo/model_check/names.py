"""The names of the checks, which a command needs before it imports torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ddpo.registry import unknown_name

__all__ = ["FIRST", "NAMES", "check_names"]

FIRST: Final = "construction"
"""The check that runs before all others; they are skipped if it fails."""
NAMES: Final = (
    FIRST,
    "trained-weights",
    "conditioning-per-item",
    "prediction-per-item",
    "decoding",
    "random-state",
    "marginal",
    "log-prob",
    "equal-images",
    "ratio-float32",
    "ratio-bfloat16",
    "ratio-float16",
    "gradient",
    "reference",
    "lora-there-and-back",
    "resume",
    "memory",
)
"""All names, in the order in which the checks run."""


def check_names(names: Iterable[str]) -> None:
    """Refuses a name that no check has.

    Raises:
        UnknownNameError: There is no such check; the message names the nearest.
    """
    for name in names:
        if name not in NAMES:
            raise unknown_name("check", name, NAMES)
