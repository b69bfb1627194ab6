"""Help of a command, laid out for the terminal's width.

A wide terminal has the names of the options beside their help, a narrow one above it, so that no
name is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from ddpo.cli.argument_text import argument_text
from ddpo.cli.console import escape, new_console
from ddpo.cli.options import EXECUTION, INPUT, OUTPUT

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_help"]

LEAST: Final = 40  # columns of the help below which names stand above it
WIDEST: Final = 110  # columns that the help takes at most
NAMES: Final = 30  # columns of the names in a wide terminal
INDENT: Final = 2
ARGUMENTS: Final = "Arguments"
GENERAL: Final = "General"
COMMANDS: Final = "Commands"

Row = tuple[str, str]
"""Names of an option with its placeholder, and its help."""


def print_help(command: Any, context: Any) -> None:
    """Prints usage, purpose, groups of options, commands and examples.

    Args:
        command: Command or group.
        context: Its context.
    """
    console = new_console(highlight=False)
    width = min(console.width, WIDEST)
    console.print(f"\n[bold]{escape(command.get_usage(context))}[/bold]\n", width=width)
    for paragraph in _paragraphs(command.help or ""):
        console.print(f"{escape(paragraph)}\n", width=width)
    for title, rows in _panels(command, context):
        _print_panel(console, width, title, rows)
    if found := getattr(command, "examples", ()):
        console.print("[bold]Examples[/bold]")
        for line in found:
            console.print(f"{' ' * INDENT}{escape(line)}", soft_wrap=True)
        console.print()


def _paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a docstring, each on one line."""
    for paragraph in text.replace("\b", "").split("\n\n"):
        if words := paragraph.split():
            yield " ".join(words)


def _panels(command: Any, context: Any) -> Iterator[tuple[str, list[Row]]]:
    """Titles and rows: arguments, the groups of options in their order, commands, and the rest."""
    groups: dict[str, list[Row]] = {ARGUMENTS: []}
    general: list[Row] = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if getattr(parameter, "hidden", False) or record is None:
            continue
        panel = getattr(parameter, "rich_help_panel", None)
        if parameter.param_type_name == "argument":
            panel = panel or ARGUMENTS
        rows = groups.setdefault(panel, []) if panel else general
        rows.append((_names(parameter, record[0]), record[1]))
    for title in sorted(groups, key=_place):
        if groups[title]:
            yield title, groups[title]
    if commands := _commands(command, context):
        yield COMMANDS, commands
    if general:
        yield GENERAL, general


def _place(panel: str) -> int:
    """The place of a group: arguments and input first, output and execution last."""
    return {ARGUMENTS: 0, INPUT: 1, OUTPUT: 3, EXECUTION: 4}.get(panel, 2)


def _names(parameter: Any, record: str) -> str:
    """The names of an option, the short one first, with its placeholder."""
    if parameter.param_type_name == "argument":
        return argument_text(parameter)
    names = sorted(parameter.opts, key=len)
    text = ", ".join(names)
    if parameter.secondary_opts:
        text += f", {', '.join(parameter.secondary_opts)}"
    placeholder = parameter.metavar
    if placeholder is None and not (parameter.is_flag or parameter.count):
        placeholder = record.rpartition(" ")[2]
    return f"{text} {placeholder}" if placeholder else text


def _commands(command: Any, context: Any) -> list[Row]:
    names = command.list_commands(context) if hasattr(command, "list_commands") else []
    found = ((name, command.get_command(context, name)) for name in names)
    return [(name, one.get_short_help_str(limit=300)) for name, one in found if not one.hidden]


def _print_panel(console: Console, width: int, title: str, rows: Sequence[Row]) -> None:
    console.print(f"[bold]{escape(title)}[/bold]")
    widest = min(NAMES, max(len(names) for names, _ in rows))
    if width - widest - 2 * INDENT < LEAST:
        _print_stacked(console, width, rows)
    else:
        _print_columns(console, width, widest, rows)
    console.print()


def _print_stacked(console: Console, width: int, rows: Iterable[Row]) -> None:
    """Prints the help of each option below its names."""
    from rich.padding import Padding

    for names, text in rows:
        console.print(f"{' ' * INDENT}[cyan]{escape(names)}[/cyan]", soft_wrap=True)
        console.print(Padding(escape(_one_space(text)), (0, 0, 0, 3 * INDENT)), width=width)


def _print_columns(console: Console, width: int, widest: int, rows: Iterable[Row]) -> None:
    """Prints the help of each option beside its names."""
    from rich.padding import Padding
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=widest, style="cyan", overflow="fold")
    table.add_column(overflow="fold")
    for names, text in rows:
        table.add_row(escape(names), escape(_one_space(text)))
    console.print(Padding(table, (0, 0, 0, INDENT)), width=width)


def _one_space(text: str) -> str:
    return " ".join(text.split())
