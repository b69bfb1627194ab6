"""Several processes of one run have one voice: the first's."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from types import FrameType
from typing import Final

import typer

from ddpo.launch import is_first_process

__all__ = ["follow_quietly", "let_the_first_speak"]

WAIT: Final = 10.0  # seconds


def let_the_first_speak() -> None:
    """Called before an error is printed.

    An error of all processes is printed by the first, whereupon the launcher ends the others while they wait here. What is still here
    afterwards has an error of its own.
    """
    if not is_first_process():
        time.sleep(WAIT)


def follow_quietly(events: Iterable[object]) -> None:
    """What the other processes do with a run's events. After Ctrl-C the first process decides when to stop; they break off when it has."""
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True

    signal.signal(signal.SIGINT, interrupt)
    try:
        for _ in events:
            pass
    except Exception:
        if interrupted:
            raise typer.Exit(130) from None
        raise
