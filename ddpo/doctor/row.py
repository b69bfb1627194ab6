"""One row of the self-test: the subject of a check and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Outcome", "Row", "Status", "Value"]

Status = Literal["ok", "failed", "measured", "did not fit", "skipped"]
Value = float | int | str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one check, whose values have their unit at the end of their name."""

    status: Status
    values: Mapping[str, Value] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Result of one check with its place in the self-test."""

    part: str  # one word, such as "ratio"
    subject: str  # such as "tiny, float32"
    status: Status
    values: Mapping[str, Value]
    note: str
    seconds: float  # duration of the check

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"values": dict(self.values)}
