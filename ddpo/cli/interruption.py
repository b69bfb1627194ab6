"""Ctrl-C during a run: what is being written is finished; pressed again, it stops at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

import typer

__all__ = ["Interruption"]


class Interruption:
    """Use as a context manager around a loop over events, in the main thread.

    Before `arm` is called Ctrl-C raises KeyboardInterrupt as always; after it, the first one only sets `asked`, for the loop to stop
    where nothing is half done. Where Ctrl-C is ignored or handled by somebody else, that stays as it is.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Interruption:
        return self

    def arm(self) -> None:
        """From now on the first Ctrl-C waits for the loop."""
        if self._before is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()
        typer.echo("Stopping after the step under way; Ctrl-C again stops at once.", err=True)

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()
