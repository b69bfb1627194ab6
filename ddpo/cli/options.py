"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ddpo.devices import AUTO
from ddpo.ranges import BATCH, Range

__all__ = [
    "AUTO",
    "DEVICE_HELP",
    "AsJson",
    "BatchSize",
    "Device",
    "ImagePrompts",
    "OnePrompt",
    "RewardName",
    "RunDevice",
    "Trust",
    "UseCache",
    "number_option",
]


def number_option(allowed: Range, help: str, name: str | None = None) -> Any:
    """An option whose number must be in a range.

    Args:
        allowed: Range of the number.
        help: Help of the option; the range is added.
        name: Name of the option; None for that of its argument.
    """
    names = [name] if name else []
    return typer.Option(*names, help=f"{help} Range: {allowed.text}.", callback=_check(allowed))


def _check(allowed: Range) -> Callable[[typer.CallbackParam, Any], Any]:
    """The callback that raises `ConfigError` for a number outside a range; None passes."""

    def check(param: typer.CallbackParam, value: Any) -> Any:
        return None if value is None else allowed.checked(param.opts[0], value)

    return check


DEVICE_HELP: Final = (
    "Torch device, such as cuda, cuda:1, mps or cpu; auto: the accelerator, else the CPU."
)

Device = Annotated[str, typer.Option(help=DEVICE_HELP)]
"""The device of a command without a run; "auto" by default."""

RunDevice = Annotated[str | None, typer.Option(help=f"{DEVICE_HELP} Default: the run's.")]
"""The device of a command that reads a run."""

Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="WORD",
        help="Code or server that a run or checkpoint may name, such as ./file.py:Object; "
        "repeatable. Anything else that it names is neither run nor called.",
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, not a table.")]

RewardName = Annotated[
    str,
    typer.Argument(
        help="A reward of `ddpo rewards list`, ./file.py:Object or package.module:Object."
    ),
]

ImagePrompts = Annotated[
    Path | None,
    typer.Option(
        "--prompts", help="A .txt with one line per image, or a table with files and prompts."
    ),
]

OnePrompt = Annotated[str | None, typer.Option("--prompt", help="One prompt for all images.")]

BatchSize = Annotated[
    int, number_option(BATCH, "Largest number of images in a call of a reward.", "--batch-size")
]

UseCache = Annotated[
    bool | None,
    typer.Option(
        "--cache/--no-cache",
        help="Use of the score cache; default: for all rewards but those in your own files.",
    ),
]
"""The score cache's option; None if the user gave neither flag."""
