"""docs/command-line.md lists the arguments and options that several commands really share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ddpo.cli import evaluate
from ddpo.cli.main import INTERRUPTED
from tests.cli.test_every_command import COMMANDS, options

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
CODE = re.compile(r"`([^`]+)`")
SINGLE = 3  # commands of an option that the page lists


def rows(title: str) -> list[list[str]]:
    """The cells of the table in a section."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def listed(cell: str) -> set[str]:
    """The commands of a cell: those it names, or all but those."""
    named = set(CODE.findall(cell))
    assert named <= set(COMMANDS)
    return set(COMMANDS) - named if cell.startswith("all") else named


def with_option(name: str) -> set[str]:
    if name == "--help":
        return set(COMMANDS)
    return {
        words
        for words, command in COMMANDS.items()
        if any(name in one.opts for one in options(command))
    }


def argument(command: Any) -> str:
    return " ".join(str(one.metavar) for one in command.params if one.param_type_name == "argument")


@pytest.mark.parametrize("row", rows("Options"), ids=lambda row: row[0])
def test_the_commands_of_an_option_are_those_that_have_it(row: list[str]) -> None:
    names, _, cell = row
    for name in CODE.findall(names):
        if name.startswith("--"):
            assert listed(cell) == with_option(name)


@pytest.mark.parametrize("row", rows("Arguments"), ids=lambda row: row[0])
def test_the_commands_of_an_argument_are_those_that_take_it(row: list[str]) -> None:
    name = row[0].strip("`")
    taking = {w for w, command in COMMANDS.items() if re.search(rf"\b{name}\b", argument(command))}
    assert listed(row[2]) == taking


def test_every_option_of_several_commands_is_listed() -> None:
    named = {name for row in rows("Options") for name in CODE.findall(row[0])}
    shared = {
        name
        for command in COMMANDS.values()
        for one in options(command)
        for name in one.opts
        if name.startswith("--") and len(with_option(name)) > SINGLE
    }
    assert shared <= named


def test_the_exit_codes_are_those_of_the_program() -> None:
    codes = {int(row[0]) for row in rows("Exit codes")}
    assert codes == {0, 1, 2, evaluate.FAILED, evaluate.UNDECIDED, INTERRUPTED}


def test_the_events_are_those_of_the_program() -> None:
    from ddpo.cli.training_events import NAMES

    section = PAGE.split("## Output\n")[1].split("\n## ")[0]
    assert {*NAMES.values(), "finished", "stopped"} <= set(CODE.findall(section))
