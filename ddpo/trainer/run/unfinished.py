"""The remains of a run that finished no iteration, which a new run in the folder replaces."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from ddpo.io.lock import LOCK_FILE

__all__ = ["holds_something", "remove_unfinished"]

REMAINS: Final = ("config.json", "manifest.json")
GRID: Final = re.compile(r"iteration-000000\.png|\..*\.tmp")
"""Names in `samples/`: the images before training, or half written ones."""
TRACKED: Final = {
    "tensorboard": re.compile(r"events\.out\.tfevents\..*|\d+\.\d+"),
    "wandb": re.compile(r"run_id\.txt|latest-run|debug[\w-]*\.log|(?:offline-)?run-\d{8}_.*"),
}
"""Folder of a tracker → names in it of what the tracker writes when a run starts."""
EMPTY: Final = ("state", "checkpoints")
"""Folders that hold at most files that a kill left half written."""


def holds_something(folder: Path) -> bool:
    """True if a folder holds more than the remains of a run that finished no iteration."""
    return any(path.name != LOCK_FILE and not _is_remains(path) for path in folder.iterdir())


def remove_unfinished(folder: Path) -> None:
    """Removes the remains of a run that finished no iteration; its settings go last.

    Args:
        folder: Run folder that this process owns and that holds nothing else.
    """
    found = [path for path in folder.iterdir() if path.name != LOCK_FILE]
    for path in sorted(
        found, key=lambda path: REMAINS.index(path.name) if path.name in REMAINS else -1
    ):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_remains(path: Path) -> bool:
    """True for a file or folder that a run writes before its first iteration is finished."""
    if path.is_symlink():
        return False
    if path.is_file():
        return path.name in REMAINS or _is_temporary(path.name)
    if path.name == "samples":
        return all(GRID.fullmatch(inner.name) for inner in path.iterdir())
    if tracked := TRACKED.get(path.name):
        return all(tracked.fullmatch(inner.name) for inner in path.iterdir())
    return path.name in EMPTY and all(
        inner.name.startswith(".") and inner.name.endswith(".tmp") for inner in path.iterdir()
    )


def _is_temporary(name: str) -> bool:
    """True for the names under which the first files of a run are written."""
    starts = (".manifest.json.", ".config.json.", ".metrics.jsonl.")
    return name.startswith(starts) and name.endswith(".tmp")
