"""Tracebacks of authors' exceptions on request: `--traceback`, or DDPO_TRACEBACK=1."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final

import typer

from ddpo.author_errors import author_place
from ddpo.cli.console import echo

__all__ = ["ENVIRONMENT", "TRACEBACK_HELP", "add_option", "follow", "show_chain", "turn_on"]

ENVIRONMENT: Final = "DDPO_TRACEBACK"
TRACEBACK_HELP: Final = (
    "Tracebacks of failing rewards, algorithms, models and packages. "
    f"{ENVIRONMENT}=1 does the same."
)
LOGGER: Final = "ddpo.author_errors"


class _Tracebacks(logging.Handler):
    """Prints the traceback of a record to standard error, each once."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the traceback of a record."""
        if record.exc_info and record.exc_info[1] is not None:
            self.show(record.exc_info[1])

    def show(self, error: BaseException) -> None:
        """Prints the traceback of an exception and of its causes."""
        text = "".join(traceback.format_exception(error)).rstrip()
        if text not in self._shown:
            self._shown.add(text)
            echo(text, err=True)

    def forget(self) -> None:
        """Prints all again."""
        self._shown.clear()


_handler = _Tracebacks()


def follow() -> None:
    """Makes the environment decide, as at the start of a program."""
    logger = logging.getLogger(LOGGER)
    logger.removeHandler(_handler)
    logger.setLevel(logging.NOTSET)
    _handler.forget()
    value = os.environ.get(ENVIRONMENT, "").strip().lower()
    if value not in ("", "0", "false", "no", "off"):
        turn_on(True)


def turn_on(value: bool) -> None:
    """Prints tracebacks from now on, if `value` is true."""
    if value:
        logger = logging.getLogger(LOGGER)
        logger.setLevel(logging.DEBUG)
        logger.addHandler(_handler)


def show_chain(error: BaseException) -> None:
    """Prints the authors' exceptions behind an error that ends the program, if that is on."""
    found: BaseException | None = error
    while found is not None and _handler in logging.getLogger(LOGGER).handlers:
        if author_place(found) is not None:
            _handler.show(found)
        found = found.__cause__


def add_option(commands: Mapping[str, Any]) -> None:
    """Adds `--traceback` to commands and, for groups, to theirs.

    Args:
        commands: Name → command.
    """
    for command in commands.values():
        if isinstance(command, typer.core.TyperGroup):
            add_option(command.commands)
        elif all("--traceback" not in option.opts for option in command.params):
            command.params.append(_option())


@cache
def _option() -> Any:
    """The option, made by typer as for any command, whose value no command receives."""
    app = typer.Typer(add_completion=False)
    app.command()(_turned_on)
    made = next(option for option in typer.main.get_command(app).params if option.name == "on")
    made.expose_value = False
    return made


def _turned_on(
    on: Annotated[
        bool, typer.Option("--traceback", callback=turn_on, is_eager=True, help=TRACEBACK_HELP)
    ] = False,
) -> None:
    """The command whose option the others get."""
