"""The default folder of a new run."""

from __future__ import annotations

import time
from pathlib import Path

from ddpo.given import MODULE
from ddpo.rewards.spec import redacted

__all__ = ["new_run_folder"]

LONGEST = 60  # letters of the reward's name


def new_run_folder(reward: str) -> Path:
    """runs/<reward>-<time>, without secrets of the reward's options.

    Args:
        reward: Expression of the reward.
    """
    word = redacted(reward).removeprefix(f"{MODULE}:")
    name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in word)
    return Path("runs") / f"{name.strip('-.')[:LONGEST]}-{time.strftime('%Y%m%d-%H%M%S')}"
