"""Notes in a run folder about the reason why a training ended before its last iteration."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from ddpo.errors import StorageFailure
from ddpo.io.atomic import storing, write_json

__all__ = ["remove_note", "write_note"]


def write_note(path: Path, **facts: int | str) -> None:
    """Writes facts and the time to a JSON file, as far as possible."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with suppress(StorageFailure), storing(path):
        write_json(path, {**facts, "at": at})


def remove_note(path: Path) -> None:
    """Removes a note, for a run that is resumed.

    Raises:
        OSError: it cannot be removed.
    """
    path.unlink(missing_ok=True)
