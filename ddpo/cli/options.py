"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ddpo.cli.completion import complete_reward, complete_reward_or_path
from ddpo.devices import AUTO
from ddpo.ranges import BATCH, IMAGES, Range
from ddpo.text import as_utf8

__all__ = [
    "AUTO",
    "DEVICE_HELP",
    "EVIDENCE",
    "EXECUTION",
    "INPUT",
    "MODEL",
    "OUTPUT",
    "AsJson",
    "BatchSize",
    "Device",
    "ImageLimit",
    "ImagePrompts",
    "OnePrompt",
    "RewardName",
    "RewardsAndImages",
    "RunDevice",
    "Trust",
    "UseCache",
    "limit_option",
    "number_option",
    "option",
    "out_option",
    "prompt_option",
]


INPUT: Final = "Input"
"""Panel of the options that name what a command works on."""

MODEL: Final = "Model"
"""Panel of the options that name a model, and how it samples."""

EVIDENCE: Final = "Evidence"
"""Panel of the options that decide what an evaluation measures."""

OUTPUT: Final = "Output"
"""Panel of the options that decide what is written and printed."""

EXECUTION: Final = "Execution"
"""Panel of the options about devices, batches, caches and trust, which change no result."""


def number_option(
    allowed: Range, help: str, name: str | None = None, *, panel: str | None = None
) -> Any:
    """An option whose number must be in a range.

    Args:
        allowed: Range of the number.
        help: Help of the option; a range that is not evident is added.
        name: Name of the option; None for that of its argument.
        panel: Group of the option in the help; None for the general one.
    """
    names = [name] if name else []
    return typer.Option(
        *names,
        help=f"{help} Range: {allowed.brief}." if allowed.brief else help,
        metavar="N" if allowed.whole else "X",
        callback=_check(allowed),
        rich_help_panel=panel,
    )


def _check(allowed: Range) -> Callable[[typer.CallbackParam, Any], Any]:
    """The callback that raises `ConfigError` for a number outside a range; None passes."""

    def check(param: typer.CallbackParam, value: Any) -> Any:
        return None if value is None else allowed.checked(param.opts[0], value)

    return check


DEVICE_HELP: Final = (
    "Torch device, such as cuda, cuda:1, mps or cpu; auto: the accelerator, else the CPU."
)


def option(
    help: str,
    *names: str,
    metavar: str | None = None,
    panel: str | None = None,
    complete: Callable[[str], list[str]] | None = None,
    callback: Callable[[Any], Any] | None = None,
) -> Any:
    """An option with a placeholder, a group in the help, and completion of its values.

    Args:
        help: Help of the option.
        names: Names of the option; none for that of its argument.
        metavar: Placeholder of the value; None for that of its type.
        panel: Group of the option in the help; None for the general one.
        complete: Function from the start of a value to its completions.
        callback: Function from the given value to that of the command.
    """
    return typer.Option(
        *names,
        help=help,
        metavar=metavar,
        rich_help_panel=panel,
        autocompletion=complete,
        callback=callback,
    )


def prompt_option(help: str) -> Any:
    """The option for one prompt, --prompt in every command.

    Args:
        help: Help of the option.
    """
    return option(help, "--prompt", metavar="TEXT", panel=INPUT, callback=_prompt)


def _prompt(value: str | None) -> str | None:
    return None if value is None else as_utf8(value)


def out_option(help: str, metavar: str = "FILE") -> Any:
    """The option for what a command writes, --out and -o in every command.

    Args:
        help: Help of the option.
        metavar: Placeholder: FILE or FOLDER.
    """
    return option(help, "--out", "-o", metavar=metavar, panel=OUTPUT)


def limit_option(help: str) -> Any:
    """The option that takes only the first of many inputs, --limit in every command.

    Args:
        help: Help of the option, which says what is counted.
    """
    return number_option(IMAGES, help, "--limit", panel=INPUT)


Device = Annotated[str, option(DEVICE_HELP, metavar="DEVICE", panel=EXECUTION)]
"""The device of a command without a run; "auto" by default."""

RunDevice = Annotated[
    str | None, option(f"{DEVICE_HELP} Default: the run's.", metavar="DEVICE", panel=EXECUTION)
]
"""The device of a command that reads a run."""

Trust = Annotated[
    list[str] | None,
    option(
        "Code or server that a run or checkpoint may name, such as ./file.py:Object; "
        "repeatable. Anything else that it names is neither run nor called.",
        "--trust",
        metavar="WORD",
        panel=EXECUTION,
    ),
]

AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="The result as one JSON document on standard output.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]

RewardName = Annotated[
    str,
    typer.Argument(
        metavar="REWARD",
        help="A reward of `ddpo rewards list`, ./file.py:Object or package.module:Object.",
        autocompletion=complete_reward,
    ),
]

RewardsAndImages = Annotated[
    list[str],
    typer.Argument(
        metavar="REWARD... IMAGES...",
        help="Rewards, then images, folders, tables and archives.",
        autocompletion=complete_reward_or_path,
    ),
]

ImagePrompts = Annotated[
    Path | None,
    option(
        "A .txt with one line per image, or a table with files and prompts.",
        "--prompts",
        metavar="FILE",
        panel=INPUT,
    ),
]

OnePrompt = Annotated[str | None, prompt_option("One prompt for all images.")]

ImageLimit = Annotated[int | None, limit_option("Number of first images that are scored.")]

BatchSize = Annotated[
    int,
    number_option(
        BATCH, "Largest number of images in a call of a reward.", "--batch-size", panel=EXECUTION
    ),
]

UseCache = Annotated[
    bool | None,
    option(
        "Use of the score cache; default: for all rewards but those in your own files.",
        "--cache/--no-cache",
        panel=EXECUTION,
    ),
]
"""The score cache's option; None if the user gave neither flag."""

ImageSize = Annotated[
    str | None,
    option(
        "Size of the images in pixels, such as 512, or 512x768 with the height first; default: the "
        "run's, else the model's own.",
        metavar="N",
        panel=MODEL,
    ),
]
