"""Tables of rewards and scores, as data frames that show themselves whole in a notebook."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import pandas as pd
from PIL import Image

from ddpo.errors import ImageError
from ddpo.images import load_image
from ddpo.thumbnails import SHOWN, strip_html

__all__ = ["RewardTable", "ScoreTable"]

FACTS: Final = ("image", "prompt", "error")
"""Columns of a table of scores that hold no scores."""


class RewardTable(pd.DataFrame):
    """One row per reward; a notebook shows all rows and whole texts."""

    @property
    def _constructor(self) -> type[RewardTable]:
        return RewardTable

    def _repr_html_(self) -> str | None:
        with pd.option_context("display.max_colwidth", None, "display.max_rows", None):
            return _html_of(self)


class ScoreTable(pd.DataFrame):
    """One row per image; a notebook shows the images of the first rows above the table.

    Sorted or cut, the table shows the images of the rows that are first then.

    Attributes:
        in_memory: Entry of the column `image` → small copy of an image that is in no file.
    """

    _metadata: ClassVar[list[str]] = ["in_memory"]
    in_memory: Mapping[str, Image.Image] = {}  # never changed in place

    @property
    def _constructor(self) -> type[ScoreTable]:
        return ScoreTable

    def _repr_html_(self) -> str | None:
        table = _html_of(self)
        return table if table is None else self._strip() + table

    def _strip(self) -> str:
        """The images of the first rows that can be read; "" for none."""
        if not {"image", "prompt"} <= {*self.columns}:
            return ""
        images = []
        captions = []
        for row in self.head(SHOWN).to_dict("records"):
            image = self._image(row["image"])
            if image is not None:
                images.append(image)
                captions.append(_caption(row))
        return strip_html(images, captions, shown_captions=True) if images else ""

    def _image(self, name: Any) -> Image.Image | None:
        if not isinstance(name, str):
            return None
        if name in self.in_memory:
            return self.in_memory[name]
        if not os.path.isfile(name):
            return None
        try:
            return load_image(Path(name))
        except ImageError:
            return None


def _html_of(table: pd.DataFrame) -> str | None:
    """The HTML of pandas; None where its options turn that off."""
    found: str | None = pd.DataFrame._repr_html_(table)  # type: ignore[attr-defined]
    return found


def _caption(row: Mapping[Any, Any]) -> str:
    """The scores of an image, then its prompt."""
    scores = [
        f"{name} {value:.4g}"
        for name, value in row.items()
        if name not in FACTS and isinstance(value, float) and not math.isnan(value)
    ]
    prompt = row["prompt"] if isinstance(row["prompt"], str) else ""
    return " · ".join([*scores, *([prompt] if prompt else [])])
