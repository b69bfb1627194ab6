"""One line of the self-test: what was checked or measured, and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Outcome", "Row", "Status", "Value"]

Status = Literal["ok", "failed", "measured", "did not fit", "skipped"]
Value = float | int | str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one check; the unit of a value is the end of its name."""

    status: Status
    values: Mapping[str, Value] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Result of one check with its place in the self-test."""

    part: str  # one word, such as "ratio"
    subject: str  # what was checked
    status: Status
    values: Mapping[str, Value]
    note: str
    seconds: float  # that the check took

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"values": dict(self.values)}
