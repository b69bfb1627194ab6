"""The log of the server: one short line per event, and few lines of one kind."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from ddpo.errors import one_line
from ddpo.io.atomic import printable
from ddpo.text import shortened

__all__ = ["LOGGER", "LOG_CONFIG", "FewLines", "OneLine"]

LOGGER: Final = "ddpo.web"
PERIOD: Final = 60.0  # seconds
MOST_LINES: Final = 30  # per period, of all kinds
LINE: Final = 400  # characters
KIND: Final = 100  # characters that distinguish kinds


class FewLines(logging.Filter):
    """Lets one line of each kind through per minute, with the number of those left out before.

    The kind of a line is its logger and the start of its message before values are filled in.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._ends = 0.0
        self._counts: dict[tuple[str, str], int] = {}
        self._before: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """True for a line that is to be written."""
        kind = (record.name, str(record.msg).partition("\n")[0][:KIND])
        with self._lock:
            now = time.monotonic()
            if now >= self._ends:
                self._ends = now + PERIOD
                self._before = {one: count - 1 for one, count in self._counts.items() if count > 1}
                self._counts = {}
            if kind not in self._counts and len(self._counts) >= MOST_LINES:
                return False
            self._counts[kind] = self._counts.get(kind, 0) + 1
            record.more = self._before.pop(kind, 0)
            return self._counts[kind] == 1


class OneLine(logging.Formatter):
    """The time, level and message on one line without control characters, and no traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        text = record.getMessage().partition("\n")[0]
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {one_line(record.exc_info[1])}"
        more = getattr(record, "more", 0)
        repeated = f" ({more} more of this kind in the minute before)" if more else ""
        time_of_day = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
        level = record.levelname.lower()
        return f"{time_of_day} {level}: {printable(shortened(text, LINE))}{repeated}"


def _limited(*names: str) -> dict[str, Any]:
    return {name: {"handlers": ["lines"], "level": "WARNING", "propagate": False} for name in names}


LOG_CONFIG: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"few": {"()": FewLines}},
    "formatters": {"line": {"()": OneLine}},
    "handlers": {
        "lines": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stderr",
            "filters": ["few"],
            "formatter": "line",
        }
    },
    "loggers": _limited("uvicorn", "asyncio", "concurrent.futures", LOGGER),
}
"""The configuration of `logging` for `uvicorn` and everything below it."""
