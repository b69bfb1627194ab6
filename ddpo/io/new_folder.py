"""The check of a folder that a command makes, before time is spent on its contents."""

from __future__ import annotations

import os
from pathlib import Path

from ddpo.errors import ConfigError, RunExistsError
from ddpo.io.atomic import check_folder_writable, check_not_of_a_run

__all__ = ["check_new_folder"]


def check_new_folder(path: Path) -> None:
    """Refuses a path at which no new folder can be made; nothing is left there.

    Raises:
        RunExistsError: A file or a folder that holds something is there.
        ConfigError: The path belongs to a run or an evaluation, or cannot be written.
    """
    try:
        taken = os.path.lexists(path) and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise ConfigError(f"{path} cannot be listed: {error.strerror}") from error
    if taken:
        raise RunExistsError(f"{path} is not an empty folder: choose another --out")
    check_not_of_a_run(path)
    check_folder_writable(path.parent)
