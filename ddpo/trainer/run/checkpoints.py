"""The checkpoints that stay on disk: the last few, and the best by a held-out reward.

The best by the *training* reward would be the one that games it most. A held-out reward on held-out
prompts, always from the same noise, ranks checkpoints by what they learned.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ddpo.io.atomic import remove_remains, storing, temporary_path, write_json
from ddpo.io.json_files import read_json
from ddpo.io.reading import unused
from ddpo.policies.checkpoints.folder import (
    BEST_FIELDS,
    BEST_FILE,
    POLICY_FILE,
    checkpoint_folders,
)

__all__ = ["keep_best", "prune"]


def keep_best(checkpoint: Path, iteration: int, reward: str, value: float) -> None:
    """Writes a checkpoint's name to `best.json` beside it if it is the best so far.

    Checkpoints are compared by the same held-out reward; of equal ones the first stays.

    Args:
        checkpoint: folder of the checkpoint.
        iteration: 1-based iteration number of the checkpoint.
        reward: signature of the held-out reward.
        value: mean score by that reward.

    Raises:
        StorageFailure: the file cannot be written.
        CheckpointError: the file is damaged.
    """
    path = checkpoint.with_name(BEST_FILE)
    if path.exists():
        before = read_json(path, BEST_FIELDS)
        earlier = before["reward"] == reward and before["iteration"] < iteration
        if earlier and before["value"] >= value:
            return
    best = {"folder": checkpoint.name, "iteration": iteration, "reward": reward, "value": value}
    with storing(path):
        write_json(path, best)


def prune(checkpoints: Path, keep: int) -> None:
    """Removes all checkpoints but the last `keep` and the best; each is gone whole or not at all.

    Args:
        checkpoints: folder of the checkpoints.
        keep: number of last checkpoints that stay; 0: all.

    Checkpoints that an evaluation reads stay until a later call.

    Raises:
        StorageFailure: one cannot be removed.
        CheckpointError: `best.json` is damaged.
    """
    remove_remains(checkpoints)
    for rest in checkpoints.glob(".iteration-*.tmp"):  # left by a kill
        shutil.rmtree(rest, ignore_errors=True)
    if not keep:
        return
    best = checkpoints / BEST_FILE
    kept = {read_json(best, BEST_FIELDS)["folder"]} if best.exists() else set()
    for folder in checkpoint_folders(checkpoints)[:-keep]:
        if folder.name in kept:
            continue
        gone = temporary_path(folder)
        with storing(folder), unused(folder / POLICY_FILE) as free:
            if free:
                folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
