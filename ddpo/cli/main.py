"""The program `ddpo`: one line with an exit code for each error of its commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import NoReturn

import typer

from ddpo.author_errors import author_failure
from ddpo.cli import verbosity
from ddpo.cli.app import app
from ddpo.cli.console import echo, one_line_warnings
from ddpo.cli.streams import flush_output, open_standard_streams
from ddpo.cli.tracebacks import show_chain
from ddpo.distributed import let_first_process_report
from ddpo.errors import ConfigError, DdpoError, StorageFailure, UserError, one_line, refusal
from ddpo.weights import offline

__all__ = ["app", "main"]

INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main() -> None:
    """Runs the command line; an error is one line on standard error.

    Exit code 2 stands for a user's mistake or a refusal of the machine, 1 for a failure of a reward
    or of the training, or for a reader of the output that is gone. 130 stands for Ctrl-C.
    """
    open_standard_streams()
    verbosity.reset()
    if offline():
        os.environ["HF_HUB_OFFLINE"] = "1"  # the hub's client reads it once, at its import
    try:
        _check_working_folder()
        try:
            with one_line_warnings():
                _program()()
        finally:
            flush_output()
    except DdpoError as error:
        _report_error(error)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(1)
    except BaseException as error:
        failure = author_failure(error)
        if failure is not None:
            _report_error(failure, error)
        if isinstance(error, OSError | MemoryError | ImportError):
            reason = refusal(error)
            if reason is not None:
                _report(f"error: {reason}", 2)
        raise


@cache
def _program() -> Callable[[], object]:
    """The parser of all commands, which takes a tenth of a second to make."""
    return typer.main.get_command(app)


def _report_error(error: DdpoError, cause: BaseException | None = None) -> NoReturn:
    """Ends the program with the line of an error, after its traceback if that is asked for."""
    show_chain(cause or error)
    if isinstance(error, UserError):
        _report(f"error: {one_line(error)}", 2)
    _report(f"failed: {one_line(error)}", 1)


def _check_working_folder() -> None:
    """Refuses to work in a folder that was deleted, in which libraries end the process.

    Raises:
        ConfigError: The working folder is gone or cannot be read.
    """
    try:
        os.getcwd()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"the current folder cannot be used: {reason}; change to another folder"
        ) from error


def _report(line: str, code: int) -> NoReturn:
    """Prints the line of an error and ends the program."""
    let_first_process_report()
    with suppress(StorageFailure, BrokenPipeError):
        flush_output()
    echo(line, fg="red", err=True)
    sys.exit(code)
