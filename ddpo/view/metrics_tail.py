"""The curves of a run, read on from where the last look ended, while the training writes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ddpo.io.json_files import JsonLine, json_lines
from ddpo.text import shortened
from ddpo.trainer.run.fields import METRICS
from ddpo.view.run_files import file_inside
from ddpo.view.series import Series

__all__ = ["MetricsTail"]

METRICS_FILE: Final = "metrics.jsonl"
CURVES: Final = (
    "reward_mean",
    "reward_se",
    "held_out",
    "clip_fraction",
    "approx_kl",
    "reference_kl",
    "ratio_mean_deviation",
    "grad_norm",
    "loss",
    "unscorable",
    "zero_spread",
    "seconds",
)
"""Names of the numbers of `metrics.jsonl` that are kept."""
MOST_BYTES: Final = 4 << 20  # read in one look, so that an answer takes no longer for a huge file
MARK_BYTES: Final = 64  # before the place where reading continues


class MetricsTail:
    """The curves of one run; `read_on` adds what was written since.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._forget()

    def _forget(self) -> None:
        self.curves = {name: Series() for name in CURVES}
        self.last: Mapping[str, Any] = {}
        self.done = 0  # number of the last finished iteration
        self.damaged = 0  # lines
        self.unscorable: tuple[int, str] | None = None  # first iteration with such images, reason
        self.up_to_date = True
        self._offset = 0
        self._mark = b""

    def read_on(self) -> None:
        """Reads the next lines, at most a few MB; `up_to_date` is false if there are more.

        A file that was cut and written again, as at a resume, is read from its start.
        """
        path = file_inside(self._run, METRICS_FILE)
        try:
            if path is None or not self._is_continued(path):
                self._forget()
            if path is not None:
                self._read_lines(path)
        except OSError:  # removed or made unreadable meanwhile
            self._forget()

    @property
    def finite(self) -> bool:
        """False if the last loss, gradient or reward is no finite number."""
        names = ("loss", "grad_norm", "reward_mean")
        values = [value for name in names if isinstance(value := self.last.get(name), float)]
        return all(math.isfinite(value) for value in values)

    def _read_lines(self, path: Path) -> None:
        start = self._offset
        self.up_to_date = True
        for line in json_lines(path, METRICS, start):
            if line.cut_short:  # the trainer is writing it
                break
            self._take(line)
            self._offset = line.end
            if line.end - start > MOST_BYTES:
                self.up_to_date = False
                break
        self._mark = _before(path, self._offset)

    def _is_continued(self, path: Path) -> bool:
        """True if the file still starts with what was read of it."""
        return path.stat().st_size >= self._offset and _before(path, self._offset) == self._mark

    def _take(self, line: JsonLine) -> None:
        record = line.record
        if record is None or record["iteration"] <= self.done:
            self.damaged += record is None
            return
        iteration: int = record["iteration"]
        self.done = iteration
        self.last = record
        for name, curve in self.curves.items():
            curve.add(iteration, record.get(name))
        if record.get("unscorable") and self.unscorable is None:
            self.unscorable = (iteration, shortened(str(record.get("unscorable_reason")), 200))


def _before(path: Path, offset: int) -> bytes:
    """The bytes before a place in a file."""
    with path.open("rb") as file:
        file.seek(max(0, offset - MARK_BYTES))
        return file.read(min(offset, MARK_BYTES))
