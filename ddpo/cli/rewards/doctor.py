"""`ddpo rewards doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from ddpo.cli.commands import examples
from ddpo.cli.completion import complete_reward
from ddpo.cli.console import escape, new_console, note_console, print_json, simple_table
from ddpo.cli.options import EXECUTION, AsJson, number_option
from ddpo.ranges import Range

if TYPE_CHECKING:
    from rich.table import Table

    from ddpo.rewards.tools.doctor import Diagnosis

TIMEOUT: Final = Range(low=1, infinity="no limit")


@examples("ddpo rewards doctor", "ddpo rewards doctor aesthetic --json")
def doctor_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REWARD",
            help="Rewards to load; default: all of them.",
            autocompletion=complete_reward,
        ),
    ] = None,
    timeout: Annotated[
        float,
        number_option(
            TIMEOUT, "Time limit for the rewards of one package, in seconds.", panel=EXECUTION
        ),
    ] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Report which rewards of ddpo and of installed packages can be loaded, and why others cannot.

    Exit code 1 if a reward cannot be loaded.
    """

    from ddpo.rewards.tools.doctor import diagnose

    with note_console().status("loading the rewards' modules"):
        found = list(diagnose(timeout, names or None))
    broken = [diagnosis for diagnosis in found if diagnosis.status != "ok"]
    if as_json:
        records = [diagnosis.to_dict() for diagnosis in found]
        print_json(records)
    else:
        console = new_console()
        console.print(_table(found))
        console.print(f"{len(found) - len(broken)} of {len(found)} rewards can be loaded")
    if broken:
        raise typer.Exit(1)


def _table(found: list[Diagnosis]) -> Table:
    table = simple_table()
    table.add_column("reward", no_wrap=True, style="bold")
    table.add_column("from", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("cause", overflow="fold")
    for diagnosis in found:
        style = "green" if diagnosis.status == "ok" else "red"
        table.add_row(
            diagnosis.reward,
            escape(diagnosis.origin),
            f"[{style}]{diagnosis.status}[/{style}]",
            escape(diagnosis.detail),
        )
    return table
