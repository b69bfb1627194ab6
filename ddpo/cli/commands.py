"""Commands whose help ends in examples, which know -q and -v, and which read old spellings.

@examples("ddpo export runs/demo --out my-lora")
@renamed({"--to": "--out"})
def export_command(...): ...

app = Commands(...)
app.command("export")(export_command)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Final, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from ddpo.cli import verbosity
from ddpo.cli.argument_text import argument_text
from ddpo.cli.console import note

__all__ = ["Command", "Commands", "Group", "examples", "renamed"]

EXAMPLES: Final = "ddpo_examples"
RENAMED: Final = "ddpo_renamed"
END_OF_OPTIONS: Final = "--"

Function = TypeVar("Function", bound=Callable[..., Any])


def examples(*lines: str) -> Callable[[Function], Function]:
    """Decorator that gives a command the examples at the end of its help."""
    return _with(EXAMPLES, lines)


def renamed(names: Mapping[str, str]) -> Callable[[Function], Function]:
    """Decorator that lets a command read old names of its options, with a note.

    Args:
        names: Old name → present name.
    """
    return _with(RENAMED, dict(names))


def _with(name: str, value: object) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        setattr(function, name, value)
        return function

    return decorate


class Commands(typer.Typer):
    """A group of commands, each of which is a `Command`."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Function], Function]:
        """As `typer.Typer.command`."""
        return super().command(name, **{"cls": Command} | options)


class Group(TyperGroup):
    """A group whose help is laid out for the terminal's width, with -q and -v for its commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.params.extend(_message_options())

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help."""
        from ddpo.cli.help_page import print_help

        print_help(self, ctx)


class Command(TyperCommand):
    """A command with examples, -q and -v; its function may have the decorators of this module."""

    def __init__(self, name: str | None, **options: Any) -> None:
        super().__init__(name, **options)
        self.examples: tuple[str, ...] = getattr(self.callback, EXAMPLES, ())
        self.renamed: dict[str, str] = getattr(self.callback, RENAMED, {})
        if self.examples:
            self.epilog = "\n".join(["Examples:", "", *(f"    {line}" for line in self.examples)])
        self.params.extend(_message_options())

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line; optional arguments are in brackets."""
        arguments = [one for one in self.get_params(ctx) if one.param_type_name == "argument"]
        shown = [one for one in arguments if not getattr(one, "hidden", False)]
        return ["[OPTIONS]", *map(argument_text, shown)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments, of which old names of options become present ones."""
        end = args.index(END_OF_OPTIONS) if END_OF_OPTIONS in args else len(args)
        old = {name for word in args[:end] if (name := word.partition("=")[0]) in self.renamed}
        present = [self._present(word) for word in args[:end]] + args[end:]
        repeated = self._repeated(ctx, present)
        rest = super().parse_args(ctx, present)
        for name, times in repeated.items():
            note(f"{name} is given {times} times, and takes one value: the last one counts")
        for name in sorted(old):
            note(f"{name} is now called {self.renamed[name]}")
        return rest

    def _repeated(self, ctx: Any, args: list[str]) -> dict[str, int]:
        """Name → number of occurrences of each option of one value that is given several times."""
        *_, given = self.make_parser(ctx).parse_args(list(args))
        return {
            max(one.opts, key=len): times
            for one, times in Counter(given).items()
            if times > 1 and one.param_type_name == "option" and _takes_one_value(one)
        }

    def _present(self, word: str) -> str:
        """A word of the command line, with the present name of an option."""
        name, equals, value = word.partition("=")
        return f"{self.renamed.get(name, name)}{equals}{value}"

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help."""
        from ddpo.cli.help_page import print_help

        print_help(self, ctx)


def _takes_one_value(option: Any) -> bool:
    """True for an option that is neither repeatable nor a switch nor counted."""
    return not (option.multiple or option.is_flag or option.count)


def _be_quiet(value: bool) -> None:
    if value:
        verbosity.set_quiet()


def _be_verbose(value: int) -> None:
    if value:
        verbosity.set_verbose(value)


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Results and errors only: no progress, notes or warnings.",
        callback=_be_quiet,
        is_eager=True,
        expose_value=False,
        show_default=False,
    ),
]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        help="Log on standard error, with each file that is written; -vv: details too.",
        callback=_be_verbose,
        is_eager=True,
        expose_value=False,
        count=True,
        metavar="",
        show_default=False,
    ),
]


@cache
def _message_options() -> tuple[Any, ...]:
    """The options -q and -v as typer's parameters."""
    app = typer.Typer(add_completion=False)

    @app.command()
    def options(quiet: Quiet = False, verbose: Verbose = 0) -> None: ...

    return tuple(typer.main.get_command(app).params)
