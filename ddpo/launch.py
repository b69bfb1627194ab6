"""The processes of a distributed launch, as described by the environment.

`accelerate launch` and `torchrun` set the variables read here. Cluster software sets WORLD_SIZE
too, even for a program of one process.
"""

from __future__ import annotations

import os
from typing import Final

from ddpo.errors import ConfigError

__all__ = ["is_first_process", "load_whole_models", "process_count"]

ADVICE: Final = "start with `accelerate launch`, or unset WORLD_SIZE for a run of one process"
LAST_PORT: Final = 65535


def process_count() -> int:
    """Number of processes that share the work; 1 without a launcher.

    Raises:
        ConfigError: The variables of the launcher are not numbers, or contradict each other.
    """
    text = os.environ.get("WORLD_SIZE", "").strip()
    if not text:
        _check_not_left_alone()
        return 1
    count = _number("WORLD_SIZE", first=1)
    if count > 1:
        _number("RANK", first=0, last=count - 1)
        _number("LOCAL_RANK", first=0, last=count - 1)
        _number("MASTER_PORT", first=1, last=LAST_PORT)
        if not os.environ.get("MASTER_ADDR", "").strip():
            raise ConfigError(f"WORLD_SIZE={text}, but MASTER_ADDR is not set: {ADVICE}")
        if os.environ.get("LOCAL_WORLD_SIZE", "").strip():
            _number("LOCAL_WORLD_SIZE", first=1, last=count)
    return count


def is_first_process() -> bool:
    """True for the first process; also without a launcher, or if its variables are wrong."""
    try:
        return process_count() == 1 or int(os.environ["RANK"]) == 0
    except ConfigError:
        return True


def load_whole_models() -> None:
    """Makes every process load whole models, also under `accelerate launch --use_fsdp`.

    By default that launcher lets only the first process of a machine load the weights. FSDP then
    broadcasts them, but here text encoders and rewards are not sharded.
    """
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


def _number(name: str, first: int, last: int | None = None) -> int:
    """The whole number in an environment variable, from `first` to `last`."""
    text = os.environ.get(name, "").strip()
    if text.isascii() and text.isdigit():
        number = int(text)
        if first <= number and (last is None or number <= last):
            return number
    limits = f"from {first} to {last}" if last is not None else f"from {first} on"
    found = f"{name}={text!r} is not" if text else f"{name} is not set to"
    size = "" if name == "WORLD_SIZE" else f"WORLD_SIZE={os.environ['WORLD_SIZE']}, but "
    raise ConfigError(f"{size}{found} a whole number {limits}: {ADVICE}")


def _check_not_left_alone() -> None:
    """Raises if `accelerate launch --num_processes 2` started one process, as without a GPU."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
    if launched and "WORLD_SIZE" not in os.environ:
        raise ConfigError(
            "accelerate was asked for several processes and started one: "
            "add --multi_gpu to `accelerate launch`, even without a GPU"
        )
