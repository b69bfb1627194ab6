"""`ddpo view`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from ddpo.cli.commands import examples
from ddpo.cli.console import echo
from ddpo.cli.options import EXECUTION, number_option, option
from ddpo.errors import MissingResourceError
from ddpo.ranges import PORT

FOLDER: Final = Path("runs")


@examples("ddpo view", "ddpo view runs/demo runs/other")
def view_command(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Run folders, or folders of runs; default: runs."),
    ] = None,
    port: Annotated[
        int, number_option(PORT, "Port to listen on; 0 for a free one.", panel=EXECUTION)
    ] = 0,
    browser: Annotated[
        bool, option("Open the page in the browser.", "--browser/--no-browser", panel=EXECUTION)
    ] = True,
) -> None:
    """Browse runs in the browser: curves, images, checkpoints and evaluations, also while training.

    The page is for this machine and your browser alone; the printed address holds its secret.
    Nothing is written, and no training is held up. Ctrl-C ends it.
    """
    from ddpo.view.run_index import RunIndex

    index = RunIndex(runs or [FOLDER])
    index.check()
    try:
        from ddpo.view.app import make_app
        from ddpo.web.frame import new_token, serve_page
    except ModuleNotFoundError as error:
        raise MissingResourceError(
            f'ddpo view needs {error.name!r}: pip install "ddpo[serve]"'
        ) from error
    token = new_token()
    serve_page(make_app(index, token), token, port, _announce, browser=browser)


def _announce(address: str) -> None:
    echo(f"Viewing at {address}\nCtrl-C ends it.")
