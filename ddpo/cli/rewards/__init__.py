"""`ddpo rewards`: one file per command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import typer

from ddpo.cli.rewards.listing import list_command, show_command
from ddpo.cli.rewards.score import score_command

app = typer.Typer(help="The reward zoo: what there is, what each one measures, and scores of your pictures.", no_args_is_help=True)
app.command("list")(list_command)
app.command("show")(show_command)
app.command("score")(score_command)
