"""The names of the tie conventions, for commands that answer before numpy is imported."""

from __future__ import annotations

from typing import Final

__all__ = ["TIE_CONVENTIONS"]

TIE_CONVENTIONS: Final = ("imagereward", "hpsv2", "pickapic", "acc_eq")
"""The names in `ddpo.stats.pairwise.CONVENTIONS`, the default of commands first."""
