"""`ddpo rewards new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ddpo.cli.commands import examples
from ddpo.cli.console import echo, print_json
from ddpo.cli.options import INPUT, AsJson, option, out_option
from ddpo.cli.verbosity import is_quiet


@examples("ddpo rewards new redness", "ddpo rewards new acme/redness --kind model")
def new_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Id of the reward: name, or vendor/name.")
    ],
    kind: Annotated[
        Literal["function", "class", "model"], option("Form of the example reward.", panel=INPUT)
    ] = "function",
    out: Annotated[
        Path | None, out_option("Folder to make; default: ./VENDOR-NAME.", "FOLDER")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a package with a reward, its card and its tests, ready to install and change."""
    from ddpo.rewards.scaffold import write_package

    folder = write_package(name, kind, out)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if as_json:
        print_json({"out": str(folder), "files": [str(path) for path in files]})
        return
    for path in files:
        echo(path)
    if not is_quiet():
        echo(f"\nNow:  pip install -e {folder}  &&  pytest {folder}  &&  ddpo rewards show {name}")
