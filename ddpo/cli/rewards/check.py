"""`ddpo rewards check`."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ddpo.cli.device import AUTO, Device
from ddpo.cli.markup import escape

if TYPE_CHECKING:
    from rich.table import Table

    from ddpo.rewards.check import CheckResult

COLORS: Final = {
    "passed": "green",
    "failed": "red",
    "expected": "yellow",
    "unexpected pass": "red",
    "skipped": "dim",
}
WORDS: Final = {"expected": "expected to fail", "unexpected pass": "passed, expected to fail"}


def check_command(
    reward: Annotated[
        str,
        typer.Argument(
            help="A reward of `ddpo rewards list`, ./file.py:Object or package.module:Object."
        ),
    ],
    expect: Annotated[
        list[str] | None,
        typer.Option(help="CHECK=REASON: a check that is expected to fail, and why. Repeatable."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Run this check alone. Repeatable.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="The prompt of the probe pictures, for a reward that needs something in it."
        ),
    ] = None,
    device: Device = AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Checks that a reward keeps its promises: batch invariance, order, gradients, odd pictures, and more. Exit code 1 if it does not."""
    from rich.console import Console

    from ddpo.cli.quiet import quiet_libraries
    from ddpo.rewards.check.run import iter_results, parse_expected
    from ddpo.rewards.zoo import resolve_card
    from ddpo.types import Prompt

    expected = parse_expected(expect or [])
    if resolve_card(reward).weights:
        quiet_libraries()  # it imports what loads models, which takes seconds
    results = []
    with Console(stderr=True).status(f"checking {escape(reward)}") as status:
        for result in iter_results(
            reward, expected, only or None, None if prompt is None else Prompt(prompt), device
        ):
            results.append(result)
            status.update(f"checking {escape(reward)}: {result.name} {result.outcome}")
    if as_json:
        typer.echo(
            json.dumps(
                [dataclasses.asdict(result) for result in results], indent=2, ensure_ascii=False
            )
        )
    else:
        console = Console()
        console.print(_table(results))
        console.print(_summary(reward, results), soft_wrap=True)
    if not all(result.ok for result in results):
        raise typer.Exit(1)


def _table(results: list[CheckResult]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("check", no_wrap=True, style="bold")
    table.add_column("outcome", no_wrap=True)
    table.add_column("detail", ratio=1, overflow="fold")
    table.add_column("s", justify="right", no_wrap=True)
    for result in results:
        color, word = COLORS[result.outcome], WORDS.get(result.outcome, result.outcome)
        table.add_row(
            result.name,
            f"[{color}]{word}[/{color}]",
            escape(result.detail),
            f"{result.seconds:.2f}",
        )
    return table


def _summary(reward: str, results: list[CheckResult]) -> str:
    counts = {outcome: sum(result.outcome == outcome for result in results) for outcome in COLORS}
    told = ", ".join(
        f"{count} {WORDS.get(outcome, outcome)}" for outcome, count in counts.items() if count
    )
    verdict = (
        "[green]conforms[/green]"
        if all(result.ok for result in results)
        else "[red]does not conform[/red]"
    )
    return f"{escape(reward)} {verdict}: {told}"
