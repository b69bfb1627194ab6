"""Outcome of a torture trial: how often something was tried, and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Outcome"]


@dataclass(slots=True)
class Outcome:
    """Counts of one trial.

    Attributes:
        what: the thing tried, such as "kills of training".
        tries: number of kills, cuts, inputs or requests.
        faults: one line for each loss, foreign exception, hang or excess.
        measures: figures worth keeping, such as {"seconds": 12.0, "peak MiB": 310.0}.
    """

    what: str
    tries: int = 0
    faults: list[str] = field(default_factory=list)
    measures: dict[str, float] = field(default_factory=dict)

    def count(self, fault: str | None) -> None:
        """Counts one try and its fault, if it has one."""
        self.tries += 1
        if fault:
            self.faults.append(fault)

    def line(self) -> str:
        """The outcome on one line, as `docs/reliability.md` shows it."""
        measures = ", ".join(f"{name} {value:.4g}" for name, value in self.measures.items())
        counts = f"{self.what}: {self.tries} tries, {len(self.faults)} faults"
        return f"{counts} ({measures})" if measures else counts
