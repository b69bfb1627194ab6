"""The grades of reward hacking, in their order."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["ORDER", "UNTOLD", "Grade"]

Grade = Literal["no sign", "watch", "strong signs", "not measured", "too little measured"]
ORDER: Final[tuple[Grade, ...]] = (
    "not measured",
    "too little measured",
    "no sign",
    "watch",
    "strong signs",
)
UNTOLD: Final[tuple[Grade, ...]] = ("not measured", "too little measured")
"""Grades without a statement about hacking; the second is only an overall grade."""
