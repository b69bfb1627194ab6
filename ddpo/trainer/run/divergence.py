"""`diverged.json`: the reason why a training ended with a number that is not finite.

Resumed, such a run would end there again, so that a reader of its folder should know.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from ddpo.errors import StorageFailure, TrainingDiverged, one_line
from ddpo.io.atomic import storing, write_json

__all__ = ["DIVERGENCE_FILE", "forget_divergence", "note_divergence"]

DIVERGENCE_FILE: Final = "diverged.json"


def note_divergence(run: Path, error: TrainingDiverged) -> None:
    """Writes the reason into a run folder with finished iterations, as far as possible."""
    if (run / "metrics.jsonl").exists():
        note = {"reason": one_line(error), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        path = run / DIVERGENCE_FILE
        with suppress(StorageFailure), storing(path):
            write_json(path, note)


def forget_divergence(run: Path) -> None:
    """Removes the note, for a run that is resumed.

    Raises:
        OSError: it cannot be removed.
    """
    (run / DIVERGENCE_FILE).unlink(missing_ok=True)
