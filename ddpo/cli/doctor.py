"""`ddpo doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ddpo.cli.markup import escape
from ddpo.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from ddpo.doctor.report import Report

STYLES = {"ok": "green", "failed": "red", "did not fit": "yellow", "skipped": "yellow"}


def doctor_command(
    gpu: Annotated[bool, typer.Option("--gpu", help="Also test the accelerator.")] = False,
    device: Annotated[
        str | None,
        typer.Option(help="Torch device of the self-test; the accelerator if not set."),
    ] = None,
    size: Annotated[
        Literal["full", "tiny"] | None,
        typer.Option(help="Models of the self-test: published sizes (full), or tiny ones."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Time budget of the self-test; 8 if not set.", min=0.0),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the report to this .json file and a .md beside it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what this machine offers, which rewards are ready, and whether its accelerator works.

    Exit code 1 if a needed library does not fit or a check failed.
    """
    given = {"--device": device, "--size": size, "--minutes": minutes}
    if unused := [name for name, value in given.items() if value is not None and not gpu]:
        raise ConfigError(f"{unused[0]} belongs to the self-test: add --gpu")
    from rich.console import Console

    from ddpo.doctor.machine import examine_machine, installed_libraries
    from ddpo.doctor.report import Report, report_paths, write_report
    from ddpo.doctor.reward_states import reward_states

    paths = None if out is None else report_paths(out)
    report = Report(examine_machine(), installed_libraries(), list(reward_states()))
    console = Console(stderr=True) if as_json else Console()
    if not as_json:
        _print_machine(console, report)
    if gpu:
        _self_test(console, report, paths, device, size or "full", minutes)
    if paths is not None:
        write_report(report, paths)
        typer.echo(f"The report is in {paths[0]} and {paths[1]}", err=True)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    for problem in report.problems():
        typer.secho(f"problem: {problem}", fg="red", err=True)
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
    """Runs the self-test; the files hold every row as soon as it is known."""
    from ddpo.cli.quiet import quiet_libraries
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
    from rich import box
    from rich.table import Table

    from ddpo.doctor.table import facts, library_cells, reward_cells

    values = report.to_dict()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in facts(values["machine"]):
        table.add_row(name, escape(value))
    console.print(table)
    table = Table("library", "required", "installed", "for", box=box.SIMPLE_HEAD, pad_edge=False)
    for library in values["libraries"]:
        style = "" if library["fits"] else "red"
        style = "yellow" if library["extra"] and not library["fits"] else style
        table.add_row(*map(escape, library_cells(library)), style=style)
    if not values["libraries"]:
        console.print("ddpo is not installed here, so the versions of its libraries are unchecked")
    else:
        console.print(table)
    ready = [state for state in values["rewards"] if state["state"] == "ready"]
    names = ", ".join(state["reward"] for state in ready)
    console.print(f"[green]{len(ready)} rewards are ready:[/green] {escape(names)}")
    header = ("reward", "from", "state", "to download", "remedy")
    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    for state in values["rewards"]:
        if state["state"] != "ready":
            table.add_row(*map(escape, reward_cells(state)))
    if table.row_count:
        console.print(table)
