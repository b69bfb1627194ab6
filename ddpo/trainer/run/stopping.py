"""Early stopping: a run ends once its held-out reward has fallen beyond chance.

`held_out.jsonl` holds the held-out scores of every checkpoint, image by image. The images of all
checkpoints come from the same prompts and noise, so their scores are compared in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import ConfigError
from ddpo.io.fields import COUNT, Fields, ListOf, Maybe
from ddpo.io.synced_lines import SyncedLines
from ddpo.text import count
from ddpo.trainer.run.ending_note import remove_note, write_note

if TYPE_CHECKING:
    from ddpo.stats.estimate import Estimate

__all__ = [
    "HELD_OUT_FILE",
    "STOP_FILE",
    "CheckpointScores",
    "Fall",
    "HeldOutScores",
    "check_not_stopped",
    "cut_scores",
    "find_fall",
    "forget_stop",
    "note_stop",
    "read_scores",
]

HELD_OUT_FILE: Final = "held_out.jsonl"
STOP_FILE: Final = "stopped.json"

LEVEL: Final = 0.05
"""Chance of calling a checkpoint fallen if no checkpoint differs from another."""

SCORES: Final[Fields] = {
    "iteration": COUNT,
    "reward": str,
    "scores": ListOf(ListOf(Maybe(float)), shortest=1),
}


@dataclass(frozen=True, slots=True)
class CheckpointScores:
    """The held-out scores of one checkpoint."""

    iteration: int  # 1-based iteration number
    reward: str  # signature of the held-out reward
    scores: tuple[tuple[float, ...], ...]  # per prompt, of each of its images; NaN: unscorable

    @property
    def mean(self) -> float | None:
        """Mean over the scored images; None if there is none."""
        known = [value for prompt in self.scores for value in prompt if not math.isnan(value)]
        return sum(known) / len(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """The scores as a line of `held_out.jsonl`, with null for an unscorable image."""
        scores = [[None if math.isnan(one) else one for one in prompt] for prompt in self.scores]
        return {"iteration": self.iteration, "reward": self.reward, "scores": scores}


@dataclass(frozen=True, slots=True)
class Fall:
    """The fall of the held-out reward at which a run stops."""

    iteration: int  # 1-based number of the iteration after which the run stops
    best: int  # 1-based iteration number of the best checkpoint
    change: Estimate  # mean change of the held-out score since the best checkpoint
    checkpoints: int  # number of last checkpoints that have all fallen

    @property
    def text(self) -> str:
        """The reason in words."""
        return (
            f"the held-out reward fell from iteration {self.best} to {self.iteration} by "
            f"{-self.change.mean:.3g} (95 % interval {-self.change.high:.3g} to "
            f"{-self.change.low:.3g}), at {count(self.checkpoints, 'checkpoint')} in a row"
        )


def find_fall(history: Sequence[CheckpointScores], patience: int) -> Fall | None:
    """The fall at which a run stops, or None while there is none.

    The best checkpoint is the one with the highest mean; of equal ones the first. A later
    checkpoint has fallen if its scores are lower than those of the best by a t-test over prompts.
    The best was chosen among all checkpoints, so the level of 5 % is divided by their number
    (Bonferroni). A run stops after `patience` fallen checkpoints in a row.

    Args:
        history: scores of all checkpoints so far, by one reward, in order.
        patience: number of checkpoints in a row, at least 1.
    """
    scored = [one for one in history if one.mean is not None]
    if len(scored) <= patience:
        return None
    best = max(scored, key=lambda one: one.mean or 0.0)
    last = scored[-patience:]
    changes = [_change(best, one) for one in last]
    level = LEVEL / len(scored)
    if all(change.mean < 0 and change.p <= level for change in changes):
        return Fall(last[-1].iteration, best.iteration, changes[-1], patience)
    return None


def _change(before: CheckpointScores, now: CheckpointScores) -> Estimate:
    """Mean change of the scores of the same images, clustered by prompt."""
    from ddpo.stats.estimate import clustered_mean  # imports numpy

    changes: list[float] = []
    prompts: list[int] = []
    for number, (old, new) in enumerate(zip(before.scores, now.scores, strict=True)):
        changes += [two - one for one, two in zip(old, new, strict=True)]
        prompts += [number] * len(old)
    return clustered_mean(changes, prompts)


class HeldOutScores:
    """The held-out scores of the checkpoints of a run, in `held_out.jsonl`.

    The file is read once; later checkpoints are known as they are appended.

    Args:
        run: the run folder, which this process owns.
    """

    def __init__(self, run: Path) -> None:
        self._lines = _lines(run)
        self._known: list[CheckpointScores] | None = None

    def append(self, scores: CheckpointScores) -> None:
        """Appends the scores of a checkpoint and syncs them to the disk.

        Raises:
            StorageFailure: they cannot be written.
        """
        self._lines.append(scores.to_dict())
        if self._known is not None:
            self._known.append(scores)

    def all(self) -> list[CheckpointScores]:
        """The scores that `read_scores` gives."""
        if self._known is None:
            self._known = [_from_dict(record) for record in self._lines.read()]
        return _comparable(self._known)


def read_scores(run: Path) -> list[CheckpointScores]:
    """The scores of all checkpoints, without damaged lines, which a warning names.

    Lines of another shape than the last one's are left out, such as those of other prompts.
    """
    return HeldOutScores(run).all()


def _lines(run: Path) -> SyncedLines:
    return SyncedLines(run / HELD_OUT_FILE, SCORES, "early stopping lacks its checkpoint")


def _comparable(found: list[CheckpointScores]) -> list[CheckpointScores]:
    return [one for one in found if _kind(one) == _kind(found[-1])]


def _from_dict(record: dict[str, Any]) -> CheckpointScores:
    scores = tuple(
        tuple(math.nan if value is None else float(value) for value in prompt)
        for prompt in record["scores"]
    )
    return CheckpointScores(record["iteration"], record["reward"], scores)


def _kind(scores: CheckpointScores) -> tuple[str, tuple[int, ...]]:
    """The reward and the numbers of images, which compared checkpoints share."""
    return scores.reward, tuple(map(len, scores.scores))


def cut_scores(run: Path, iteration: int) -> None:
    """Removes the scores of checkpoints after `iteration`, and damaged lines.

    Raises:
        OSError: the file cannot be written.
    """
    kept = [one.to_dict() for one in read_scores(run) if one.iteration <= iteration]
    _lines(run).replace(kept)


def note_stop(run: Path, fall: Fall) -> None:
    """Writes `stopped.json`, with the reason why a run ended early, as far as possible."""
    write_note(run / STOP_FILE, iteration=fall.iteration, best=fall.best, reason=fall.text)


def forget_stop(run: Path) -> None:
    """Removes the note, for a run that is resumed.

    Raises:
        OSError: it cannot be removed.
    """
    remove_note(run / STOP_FILE)


def check_not_stopped(run: Path, rule: str, patience: int, done: int) -> None:
    """Refuses to resume a run that its own rule would stop again at once.

    Args:
        run: the run folder.
        rule: setting `stop_when`.
        patience: setting `stop_patience`.
        done: number of finished iterations.

    Raises:
        ConfigError: the rule would stop it; the message says how to continue it.
    """
    if rule == "never":
        return
    history = [one for one in read_scores(run) if one.iteration <= done]
    fall = find_fall(history, patience)
    if fall is not None and fall.iteration == done:
        raise ConfigError(
            f"{run} has stopped: {fall.text}; its best checkpoint is {run / 'best'}. "
            "To continue it, add --stop-when never"
        )
