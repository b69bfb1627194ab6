"""Commands of README, docs and recipes: they parse, their options exist, and those that need nothing else are run."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from ddpo.cli.main import app

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "ddpo").rglob("README.md"),
        *(ROOT / "ddpo").rglob("README.md.template"),
    ]
)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STARTED_BY = re.compile(r"^(?:ddpo |(?:accelerate launch|torchrun|python)\b.* -m ddpo )(.*)$")
SHELL = (">>", ">", "|", "&&")
PROGRAM: Any = typer.main.get_command(app)
OTHERS = {  # options of other programs that the pages name
    "--ddpo-expect", "--ddpo-reward", "--multi_gpu", "--nproc_per_node", "--num_processes",
}  # fmt: skip


def fenced_lines(page: Path, languages: tuple[str, ...] = ("sh", "bash", "")) -> Iterator[str]:
    """The lines of a page's blocks of commands, continued lines joined."""
    for language, block in FENCED.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield from block.replace("\\\n", " ").splitlines()


def arguments_of(line: str) -> list[str] | None:
    """What a line gives to `ddpo`, without comments and redirections; None for lines of other programs."""
    found = STARTED_BY.match(line.strip())
    if found is None:
        return None
    words = shlex.split(found[1], comments=True)
    end = next((place for place, word in enumerate(words) if word in SHELL), len(words))
    return [word for word in words[:end] if word != "…"]


def parse(arguments: list[str]) -> None:
    """Parses a command line as the program does, and runs nothing.

    Raises:
        Exception: an unknown command or option, a value of the wrong type, or one argument too many or too few.
    """
    context = PROGRAM.make_context("ddpo", list(arguments))
    command = PROGRAM
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def options_of(command: Any) -> set[str]:
    """The options of a command and of all commands below it."""
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--")}
    return own.union({"--help"}, *(options_of(inner) for inner in getattr(command, "commands", {}).values()))


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


COMMANDS = sorted(
    {(ids(page), " ".join(line.split())) for page in PAGES for line in fenced_lines(page) if arguments_of(line) is not None}
)


def test_the_pages_have_commands() -> None:
    assert {"README.md", "docs/evaluation.md", "docs/training.md", "docs/doctor.md"} <= {page for page, _ in COMMANDS}
    assert len(COMMANDS) > 50


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_each_command_line_parses(page: str, line: str) -> None:
    arguments = arguments_of(line)
    assert arguments
    parse(arguments)


@pytest.mark.parametrize(
    "line",
    [
        "ddpo train --reward darkness --no-such-option",
        "ddpo trian --reward darkness",
        "ddpo rewards scor darkness pictures/",
        "ddpo train --iterations many",
        "ddpo export RUN",
        "ddpo doctor --gpu gpu",
        "accelerate launch --num_processes 2 -m ddpo train --rewards darkness",
    ],
)
def test_a_wrong_command_line_does_not_parse(line: str) -> None:
    arguments = arguments_of(line)
    assert arguments
    with pytest.raises(Exception, match=r"(?i)no such|valid|missing|unexpected"):
        parse(arguments)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_options_in_the_text_exist(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    known = options_of(PROGRAM) | OTHERS | {name for tool in (ROOT / "tools").glob("*.py") for name in options_of_tool(tool)}
    unknown = []
    for code in re.findall(r"`([^`]+)`", text):
        of_ddpo = re.match(r"ddpo ((?:[a-z]+ ?)+)", code)
        allowed = known
        if of_ddpo:
            command = PROGRAM
            for word in of_ddpo[1].split():
                command = getattr(command, "commands", {}).get(word, command)
            allowed = options_of(command)
        unknown += [(code, name) for name in re.findall(r"(?<![\w-])--[a-z][\w-]*", code) if name not in allowed]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_in_the_text_exist(page: Path) -> None:
    unknown = []
    for code in re.findall(r"`(ddpo [^`]+)`", page.read_text(encoding="utf-8")):
        command, words = PROGRAM, code.split()[1:]
        while words and hasattr(command, "commands") and re.fullmatch("[a-z]+", words[0]):
            if words[0] not in command.commands:
                unknown.append(code)
                break
            command, words = command.commands[words[0]], words[1:]
    assert unknown == []


def options_of_tool(tool: Path) -> set[str]:
    return set(re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", tool.read_text(encoding="utf-8")))
