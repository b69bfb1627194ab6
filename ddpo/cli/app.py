"""The commands of `ddpo` and its own options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Final

import typer

import ddpo
from ddpo.cli import algorithms, cache, models, recipes, rewards
from ddpo.cli.commands import Commands, Group
from ddpo.cli.console import echo
from ddpo.cli.doctor import doctor_command
from ddpo.cli.evaluate import compare_command, evaluate_command
from ddpo.cli.export import export_command
from ddpo.cli.label import label_command
from ddpo.cli.sample import sample_command
from ddpo.cli.tracebacks import TRACEBACK_HELP, add_option, follow, turn_on
from ddpo.cli.train import train_command
from ddpo.cli.view import view_command
from ddpo.errors import DdpoError
from ddpo.text import without_controls

__all__ = ["app"]

SUMMARY: Final = (
    "Finetune text-to-image diffusion models on rewards, and learn whether they generalised."
)


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
            with suppress(AttributeError):  # errors of templates cannot be changed
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
app.add_typer(models.app, name="models")
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
