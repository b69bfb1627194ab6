"""Ctrl-C during a run: the first stops it after the step under way, the second at once."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from ddpo.cli.console import echo
from ddpo.io.closing import ClosedOnExit

__all__ = ["Interruption"]


class Interruption(ClosedOnExit):
    """Context manager around a loop over events, in the main thread, that defers Ctrl-C.

    Before `arm` is called, Ctrl-C raises KeyboardInterrupt as usual. After it, the first Ctrl-C
    only sets `asked`, so that the loop can stop where nothing is half written. A handler of
    somebody else, and an ignored Ctrl-C, stay as they are.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def arm(self) -> None:
        """Lets the first Ctrl-C wait for the loop from now on."""
        if self._before is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.close()
        echo("Stopping after the step under way; Ctrl-C again stops at once.", err=True)

    def close(self) -> None:
        """Gives Ctrl-C its meaning of before."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
