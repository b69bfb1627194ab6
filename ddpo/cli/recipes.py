"""`ddpo recipes`: the settings that come with the package."""

from __future__ import annotations

from typing import Annotated

import typer

from ddpo.cli.commands import Commands, Group, examples
from ddpo.cli.completion import complete_recipe
from ddpo.cli.console import echo, escape, new_console, print_json, simple_table
from ddpo.cli.options import AsJson

app = Commands(
    cls=Group,
    name="recipes",
    help="Recipes that come with the package: their list and their settings.",
    no_args_is_help=True,
)


@app.command("list")
@examples("ddpo recipes list", "ddpo recipes list --json")
def list_command(as_json: AsJson = False) -> None:
    """List the recipes, those of the model families first."""
    from ddpo.policies.family import FAMILIES
    from ddpo.recipes import recipe_names, recipe_text

    purposes = {name: f"default of every run on {FAMILIES[name]}" for name in FAMILIES}
    others = [name for name in recipe_names() if name not in FAMILIES]
    purposes |= {name: _first_sentence(recipe_text(name)) for name in others}
    if as_json:
        print_json([{"recipe": name, "for": purpose} for name, purpose in purposes.items()])
        return
    table = simple_table()
    table.add_column("recipe", no_wrap=True, style="bold")
    table.add_column("for", overflow="fold")
    for name, purpose in purposes.items():
        table.add_row(name, escape(purpose))
    new_console().print(table)


@app.command("show")
@examples("ddpo recipes show sd1", "ddpo recipes show sd1 --json")
def show_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Name of a recipe in `ddpo recipes list`.",
            autocompletion=complete_recipe,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Print a recipe as TOML, with its comments; as JSON without them."""
    from ddpo.recipes import read_builtin, recipe_names, recipe_text
    from ddpo.registry import unknown_name

    if name not in recipe_names():
        raise unknown_name("recipe", name, recipe_names())
    if as_json:
        print_json(read_builtin(name))
        return
    echo(recipe_text(name).rstrip())


def _first_sentence(text: str) -> str:
    """The first sentence of a recipe's opening comment."""
    comment = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    return " ".join(comment).partition(". ")[0].rstrip(".:")
