"""Arguments that belong to another command: a reward among runs, and a run among images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from ddpo.errors import ConfigError

__all__ = ["check_no_runs", "check_runs"]

RUN_FILES: Final = ("config.json", "manifest.json")
CHECKPOINT_FILE: Final = "policy.json"


def check_runs(runs: Sequence[str], remedy: str) -> None:
    """Refuses a reward in the place of a run.

    Args:
        runs: Runs, checkpoints or hub ids, as the user gave them.
        remedy: The right command or option for rewards.

    Raises:
        ConfigError: One is a reward; a file or folder of that name is a run.
    """
    from ddpo.rewards.zoo import rewards

    known = set(rewards.names())
    for run in runs:
        name = run.partition(":")[0]
        if name in known and not os.path.exists(run):
            raise ConfigError(f"{run} is a reward, not a run: {remedy}")


def check_no_runs(places: Iterable[Path]) -> None:
    """Refuses runs where rewards are compared on images.

    Raises:
        ConfigError: A place is a run or a checkpoint.
    """
    for place in places:
        if all((place / name).is_file() for name in RUN_FILES):
            kind = "run"
        elif (place / CHECKPOINT_FILE).is_file():
            kind = "checkpoint"
        else:
            continue
        raise ConfigError(
            f"{place} is a {kind}: `ddpo compare` compares runs, "
            "and `ddpo rewards compare` compares rewards on images"
        )
