"""A console of rich through which no text of a user, plug-in or server can steer the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table

from ddpo.cli.narrow_tables import fits, stacked
from ddpo.text import without_controls

__all__ = ["Terminal"]


class Terminal(Console):
    """A console that escapes the control characters of all texts, and sends only rich's own.

    A table for which it is too narrow is printed row by row, so that no label is cut.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The parts of a renderable; those of text without control characters."""
        if isinstance(renderable, Table) and not fits(renderable, self, options or self.options):
            renderable = Group(*stacked(renderable))
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(without_controls(segment.text), segment.style)
