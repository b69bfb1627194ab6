"""Views of matched images: base and tuned models from the same noise, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ddpo.eval.analysis.tables import Pair
from ddpo.eval.report.data import Report, SplitFacts
from ddpo.eval.report.gallery import choose_gallery, choose_strip
from ddpo.eval.report.inline_images import ImageEncoder, InlineImage
from ddpo.eval.report.selection import model_class, primary_reward
from ddpo.eval.report.wording import number, reward_title, shortened, split_title

__all__ = ["FigureView", "Grid", "ImageGrids", "Shot", "SplitImages"]

STRIP_SIZE: Final = 8
ALT_LENGTH: Final = 80
CAPTION_LENGTH: Final = 160


@dataclass(frozen=True, slots=True)
class Shot:
    """One image with its score."""

    model: str  # "base", or the name of the model
    css: str
    alt: str
    image: InlineImage | None  # None if the file is missing
    score: str
    change: str  # score minus that of the base model; "" for the base model
    change_css: str  # "up", "down" or ""


@dataclass(frozen=True, slots=True)
class FigureView:
    """All images of one prompt and one noise."""

    number: int  # unique on the page
    prompt: str
    reward: str
    shots: Sequence[Shot]


@dataclass(frozen=True, slots=True)
class Grid:
    """Figures under a heading."""

    heading: str
    css: str  # classes of the model that it is about; "" for all models
    figures: Sequence[FigureView]


@dataclass(frozen=True, slots=True)
class SplitImages:
    """The grids of one prompt list."""

    title: str
    role: str
    is_open: bool
    grids: Sequence[Grid]


class ImageGrids:
    """Chooses and encodes the images of one page.

    Args:
        report: the report.
        pairs: matched pairs of images of the report.
        encoder: encoder of the folder that holds the images.
        numbers: numbers of figures that the page has not used.
    """

    def __init__(
        self,
        report: Report,
        pairs: Sequence[Pair],
        encoder: ImageEncoder,
        numbers: Iterator[int],
    ) -> None:
        self._report = report
        self._pairs = pairs
        self._encoder = encoder
        self._of_noise = _by_noise(report, pairs)
        self._numbers = numbers

    def strip(self) -> list[FigureView]:
        """Figures chosen at random from all prompt lists; empty without pairs."""
        names = {pair.model for pair in self._pairs}
        first = next((m.name for m in self._report.compared if m.name in names), "")
        own = [pair for pair in self._pairs if pair.model == first]
        chosen = choose_strip(own, [split.name for split in self._report.splits], STRIP_SIZE)
        return [self._figure(pair, primary_reward(self._report, first)) for pair in chosen]

    def galleries(self, size: int) -> list[SplitImages]:
        """The `size` largest losses and gains of each model and list, and a random choice."""
        open_lists = 2 if len(self._report.compared) == 1 else 1
        galleries = []
        for position, split in enumerate(self._report.splits):
            if grids := self._grids(split, size):
                title = split_title(split.name)
                galleries.append(SplitImages(title, split.role, position < open_lists, grids))
        return galleries

    def _grids(self, split: SplitFacts, size: int) -> list[Grid]:
        compared = self._report.compared
        pairs = [pair for pair in self._pairs if pair.split == split.name]
        grids: list[Grid] = []
        for model in compared:
            reward = primary_reward(self._report, model.name)
            gallery = choose_gallery([p for p in pairs if p.model == model.name], reward, size)
            of_model = f" of {model.name}" if len(compared) > 1 else ""
            rest = f"{of_model} by {reward_title(reward)}"
            has_fallen = any(pair.gain(reward) < 0 for pair in gallery.losses)
            losses = "Largest losses" if has_fallen else "Smallest gains"
            if model is compared[0]:
                title = f"Chosen at random, scores by {reward_title(reward)}"
                at_random = Grid(title, "", self._figures(gallery.random, reward))
            css = model_class(self._report, model.name)
            grids += [
                Grid(losses + rest, css, self._figures(gallery.losses, reward)),
                Grid(f"Largest gains{rest}", css, self._figures(gallery.gains, reward)),
            ]
        return [grid for grid in (*grids, at_random) if grid.figures] if compared else []

    def _figures(self, chosen: Sequence[Pair], reward: str) -> list[FigureView]:
        return [self._figure(pair, reward) for pair in chosen]

    def _figure(self, pair: Pair, reward: str) -> FigureView:
        """All images of the noise of `pair`, with their scores by `reward`."""
        by_model = self._of_noise[pair.split, pair.prompt_id, pair.index]
        score = pair.base.get(reward, math.nan)
        shots = [self._shot(pair, "base", pair.base_image, math.nan, score)]
        for model in self._report.compared:
            if other := by_model.get(model.name):
                after = other.tuned.get(reward, math.nan)
                before = other.base.get(reward, math.nan)
                shots.append(self._shot(other, model.name, other.tuned_image, before, after))
        prompt = shortened(pair.prompt, CAPTION_LENGTH)
        return FigureView(next(self._numbers), prompt, reward_title(reward), shots)

    def _shot(self, pair: Pair, model: str, file: str | None, before: float, score: float) -> Shot:
        """The image of one model; `before` is NaN for the base model."""
        prompt = shortened(pair.prompt, ALT_LENGTH)
        change_text, change_css = _change(before, score)
        return Shot(
            model,
            "" if model == "base" else model_class(self._report, model),
            f"{prompt}, sample {pair.index}, {model}, score {number(score)}",
            self._encoder.encode(file),
            "not scored" if math.isnan(score) else number(score),
            change_text,
            change_css,
        )


def _by_noise(
    report: Report, pairs: Sequence[Pair]
) -> Mapping[tuple[str, str, int], Mapping[str, Pair]]:
    """(split, prompt id, index) → model → pair of the compared models."""
    compared = {model.name for model in report.compared}
    found: dict[tuple[str, str, int], dict[str, Pair]] = {}
    for pair in pairs:
        if pair.model in compared:
            found.setdefault((pair.split, pair.prompt_id, pair.index), {})[pair.model] = pair
    return found


def _change(before: float, after: float) -> tuple[str, str]:
    """The text and the CSS class of a change, with the decimals of the scores beside it.

    Empty where a score is missing.
    """
    change = after - before
    if math.isnan(change):
        return "", ""
    scores = (number(before), number(after))
    decimals = min(len(score.partition(".")[2]) for score in scores)
    size = f"{abs(change):.{decimals}f}"
    if any("e" in score for score in scores) or (change and float(size) == 0):
        size = number(abs(change), 1)
    if change > 0:
        return f"▲{size}", "up"
    return (f"▼{size}", "down") if change < 0 else (f"={size}", "")
