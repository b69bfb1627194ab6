"""The shape of a run's image grids, for their writer and for readers without the trainer."""

from __future__ import annotations

from typing import Final

__all__ = ["GAP", "PROMPTS", "ROWS"]

PROMPTS: Final = 8  # columns: the first prompts of the list
ROWS: Final = 2  # noises of each prompt
GAP: Final = 2  # pixels between two images
