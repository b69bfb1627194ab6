"""`ddpo doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from ddpo.cli.commands import examples, renamed
from ddpo.cli.console import echo, escape, new_console, note_console, print_json, simple_table
from ddpo.cli.early import check_device_name
from ddpo.cli.options import AsJson, number_option, option, out_option
from ddpo.errors import ConfigError
from ddpo.ranges import MILLION, Range

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from ddpo.doctor.report import Report

TEST: Final = "Self-test"
MINUTES: Final = Range(low=0, high=MILLION)
STYLES = {"ok": "green", "failed": "red", "did not fit": "yellow", "skipped": "yellow"}


@examples(
    "ddpo doctor",
    "ddpo doctor --gpu -o report.json",
    "ddpo doctor --gpu --device cpu --models tiny",
)
@renamed({"--size": "--models"})
def doctor_command(
    context: typer.Context,
    gpu: Annotated[bool, option("Self-test of the accelerator too.", "--gpu", panel=TEST)] = False,
    device: Annotated[
        str | None,
        option(
            "Torch device of the self-test; default: the accelerator.",
            metavar="DEVICE",
            panel=TEST,
        ),
    ] = None,
    size: Annotated[
        Literal["full", "tiny"] | None,
        option(
            "Models of the self-test: published sizes (full), or tiny ones.",
            "--models",
            panel=TEST,
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        number_option(MINUTES, "Time budget of the self-test; default: 8.", panel=TEST),
    ] = None,
    out: Annotated[
        Path | None,
        out_option("The .json file of the report, with a .md beside it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report the machine, the state of all rewards and, with --gpu, a test of the accelerator.

    Exit code 1 if a needed library does not fit or a check failed.
    """
    given = {"--device": device, "--models": size, "--minutes": minutes}
    if unused := [name for name, value in given.items() if value is not None and not gpu]:
        raise ConfigError(f"{unused[0]} belongs to the self-test: add --gpu")

    check_device_name(device)
    from ddpo.doctor.report_paths import report_paths

    paths = None if out is None else report_paths(out)
    from ddpo.doctor.machine import examine_machine, installed_libraries
    from ddpo.doctor.report import Report, write_report
    from ddpo.doctor.reward_states import reward_states
    from ddpo.io.lock import owned_file

    context.with_resource(owned_file(None if paths is None else paths[0], "ddpo doctor"))
    report = Report(examine_machine(), installed_libraries(), list(reward_states()))
    console = note_console() if as_json else new_console()
    if not as_json:
        _print_machine(console, report)
    if gpu:
        _self_test(console, report, paths, device, size or "full", minutes)
    if paths is not None:
        write_report(report, paths)
        echo(f"The report is in {paths[0]} and {paths[1]}", err=True)
    if as_json:
        print_json(report.to_dict())
    _exit_on_problems(report)


def _exit_on_problems(report: Report) -> None:
    """Prints each problem and ends the program with exit code 1 if there is any."""
    for problem in report.problems():
        echo(f"problem: {problem}", fg="red", err=True)
    if report.problems():
        raise typer.Exit(1)


def _self_test(
    console: Console,
    report: Report,
    paths: tuple[Path, Path] | None,
    device: str | None,
    size: Literal["full", "tiny"],
    minutes: float | None,
) -> None:
    """Runs the self-test, and rewrites the files of the report after every row."""
    from ddpo.cli.console import quiet_libraries
    from ddpo.doctor.report import SelfTestRecord, write_report

    quiet_libraries()
    from ddpo.doctor.self_test import BUDGET_S, SelfTest, default_device

    budget_s = BUDGET_S if minutes is None else 60 * minutes
    test = SelfTest(default_device() if device is None else device, size)
    record = SelfTestRecord(test.device, size, budget_s)
    report.self_test = record
    with console.status("self-test") as status:
        for row in test.rows(budget_s):
            record.rows.append(row)
            _print_row(console, row.to_dict())
            status.update(f"self-test: {len(record.rows)} checks done")
            if paths is not None:
                write_report(report, paths)
    record.finished = True


def _print_row(console: Console, row: dict[str, Any]) -> None:
    from ddpo.doctor.table import row_cells

    part, subject, state, values, note, seconds = row_cells(row)
    style = STYLES.get(state, "cyan")
    text = "; ".join(filter(None, (values, note)))
    head = f"[bold]{escape(part)}[/bold] {escape(subject)}: [{style}]{state}[/{style}]"
    console.print(f"{head} {escape(text)} ({seconds} s)", highlight=False, soft_wrap=True)


def _print_machine(console: Console, report: Report) -> None:
    """Prints the facts about the machine, its libraries, and the state of the rewards."""
    from ddpo.doctor.table import facts

    values = report.to_dict()
    table = simple_table(show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in facts(values["machine"]):
        table.add_row(name, escape(value))
    console.print(table)
    _print_libraries(console, values["libraries"])
    _print_rewards(console, values["rewards"])


def _print_libraries(console: Console, libraries: Sequence[Mapping[str, Any]]) -> None:
    from ddpo.doctor.table import library_cells

    if not libraries:
        console.print("ddpo is not installed here, so the versions of its libraries are unchecked")
        return
    table = simple_table()
    table.add_column("library", no_wrap=True)
    for name in ("required", "installed", "for"):
        table.add_column(name, overflow="fold")
    for library in libraries:
        missing = "yellow" if library["extra"] else "red"
        style = "" if library["fits"] else missing
        table.add_row(*map(escape, library_cells(library)), style=style)
    console.print(table)


def _print_rewards(console: Console, states: Sequence[Mapping[str, Any]]) -> None:
    """Prints the names of the rewards that are ready, and a table of the others."""
    from ddpo.doctor.table import reward_cells

    ready = [state["reward"] for state in states if state["state"] == "ready"]
    console.print(f"[green]{len(ready)} rewards are ready:[/green] {escape(', '.join(ready))}")
    table = simple_table()
    for name in ("reward", "from", "state", "to download"):
        table.add_column(name, no_wrap=True)
    table.add_column("remedy", overflow="fold")
    for state in states:
        if state["state"] != "ready":
            table.add_row(*map(escape, reward_cells(state)))
    if table.row_count:
        console.print(table)
