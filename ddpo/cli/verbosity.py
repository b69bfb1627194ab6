"""Amount of a command's output besides its results: less with -q, a log with -v."""

from __future__ import annotations

import logging
from typing import Final

import typer

from ddpo.errors import ConfigError
from ddpo.text import without_controls

__all__ = ["LOGGER", "is_quiet", "reset", "set_quiet", "set_verbose"]

LOGGER: Final = "ddpo"
"""Logger above those of all modules of ddpo."""

FORMAT: Final = "%(levelname)s %(name)s: %(message)s"
DEBUG_COUNT: Final = 2  # number of -v that shows details too


class _Log(logging.Handler):
    """Prints records on standard error, without control characters."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one record."""
        typer.echo(without_controls(self.format(record)), err=True)


class _State:
    """The verbosity of the command that runs in this process."""

    quiet = False
    log: _Log | None = None


def is_quiet() -> bool:
    """True if progress, notes and warnings are left out."""
    return _State.quiet


def set_quiet() -> None:
    """Leaves out progress, notes and warnings.

    Raises:
        ConfigError: The log is requested too.
    """
    _State.quiet = True
    _check()


def set_verbose(times: int) -> None:
    """Shows ddpo's log on standard error.

    Args:
        times: Number of -v; from 2 on the log has details.

    Raises:
        ConfigError: Quiet is requested too.
    """
    _reset_log()
    handler = _Log()
    handler.setFormatter(logging.Formatter(FORMAT))
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if times >= DEBUG_COUNT else logging.INFO)
    _State.log = handler
    _check()


def reset() -> None:
    """Goes back to the verbosity of a command without -q and -v."""
    _State.quiet = False
    _reset_log()


def _reset_log() -> None:
    """Removes the log of an earlier command from ddpo's logger."""
    if _State.log is not None:
        logger = logging.getLogger(LOGGER)
        logger.removeHandler(_State.log)
        logger.setLevel(logging.NOTSET)
        _State.log = None


def _check() -> None:
    if _State.quiet and _State.log is not None:
        raise ConfigError("--quiet and --verbose contradict each other: give one of them")
