"""The report of `ddpo doctor`, as plain JSON values and as files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import ddpo
from ddpo.doctor.machine import Library, Machine
from ddpo.doctor.reward_states import RewardState
from ddpo.doctor.row import Row
from ddpo.doctor.table import markdown
from ddpo.io.atomic import storing, write_json, write_text

__all__ = ["Report", "SelfTestRecord", "write_report"]

SCHEMA: Final = 1  # raised when a field is renamed or removed


@dataclass(slots=True)
class SelfTestRecord:
    """Settings and rows of a self-test, which may still be running."""

    device: str
    size: str
    budget_s: float
    rows: list[Row] = field(default_factory=list)
    finished: bool = False


@dataclass(slots=True)
class Report:
    """The findings of `ddpo doctor`."""

    machine: Machine
    libraries: Sequence[Library]
    rewards: Sequence[RewardState]
    self_test: SelfTestRecord | None = None
    created: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    def problems(self) -> list[str]:
        """Problems, one line each: a needed library that does not fit, or a failed check.

        Missing weights and optional libraries are no problem, since they can be fetched.
        """
        found = [
            f"{library.name}{library.required} is needed; installed: {library.installed or 'none'}"
            for library in self.libraries
            if not library.extra and not library.fits
        ]
        rows = [] if self.self_test is None else self.self_test.rows
        failed = [row for row in rows if row.status == "failed"]
        return found + [f"{row.part}, {row.subject}: {row.note}" for row in failed]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the fields of each part are those of its dataclass."""
        test = self.self_test
        return {
            "schema": SCHEMA,
            "ddpo": ddpo.__version__,
            "created": self.created,
            "problems": self.problems(),
            "machine": self.machine.to_dict(),
            "libraries": [asdict(library) for library in self.libraries],
            "rewards": [state.to_dict() for state in self.rewards],
            "self_test": None
            if test is None
            else {
                "device": test.device,
                "size": test.size,
                "budget_s": test.budget_s,
                "finished": test.finished,
                "rows": [row.to_dict() for row in test.rows],
            },
        }


def write_report(report: Report, paths: tuple[Path, Path]) -> None:
    """Writes the JSON and the Markdown file, each whole or not at all.

    Raises:
        StorageFailure: A file cannot be written.
    """
    values = report.to_dict()
    with storing(paths[0]):
        write_json(paths[0], values)
    with storing(paths[1]):
        write_text(paths[1], markdown(values))
