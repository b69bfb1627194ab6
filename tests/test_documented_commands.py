"""Commands of README and docs: all parse, and those on pixels alone are run as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from ddpo.cli.main import app
from ddpo.rewards.cards import CARDS

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "ddpo").rglob("README.md"),
        *(ROOT / "ddpo").rglob("README.md.template"),
    ]
)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STARTED_BY = re.compile(r"^(?:ddpo |(?:accelerate launch|torchrun|python)\b.* -m ddpo )(.*)$")
SHELL = (">>", ">", "|", "&&")
PROGRAM: Any = typer.main.get_command(app)


def fenced_lines(page: Path, languages: tuple[str, ...] = ("sh", "bash", "")) -> Iterator[str]:
    """The lines of a page's blocks of commands, continued lines joined."""
    for language, block in FENCED.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield from re.sub(r"\s*\\\n\s*", " ", block).splitlines()


def arguments_of(line: str) -> list[str] | None:
    """The arguments that a line gives to `ddpo`; None for lines of other programs."""
    found = STARTED_BY.match(line.strip())
    if found is None:
        return None
    words = shlex.split(found[1], comments=True)
    end = next((place for place, word in enumerate(words) if word in SHELL), len(words))
    return [word for word in words[:end] if word != "…"]


def parse(arguments: list[str]) -> None:
    """Parses a command line as the program does, and runs nothing.

    Raises:
        Exception: A command or option is unknown, or a value or the number of arguments is wrong.
    """
    context = PROGRAM.make_context("ddpo", list(arguments))
    command = PROGRAM
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        context = command.make_context(name, rest, parent=context)


def options_of(command: Any) -> set[str]:
    """The options of a command and of all commands below it."""
    own = {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }
    return own.union(
        {"--help"}, *(options_of(inner) for inner in getattr(command, "commands", {}).values())
    )


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


COMMANDS = sorted(
    {
        (ids(page), " ".join(line.split()))
        for page in PAGES
        for line in fenced_lines(page)
        if arguments_of(line) is not None
    }
)


def test_the_pages_have_commands() -> None:
    assert {
        "README.md",
        "docs/evaluation.md",
        "docs/training.md",
        "docs/doctor.md",
        "docs/run-folder.md",
        "docs/other-checkpoints.md",
    } <= {page for page, _ in COMMANDS}
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
        "ddpo rewards scor darkness images/",
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


def options_of_tool(tool: Path) -> set[str]:
    """The options of a script in tools/ or pretraining/."""
    source = tool.read_text(encoding="utf-8")
    return set(re.findall(r"(?:add_argument|typer\.Option)\(\s*\"(--[\w-]+)\"", source))


@cache
def options_of_launchers() -> set[str]:
    """The options of `accelerate launch` and `torchrun`."""
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    return {
        *launch_command_parser()._option_string_actions,
        *get_args_parser()._option_string_actions,
    }


def unknown_options(code: str) -> list[str]:
    """The options in a piece of code that its command, or else no command, has."""
    allowed = options_of(PROGRAM) | options_of_launchers()
    scripts = [path for place in ("tools", "pretraining") for path in (ROOT / place).glob("*.py")]
    allowed |= {name for script in scripts for name in options_of_tool(script)}
    if of_ddpo := re.match(r"ddpo ((?:[a-z]+ ?)+)", code):
        command = PROGRAM
        for word in of_ddpo[1].split():
            command = getattr(command, "commands", {}).get(word, command)
        allowed = options_of(command)
    return [name for name in re.findall(r"(?<![\w-])--[a-z][\w-]*", code) if name not in allowed]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_options_in_the_text_exist(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    found = {code: unknown_options(code) for code in re.findall(r"`([^`]+)`", text)}
    assert {code: names for code, names in found.items() if names} == {}


def test_an_option_of_another_command_is_noticed() -> None:
    assert unknown_options("--no-such-option") == ["--no-such-option"]
    assert unknown_options("ddpo rewards score --held-out") == ["--held-out"]
    assert unknown_options("ddpo export RUN --merge --dry-run") == ["--dry-run"]
    assert unknown_options("ddpo eval --fail-if 'reading >= watch'") == []


def unknown_command(code: str) -> str:
    """The first word of `ddpo …` that is no command; "" if all are."""
    command = PROGRAM
    words = code.split()[1:]
    while words and hasattr(command, "commands") and re.fullmatch("[a-z]+", words[0]):
        if words[0] not in command.commands:
            return words[0]
        command = command.commands[words.pop(0)]
    return ""


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_in_the_text_exist(page: Path) -> None:
    named = re.findall(r"`(ddpo [^`]+)`", page.read_text(encoding="utf-8"))
    assert [code for code in named if unknown_command(code)] == []
    assert unknown_command("ddpo rewards lst") == "lst"


ON_PIXELS = [
    ("docs/rewards.md", "ddpo rewards score compressibility symmetry my_folder"),
    ("docs/rewards.md", "ddpo rewards compare compressibility colorfulness my_folder"),
    ("docs/checking-a-reward.md", "ddpo rewards check compressibility"),
    ("docs/combining-rewards.md", 'ddpo rewards score "colorfulness:0.05 + compressibility:0.2"'),
    ("docs/combining-rewards.md", "ddpo rewards calibrate compressibility"),
    ("docs/combining-rewards.md", "ddpo rewards calibrate colorfulness"),
    ("docs/combining-rewards.md", 'ddpo rewards score "colorfulness:z=colorfulness.json'),
    ("docs/comparing-rewards.md", "ddpo rewards compare compressibility symmetry darkness"),
    ("docs/comparing-rewards.md", "ddpo rewards validate compressibility"),
    ("docs/group-rewards.md", "ddpo rewards score vendi:features=pixels"),
]


@pytest.mark.slow
def test_the_commands_on_pixels_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ddpo: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for folder in ("images", "my_folder"):
        Path(folder).mkdir()
        for number in range(6):
            pixels = random.integers(0, 256, (32, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{folder}/{number}.png")
    pair = '{"prompt": "a cat", "image_a": "1.png", "image_b": "2.png", "label": "a"}\n'
    Path("choices.jsonl").write_text(pair, encoding="utf-8")
    Path("prompts.txt").write_text("a cat\n" * 3 + "a dog\n" * 3, encoding="utf-8")
    for page, start in ON_PIXELS:
        (line,) = [line for line in fenced_lines(ROOT / page) if line.startswith(start)]
        arguments = arguments_of(line)
        assert arguments
        code, _, error = ddpo(*arguments)
        assert code == 0, (line, error)
        written = [word for word in arguments if word.endswith((".parquet", ".json", ".png"))]
        assert all(Path(name).exists() for name in written if "=" not in name), line


def values_of(option: str, page: Path) -> set[str]:
    """The plain words that a page gives to an option, without files, addresses and comments."""
    text = re.sub(r" # .*", "", page.read_text(encoding="utf-8"))
    return set(re.findall(rf"{option} ([a-z]\w*)(?![\w./=-]|:/)", text))


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("--recipe", {path.stem for path in (ROOT / "ddpo" / "recipes").glob("*.toml")}),
        ("--prompts", {path.stem for path in (ROOT / "ddpo" / "prompts" / "lists").iterdir()}),
        ("--reward", {*CARDS}),
        ("--held-out", {*CARDS}),
    ],
)
def test_recipes_lists_and_rewards_that_the_pages_give_to_options_exist(
    option: str, known: set[str]
) -> None:
    named = {value for page in PAGES for value in values_of(option, page)}
    assert named
    assert named - known == set()
