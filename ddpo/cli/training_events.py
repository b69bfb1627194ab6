"""The events of a training run as JSON lines on standard output, for programs that follow it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo.cli.console import print_json
from ddpo.io.atomic import printable
from ddpo.io.closing import ClosedOnExit

if TYPE_CHECKING:
    from ddpo.trainer.monitoring.events import Event

__all__ = ["JsonEvents", "print_event"]

NAMES: Final[dict[str, str]] = {
    "Started": "started",
    "Checked": "checked",
    "IterationDone": "iteration",
    "GridSaved": "grid",
    "Checkpointed": "checkpoint",
    "Stopped": "early_stop",
}
"""Name of each event by its class; `Progress` within an iteration is left out."""


class JsonEvents(ClosedOnExit):
    """Prints events as one JSON object a line, as a context manager."""

    def close(self) -> None:
        """Nothing is to be closed."""

    def show(self, event: Event) -> None:
        """Prints one event, unless it is progress within an iteration."""
        name = NAMES.get(type(event).__name__)
        if name is not None:
            print_event(name, **asdict(event))


def print_event(name: str, **facts: Any) -> None:
    """Prints an object with the name of an event and its facts on one line.

    Args:
        name: Name of the event.
        facts: Plain values or paths by name.
    """
    plain = json.loads(json.dumps(facts, default=_text))
    print_json({"event": name, **plain}, indent=None)


def _text(value: object) -> str:
    if isinstance(value, Path):
        return printable(str(value))
    raise TypeError(f"{type(value).__name__} is no plain value")
