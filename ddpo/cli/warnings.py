"""What a warning looks like on the command line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

__all__ = ["one_line_warnings"]


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Within it, warnings are one line each on stderr, without the place in the code.

    Those of Pillow about damaged metadata are left out: they do not name the file, and an image
    that cannot be read is reported by itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.showwarning = lambda message, *_, **__: typer.secho(
            f"warning: {message}", fg="yellow", err=True
        )
        yield
