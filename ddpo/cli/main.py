"""The program `ddpo`: its commands, and one line with an exit code for each error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, NoReturn

import typer

import ddpo
from ddpo.author_errors import author_failure
from ddpo.cli import algorithms, cache, recipes, rewards, verbosity
from ddpo.cli.commands import Commands, Group
from ddpo.cli.console import echo, one_line_warnings
from ddpo.cli.doctor import doctor_command
from ddpo.cli.evaluate import compare_command, evaluate_command
from ddpo.cli.export import export_command
from ddpo.cli.label import label_command
from ddpo.cli.sample import sample_command
from ddpo.cli.streams import flush_output, open_standard_streams
from ddpo.cli.tracebacks import TRACEBACK_HELP, add_option, follow, show_chain, turn_on
from ddpo.cli.train import train_command
from ddpo.cli.view import view_command
from ddpo.distributed import let_first_process_report
from ddpo.errors import ConfigError, DdpoError, StorageFailure, UserError, one_line, refusal
from ddpo.text import without_controls
from ddpo.weights import offline

INTERRUPTED = 130  # 128 + SIGINT, as shells count
SUMMARY = "Finetune text-to-image diffusion models on rewards, and learn whether they generalised."


class _Program(Group):
    """The commands; what a user mistyped is repeated to the terminal without control characters."""

    def __init__(self, *arguments: Any, **extra: Any) -> None:
        super().__init__(*arguments, **extra)
        add_option(self.commands)

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        with _printable_mistakes():
            return super().make_context(*arguments, **extra)

    def invoke(self, context: Any) -> Any:
        with _printable_mistakes():
            return super().invoke(context)


@contextmanager
def _printable_mistakes() -> Iterator[None]:
    """Escapes control characters in the message of a `typer.BadParameter` and of its kin."""
    try:
        yield
    except Exception as error:
        message = getattr(error, "message", None)
        if isinstance(message, str) and not isinstance(error, DdpoError):
            error.message = without_controls(message)  # type: ignore[attr-defined]
        raise


app = Commands(
    name="ddpo",
    cls=_Program,
    help=SUMMARY,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.add_typer(rewards.app, name="rewards")
app.add_typer(algorithms.app, name="algorithms")
app.add_typer(recipes.app, name="recipes")
app.add_typer(cache.app, name="cache")
app.command("train")(train_command)
app.command("sample")(sample_command)
app.command("eval")(evaluate_command)
app.command("compare")(compare_command)
app.command("label")(label_command)
app.command("export")(export_command)
app.command("view")(view_command)
app.command("doctor")(doctor_command)


def _version(value: bool) -> None:
    if value:
        echo(ddpo.__version__)
        raise typer.Exit


@app.callback(help=SUMMARY)
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help=TRACEBACK_HELP)] = False,
) -> None:
    """Options of the program itself."""
    from ddpo.user_code import forget_loaded_words

    follow()
    turn_on(traceback)
    forget_loaded_words()


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
                app()
        finally:
            flush_output()
    except DdpoError as error:
        _report_error(error)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(1)
    except (Exception, SystemExit) as error:
        failure = author_failure(error)
        if failure is not None:
            _report_error(failure, error)
        if isinstance(error, OSError | MemoryError | ImportError):
            reason = refusal(error)
            if reason is not None:
                _report(f"error: {reason}", 2)
        raise


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
