"""`ddpo algorithms`: the list of algorithms, and the checks of one."""

from __future__ import annotations

from typing import Annotated

import typer

from ddpo.cli.commands import Commands, Group, examples
from ddpo.cli.completion import complete_algorithm
from ddpo.cli.console import escape, new_console, print_json, simple_table
from ddpo.cli.options import AsJson

app = Commands(
    cls=Group,
    name="algorithms",
    help="Algorithms: their list, and checks of one of your own.",
    no_args_is_help=True,
)


@app.command("list")
@examples("ddpo algorithms list", "ddpo algorithms list --json")
def list_command(as_json: AsJson = False) -> None:
    """List the built-in algorithms and those of installed packages."""
    from ddpo.errors import RewardLoadError
    from ddpo.trainer.algorithms import algorithms, load_algorithm

    rows = []
    for name in algorithms.names():
        try:
            summary = load_algorithm(name)[0].summary
        except RewardLoadError as error:
            summary = f"broken: {error}"
        rows.append({"name": name, "summary": summary, "from": algorithms.origin(name)})
    if as_json:
        print_json(rows)
        return
    table = simple_table()
    table.add_column("algorithm", no_wrap=True, style="bold")
    table.add_column("summary", ratio=1, overflow="fold")
    table.add_column("from", no_wrap=True)
    for row in rows:
        table.add_row(*(escape(value) for value in row.values()))
    new_console().print(table)


@app.command("check")
@examples("ddpo algorithms check ddpo_is", "ddpo algorithms check ./my_algorithm.py:Mine")
def check_command(
    algorithm: Annotated[
        str,
        typer.Argument(
            metavar="ALGORITHM",
            help="A name of the list, ./file.py:Object or package.module:Object.",
            autocompletion=complete_algorithm,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Report which promises an algorithm keeps, such as one loss per item and its sign.

    Exit code 1 if a check fails.
    """
    from ddpo.trainer.algorithms import load_algorithm

    load_algorithm(algorithm)  # an unknown name is reported before torch is imported
    from ddpo.cli.conformance import print_conformance
    from ddpo.trainer.check import check_algorithm

    print_conformance(algorithm, check_algorithm(algorithm), as_json)
