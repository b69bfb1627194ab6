"""`ddpo rewards new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ddpo.cli.console import echo


def new_command(
    name: Annotated[str, typer.Argument(help="Id of the reward: name, or vendor/name.")],
    kind: Annotated[
        Literal["function", "class", "model"], typer.Option(help="Form of the example reward.")
    ] = "function",
    out: Annotated[
        Path | None, typer.Option(help="Folder to make; default: ./VENDOR-NAME.")
    ] = None,
) -> None:
    """Write a package with a reward, its card and its tests, ready to install and change."""
    from ddpo.rewards.scaffold import write_package

    folder = write_package(name, kind, out)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        echo(path)
    echo(f"\nNow:  pip install -e {folder}  &&  pytest {folder}  &&  ddpo rewards show {name}")
