"""`diverged.json`: the reason why a training ended with a number that is not finite.

Resumed, such a run would end there again, so that a reader of its folder should know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ddpo.errors import TrainingDiverged, one_line
from ddpo.trainer.run.ending_note import remove_note, write_note

__all__ = ["DIVERGENCE_FILE", "forget_divergence", "note_divergence"]

DIVERGENCE_FILE: Final = "diverged.json"


def note_divergence(run: Path, error: TrainingDiverged) -> None:
    """Writes the reason into a run folder with finished iterations, as far as possible."""
    if (run / "metrics.jsonl").exists():
        write_note(run / DIVERGENCE_FILE, reason=one_line(error))


def forget_divergence(run: Path) -> None:
    """Removes the note, for a run that is resumed.

    Raises:
        OSError: it cannot be removed.
    """
    remove_note(run / DIVERGENCE_FILE)
