"""`ddpo rewards check`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ddpo.cli.commands import examples
from ddpo.cli.console import (
    echo,
    escape,
    new_console,
    print_json,
    quiet_libraries,
    simple_table,
)
from ddpo.cli.early import check_device_name, check_fetched
from ddpo.cli.options import (
    AUTO,
    EXECUTION,
    INPUT,
    AsJson,
    Device,
    RewardName,
    number_option,
    option,
    prompt_option,
)
from ddpo.cli.verbosity import is_quiet
from ddpo.ranges import SECONDS

if TYPE_CHECKING:
    from rich.table import Table

    from ddpo.rewards.check import CheckResult

EACH_S: Final = 1800.0
"""Seconds for a check: a dozen calls of a model of 7 billion parameters on a CPU take less."""

COLORS: Final = {
    "passed": "green",
    "failed": "red",
    "expected": "yellow",
    "unexpected pass": "red",
    "skipped": "dim",
}
WORDS: Final = {"expected": "expected to fail", "unexpected pass": "passed, expected to fail"}


@examples(
    "ddpo rewards check compressibility",
    "ddpo rewards check ./my_reward.py:redness",
)
def check_command(
    reward: RewardName,
    expect: Annotated[
        list[str] | None,
        option(
            "Expected failure with its reason; repeatable.", metavar="CHECK=REASON", panel=INPUT
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        option("Name of the only check to run; repeatable.", metavar="CHECK", panel=INPUT),
    ] = None,
    prompt: Annotated[
        str | None,
        prompt_option("Prompt of the probe images, for a reward that needs a certain one."),
    ] = None,
    device: Device = AUTO,
    timeout: Annotated[
        float | None,
        number_option(
            SECONDS,
            "Time limit for all checks, in seconds; those left are failures.",
            panel=EXECUTION,
        ),
    ] = None,
    check_timeout: Annotated[
        float,
        number_option(
            SECONDS,
            "Time limit for each check, in seconds; one that exceeds it fails.",
            "--check-timeout",
            panel=EXECUTION,
        ),
    ] = EACH_S,
    as_json: AsJson = False,
) -> None:
    """Report which promises a reward keeps, such as batch invariance, order and gradients.

    Exit code 1 if a check fails that was not expected to, or passes against expectation, or if all
    checks were skipped.
    """

    from ddpo.rewards.check.names import OF_THE_CARD, check_names
    from ddpo.rewards.check.run import iter_results, parse_expected
    from ddpo.rewards.zoo import resolve
    from ddpo.types import Prompt

    expected = parse_expected(expect or [])
    check_names(only, expected)
    check_device_name(device)
    probe = None if prompt is None else Prompt(prompt)
    found = resolve(reward)
    if not only or not set(only) <= set(OF_THE_CARD):
        check_fetched([found])
    if found.card.weights:
        quiet_libraries()  # takes seconds, so only for a reward that loads models
    results = []
    found_results = iter_results(
        reward, expected, only or None, probe, device, timeout, say_progress, check_timeout
    )
    for result in found_results:
        results.append(result)
        say_result(result)
    print_conformance(reward, results, as_json)


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


def say_result(result: CheckResult) -> None:
    """Prints the outcome of a check as progress."""
    word = WORDS.get(result.outcome, result.outcome)
    say_progress(f"{result.name}: {word} ({result.seconds:.2f} s)")


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
