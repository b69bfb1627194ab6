"""The check that samples can be written to a folder, made before anything heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ddpo.errors import ConfigError, RunExistsError
from ddpo.io.lock import LOCK_FILE

__all__ = ["MARK", "check_free"]

MARK: Final = ".unfinished.json"
"""File of an unfinished sampling."""


def check_free(out: Path) -> None:
    """Checks that a folder is absent, empty, or of an unfinished sampling.

    Raises:
        RunExistsError: it is a file, or holds something else.
        ConfigError: it cannot be listed.
    """
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise RunExistsError(f"{out} is not a folder: choose another --out")
    try:
        taken = _holds_something(out) and not (out / MARK).is_file()
    except OSError as error:
        raise ConfigError(f"{out} cannot be listed: {error.strerror}") from error
    if taken:
        raise RunExistsError(f"{out} is not an empty folder: choose another --out")


def _holds_something(folder: Path) -> bool:
    """True if a folder holds more than a lock and the remains of a mark."""
    return any(
        path.name != LOCK_FILE and not path.name.startswith(f".{MARK}.")
        for path in folder.iterdir()
    )
