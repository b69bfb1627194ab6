"""`ddpo rewards doctor`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ddpo.cli.markup import escape

if TYPE_CHECKING:
    from rich.table import Table

    from ddpo.rewards.tools.doctor import Diagnosis


def doctor_command(
    names: Annotated[
        list[str] | None, typer.Argument(help="Rewards to look at; all if none is named.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds for the rewards of one package.", min=1.0)
    ] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Loads every reward's code, built in and of installed packages, and says what is wrong with it; exit code 1 if anything is."""
    from rich.console import Console

    from ddpo.rewards.tools.doctor import diagnose

    with Console(stderr=True).status("loading the rewards' modules"):
        found = list(diagnose(timeout, names or None))
    broken = [diagnosis for diagnosis in found if diagnosis.status != "ok"]
    if as_json:
        typer.echo(
            json.dumps([diagnosis.to_dict() for diagnosis in found], indent=2, ensure_ascii=False)
        )
    else:
        console = Console()
        console.print(_table(found))
        console.print(f"{len(found) - len(broken)} of {len(found)} rewards can be loaded")
    if broken:
        raise typer.Exit(1)


def _table(found: list[Diagnosis]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
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
