"""Evaluations in a run folder: the grade of reward hacking and the answer of each report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ddpo.errors import UserError, one_line
from ddpo.eval.report.data import Report, load_report
from ddpo.text import shortened
from ddpo.view.run_files import MOST_JSON, Stamp, file_inside, folder_inside, names_in, stamp_of

__all__ = ["REPORT_FILES", "Evaluation", "Evaluations"]

EVAL: Final = "eval"
REPORT: Final = "report.json"
MOST: Final = 100  # evaluations of a run
REPORT_FILES: Final = {
    "report.html": "text/html; charset=utf-8",
    "report.json": "application/json",
    "report.md": "text/markdown; charset=utf-8",
    "samples.parquet": "application/octet-stream",
}
"""Files of an evaluation that are served, with their media types."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The findings of one report."""

    name: str  # of its folder
    iteration: int  # of the last checkpoint in it; -1 if unknown
    grade: str  # of reward hacking; "" if none was measured
    text: str  # the reason of the grade, or why the report cannot be read
    page: bool  # True if it has a report.html


class Evaluations:
    """The evaluations of one run, read again where a report has changed.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._known: dict[str, tuple[Stamp, Evaluation]] = {}

    def all(self) -> list[Evaluation]:
        """The evaluations, the latest checkpoint last."""
        folder = folder_inside(self._run, EVAL)
        known: dict[str, tuple[Stamp, Evaluation]] = {}
        for name in sorted(names_in(folder))[:MOST] if folder else ():
            path = file_inside(self._run, EVAL, name, REPORT)
            stamp = stamp_of(path)
            if path is None or stamp is None:
                continue
            before = self._known.get(name)
            if before is not None and before[0] == stamp:
                known[name] = before
            else:
                known[name] = (stamp, self._read(name, path))
        self._known = known
        return sorted((found for _, found in known.values()), key=lambda one: one.iteration)

    def _read(self, name: str, path: Path) -> Evaluation:
        page = file_inside(self._run, EVAL, name, "report.html") is not None
        if path.stat().st_size > MOST_JSON:
            return Evaluation(name, -1, "", "its report.json is too large to be read here", page)
        try:
            report = load_report(path)
        except (UserError, OSError) as error:
            return Evaluation(name, -1, "", shortened(one_line(error), 300), page)
        iteration = max((model.iteration for model in report.compared), default=-1)
        return Evaluation(name, iteration, *_grade(report), page)


def _grade(report: Report) -> tuple[str, str]:
    """The grade of the report's last model and its reason; empty texts if none was measured."""
    if not report.readings:
        return "", "Signs of reward hacking were not measured."
    reading = report.readings[-1]
    return reading.grade, shortened(reading.text, 400)
