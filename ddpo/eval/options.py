"""The option of `ddpo eval` for each field of `EvalConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["SAMPLER", "option_of"]

SAMPLER: Final = ("steps", "guidance", "eta", "transition", "grid", "size")
"""Fields that replace the sampler's settings of the trained run."""

RENAMED: Final[Mapping[str, str]] = {
    "checkpoints": "checkpoint",
    "rewards": "reward",
    "seeds": "per-prompt",
    "history_seeds": "history-per-prompt",
    "base": "model",
}
"""Fields whose option has another name."""


def option_of(field: str) -> str:
    """The option of a field, such as `--per-prompt` of `seeds`."""
    return f"--{RENAMED.get(field, field).replace('_', '-')}"
