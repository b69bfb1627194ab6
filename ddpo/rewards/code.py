"""A digest of the local files that a reward's options name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["files_digest"]


def files_digest(options: Iterable[Any]) -> str:
    """Twelve hexadecimal digits over the files and folders among the values of a reward's options.

    They depend on paths, sizes and modification times. Weights may be gigabytes, so their bytes are
    not read. "" if no option names a file.
    """
    # os.path.exists is False for a text that is too long for a path
    names = [value for value in options if isinstance(value, str) and os.path.exists(value)]
    files = [
        file
        for place in map(Path, names)
        for file in ([place] if place.is_file() else sorted(place.rglob("*")))
        if file.is_file()
    ]
    states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:12] if states else ""
