"""Which local files give a score, so that a change is noticed even if no version was raised."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["files_digest"]


def files_digest(options: Iterable[Any]) -> str:
    """Twelve hexadecimal digits over sizes and times of modification of the files and folders among the values of a reward's options.

    "" if there is none. Weights may be gigabytes, so their bytes are not read.
    """
    places = [
        Path(value) for value in options if isinstance(value, str) and os.path.exists(value)
    ]  # False for a text too long for a path
    files = [
        file
        for place in places
        for file in ([place] if place.is_file() else sorted(place.rglob("*")))
        if file.is_file()
    ]
    states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:12] if states else ""
