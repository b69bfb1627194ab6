"""The program `ddpo`: its commands, and one line with an exit code for each error."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

import ddpo
from ddpo.cli import cache, recipes, rewards
from ddpo.cli.doctor import doctor_command
from ddpo.cli.evaluate import compare_command, evaluate_command
from ddpo.cli.export import export_command
from ddpo.cli.sample import sample_command
from ddpo.cli.train import train_command
from ddpo.distributed import let_first_process_report
from ddpo.errors import DdpoError, UserError, one_line
from ddpo.weights import offline

SUMMARY = "Finetune text-to-image diffusion models on rewards, and learn whether they generalised."

app = typer.Typer(
    name="ddpo",
    help=SUMMARY,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(rewards.app, name="rewards")
app.add_typer(recipes.app, name="recipes")
app.add_typer(cache.app, name="cache")
app.command("train")(train_command)
app.command("sample")(sample_command)
app.command("eval")(evaluate_command)
app.command("compare")(compare_command)
app.command("export")(export_command)
app.command("doctor")(doctor_command)


def _version(value: bool) -> None:
    if value:
        typer.echo(ddpo.__version__)
        raise typer.Exit


@app.callback(help=SUMMARY)
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Runs the command line; an error is one line on standard error.

    Exit code 2 stands for a user's mistake, 1 for a failure of a reward or of the training.
    """
    _escape_unprintable_characters()
    if offline():
        os.environ["HF_HUB_OFFLINE"] = "1"  # the hub's client reads it once, at its import
    try:
        app()
    except UserError as error:
        let_first_process_report()
        typer.secho(f"error: {one_line(error)}", fg="red", err=True)
        sys.exit(2)
    except DdpoError as error:
        let_first_process_report()
        typer.secho(f"failed: {one_line(error)}", fg="red", err=True)
        sys.exit(1)


def _escape_unprintable_characters() -> None:
    """Lets undecodable file names, and characters outside the terminal's encoding, be escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
