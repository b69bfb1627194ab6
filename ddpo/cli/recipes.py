"""`ddpo recipes`: the settings that come with the package."""

from __future__ import annotations

from typing import Annotated

import typer

from ddpo.cli.console import echo, new_console

app = typer.Typer(
    name="recipes",
    help="Recipes that come with the package: their list and their settings.",
    no_args_is_help=True,
)


@app.command("list")
def list_command() -> None:
    """List the recipes, those of the model families first."""
    from rich.table import Table

    from ddpo.policies.family import FAMILIES
    from ddpo.recipes import recipe_names, recipe_text

    table = Table("recipe", "for")
    for name in FAMILIES:
        table.add_row(name, f"default of every run on {FAMILIES[name]}")
    for name in recipe_names():
        if name not in FAMILIES:
            table.add_row(name, _first_sentence(recipe_text(name)))
    new_console().print(table)


@app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(help="Name of a recipe in `ddpo recipes list`.")],
) -> None:
    """Print a recipe as TOML, with its comments."""
    from ddpo.recipes import recipe_names, recipe_text
    from ddpo.registry import unknown_name

    if name not in recipe_names():
        raise unknown_name("recipe", name, recipe_names())
    echo(recipe_text(name).rstrip())


def _first_sentence(text: str) -> str:
    """The first sentence of a recipe's opening comment."""
    comment = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    return " ".join(comment).partition(". ")[0].rstrip(".:")
