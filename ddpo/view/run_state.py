"""The state of a run, from its lock file and its last metrics; no lock is taken."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from ddpo.io.lock import LOCK_FILE
from ddpo.io.lock_file import has_ended, record_of, text_of
from ddpo.io.process import here
from ddpo.trainer.run.divergence import DIVERGENCE_FILE
from ddpo.trainer.run.stopping import STOP_FILE
from ddpo.view.metrics_tail import MetricsTail
from ddpo.view.run_files import file_inside

__all__ = ["State", "is_training", "state_of"]

State = Literal["training", "finished", "diverged", "stopped"]
QUIET_SECONDS: Final = 3600.0
"""After this time without a finished iteration, an owner on another host counts as ended."""


def state_of(run: Path, config: Mapping[str, Any], tail: MetricsTail) -> State:
    """The state of a run.

    Args:
        run: the run folder.
        config: its settings.
        tail: its metrics.
    """
    if is_training(run):
        return "training"
    if not tail.finite or file_inside(run, DIVERGENCE_FILE) is not None:
        return "diverged"
    if file_inside(run, STOP_FILE) is not None:
        return "finished"
    planned = config.get("iterations")
    return "finished" if isinstance(planned, int) and tail.done >= planned > 0 else "stopped"


def is_training(run: Path) -> bool:
    """True if the owner that the lock file names still runs, as far as can be seen from here."""
    text = text_of(run / LOCK_FILE)
    if not text or has_ended(text):
        return False
    if record_of(text).get("host") == here():
        return True
    return time.time() - _last_change(run) < QUIET_SECONDS


def _last_change(run: Path) -> float:
    """The time of the last change of lock file, metrics or state; 0 without any."""
    times = [0.0]
    for name in (LOCK_FILE, "metrics.jsonl", "state"):
        try:
            times.append((run / name).lstat().st_mtime)
        except OSError:
            continue
    return max(times)
