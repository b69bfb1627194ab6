"""Thumbnails of a run's image grids and of their single images, kept in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Final

from PIL import Image

from ddpo.errors import ConfigError
from ddpo.images import contact_sheet, load_image
from ddpo.thumbnails import thumbnail_png
from ddpo.trainer.monitoring.grid_shape import GAP, PROMPTS, ROWS
from ddpo.view.run_files import Stamp, file_inside, stamp_of

__all__ = ["SIDES", "Thumbnails", "columns_of"]

SAMPLES: Final = "samples"
SIDES: Final = (64, 128, 256, 512)
"""The sides of a thumbnail that may be asked for, in pixels."""
MOST_BYTES: Final = 48 << 20  # of all thumbnails that are kept
SHOWN: Final = 4  # images of a preview

Key = tuple[Path, Stamp, int]


def columns_of(prompts: Sequence[str]) -> int:
    """The number of columns of a run's grids."""
    return min(PROMPTS, len(prompts)) or 1


class Thumbnails:
    """Makes thumbnails once; one grid is decoded at a time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, list[bytes]] = OrderedDict()
        self._bytes = 0
        self._turn = Lock()

    def cell(self, run: Path, name: str, columns: int, cell: int, side: int) -> bytes:
        """One image of a grid, as PNG.

        Args:
            run: the run folder.
            name: file name of the grid.
            columns: number of columns of the grid.
            cell: 0-based place of the image, row after row.
            side: one of `SIDES`.

        Raises:
            ConfigError: there is no such image.
            ImageError: the file is damaged or too large.
        """
        cells = self._cells(run, name, columns, side)
        if not 0 <= cell < len(cells) - 1:
            raise ConfigError(f"{name} has no image {cell}")
        return cells[cell]

    def preview(self, run: Path, name: str, columns: int) -> bytes:
        """The first images of a grid side by side; arguments and errors as of `cell`."""
        return self._cells(run, name, columns, SIDES[0])[-1]

    def _cells(self, run: Path, name: str, columns: int, side: int) -> list[bytes]:
        """All images of a grid, then their preview."""
        path = file_inside(run, SAMPLES, name)
        stamp = stamp_of(path)
        if path is None or stamp is None or side not in SIDES:
            raise ConfigError(f"there is no image grid {name}")
        key = (path, stamp, side)
        with self._turn:
            if key not in self._kept:
                self._keep(key, _thumbnails(path, columns, side))
            self._kept.move_to_end(key)
            return self._kept[key]

    def _keep(self, key: Key, cells: list[bytes]) -> None:
        self._kept[key] = cells
        self._bytes += sum(map(len, cells))
        while self._bytes > MOST_BYTES and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= sum(map(len, gone))


def _thumbnails(path: Path, columns: int, side: int) -> list[bytes]:
    """Thumbnails of the images of a grid and of its preview; of another sheet, of all of it."""
    grid = load_image(path)
    cells = _cut(grid, columns) or [grid]
    shown = [cell.copy() for cell in cells[: min(columns, SHOWN)]]
    for cell in shown:
        cell.thumbnail((side, side))
    preview = contact_sheet(shown, columns=len(shown))
    return [*(thumbnail_png(cell, side) for cell in cells), thumbnail_png(preview, side * SHOWN)]


def _cut(grid: Image.Image, columns: int) -> list[Image.Image]:
    """The images of a grid, row after row; [] for an image that is no such grid."""
    width, rest = divmod(grid.width + GAP, columns)
    height, rest_of_rows = divmod(grid.height + GAP, ROWS)
    if rest or rest_of_rows or width <= GAP or height <= GAP:
        return []
    return [
        grid.crop((left, top, left + width - GAP, top + height - GAP))
        for top in range(0, grid.height, height)
        for left in range(0, grid.width, width)
    ]
