"""The outcome of a conformance kit: progress, table and verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import typer

from ddpo.cli.console import echo, escape, new_console, print_json, simple_table
from ddpo.cli.verbosity import is_quiet

if TYPE_CHECKING:
    from rich.table import Table

    from ddpo.rewards.check import CheckResult

__all__ = ["print_conformance", "report_conformance", "say_progress"]

COLORS: Final = {
    "passed": "green",
    "failed": "red",
    "expected": "yellow",
    "unexpected pass": "red",
    "skipped": "dim",
}
WORDS: Final = {"expected": "expected to fail", "unexpected pass": "passed, expected to fail"}


def report_conformance(name: str, results: Iterable[CheckResult], as_json: bool) -> None:
    """Prints each result as it comes, then all of them; raises as `print_conformance`."""
    found = []
    for result in results:
        found.append(result)
        word = WORDS.get(result.outcome, result.outcome)
        say_progress(f"{result.name}: {word} ({result.seconds:.2f} s)")
    print_conformance(name, found, as_json)


def print_conformance(name: str, results: list[CheckResult], as_json: bool) -> None:
    """Prints the results of all checks of a reward, an algorithm or a model.

    Raises:
        typer.Exit: A check failed that was not expected to, or passed against expectation, or all
            were skipped.
    """
    if as_json:
        print_json([dataclasses.asdict(result) for result in results])
    else:
        console = new_console()
        console.print(_table(results))
        console.print(_summary(name, results), soft_wrap=True)
    if not all(result.ok for result in results) or not _ran(results):
        raise typer.Exit(1)


def _ran(results: list[CheckResult]) -> bool:
    """True if a check was not skipped, for instance since the reward scored no probe image."""
    return any(result.outcome != "skipped" for result in results)


def say_progress(line: str) -> None:
    """Prints progress on standard error, so that standard output keeps the whole result."""
    if not is_quiet():
        echo(line, err=True)


def _table(results: list[CheckResult]) -> Table:
    """A table with one row for each result."""
    table = simple_table()
    table.add_column("check", no_wrap=True, style="bold")
    table.add_column("outcome", no_wrap=True)
    table.add_column("detail", ratio=1, overflow="fold")
    table.add_column("s", justify="right", no_wrap=True)
    for result in results:
        color = COLORS[result.outcome]
        word = WORDS.get(result.outcome, result.outcome)
        table.add_row(
            result.name,
            f"[{color}]{word}[/{color}]",
            escape(result.detail),
            f"{result.seconds:.2f}",
        )
    return table


def _summary(reward: str, results: list[CheckResult]) -> str:
    """One line with the verdict and the number of results of each outcome."""
    counts = {outcome: sum(result.outcome == outcome for result in results) for outcome in COLORS}
    listed = ", ".join(
        f"{count} {WORDS.get(outcome, outcome)}" for outcome, count in counts.items() if count
    )
    verdict = "[red]does not conform[/red]"
    if not _ran(results):
        verdict = "[red]was not checked[/red]"
    elif all(result.ok for result in results):
        verdict = "[green]conforms[/green]"
    return f"{escape(reward)} {verdict}: {listed}"
