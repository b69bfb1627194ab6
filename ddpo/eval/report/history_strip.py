"""The run history as images: base model and checkpoints in order, on the same prompts and noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ddpo.eval.analysis.history import HistoryPoint, RunHistory
from ddpo.eval.analysis.tables import Pair
from ddpo.eval.inputs.models import BASE
from ddpo.eval.report.data import Report
from ddpo.eval.report.findings import findings_of
from ddpo.eval.report.gallery import choose_strip
from ddpo.eval.report.image_grids import ALT_LENGTH, CAPTION_LENGTH, FigureView, Shot
from ddpo.eval.report.inline_images import ImageEncoder
from ddpo.eval.report.selection import model_class, primary_reward
from ddpo.eval.report.wording import number, reward_title, shortened

__all__ = ["HistoryStrip", "Milestones", "StripColumn", "history_strips", "milestones"]

ROWS: Final = 4  # prompts of a strip
COLUMNS: Final = 8  # checkpoints of a strip, with the base model
SIDE: Final = 256  # largest side of its images in pixels, on the page only

Scored = Mapping[str, Pair]
"""Model → its pair of one prompt and noise."""


@dataclass(frozen=True, slots=True)
class Milestones:
    """Iterations of a run history; -1: none.

    Attributes:
        hacking: first checkpoint of those at the end that all show strong signs of reward hacking.
        decline: first checkpoint at which a held-out reward is significantly below its best.
        recommended: earlier checkpoint to use.
    """

    hacking: int
    decline: int
    recommended: int


@dataclass(frozen=True, slots=True)
class StripColumn:
    """The heading of a column."""

    label: str  # "base", or the iteration
    name: str  # the same in words
    is_recommended: bool
    is_hacking: bool
    is_decline: bool


@dataclass(frozen=True, slots=True)
class HistoryStrip:
    """The images of one run."""

    run: str
    columns: Sequence[StripColumn]
    rows: Sequence[FigureView]
    checkpoints: int  # of the history, of which some may be left out here

    @property
    def shown(self) -> int:
        """The number of checkpoints with a column."""
        return len(self.columns) - 1


def history_strips(
    report: Report, pairs: Sequence[Pair], encoder: ImageEncoder, numbers: Iterator[int]
) -> dict[str, HistoryStrip]:
    """Last checkpoint of a run → its strip; empty without earlier checkpoints.

    Args:
        report: the report.
        pairs: matched pairs of images, those of earlier checkpoints included.
        encoder: encoder of the folder that holds the images.
        numbers: numbers of figures that the page has not used.
    """
    found = {}
    for history in report.courses:
        strip = _strip(report, history, pairs, encoder, numbers)
        if strip is not None:
            found[history.points[-1].model] = strip
    return found


def milestones(report: Report, history: RunHistory) -> Milestones:
    """The onset of reward hacking or of a decline, and the checkpoint to use, as in the answer."""
    last = history.points[-1].model
    model = next((one for one in report.compared if one.name == last), None)
    if model is None:
        return Milestones(-1, -1, -1)
    found = findings_of(report, model)
    return Milestones(found.begins, found.declines_from, found.use)


def _strip(
    report: Report,
    history: RunHistory,
    pairs: Sequence[Pair],
    encoder: ImageEncoder,
    numbers: Iterator[int],
) -> HistoryStrip | None:
    if len(history.points) < 3:
        return None
    found = milestones(report, history)
    points = _chosen(history.points, found)
    shared = _shared(history, points, pairs)
    last = history.points[-1].model
    rows = choose_strip([of[last] for of in shared.values()], [history.split], ROWS)
    if not rows:
        return None
    reward = primary_reward(report, last)
    figures = []
    for row in rows:
        scored = shared[row.prompt_id, row.index]
        shots = [_shot(report, point, scored, reward, encoder) for point in points]
        prompt = shortened(row.prompt, CAPTION_LENGTH)
        figures.append(FigureView(next(numbers), prompt, reward_title(reward), shots))
    columns = [
        StripColumn(
            "base" if point.iteration == 0 else str(point.iteration),
            _title(point),
            point.iteration == found.recommended,
            point.iteration == found.hacking,
            point.iteration == found.decline,
        )
        for point in points
    ]
    return HistoryStrip(history.run, columns, figures, len(history.points) - 1)


def _chosen(points: Sequence[HistoryPoint], found: Milestones) -> list[HistoryPoint]:
    """The base model, the last checkpoint, the milestones, and evenly spaced others."""
    last = len(points) - 1
    places = [place for place, one in enumerate(points) if one.iteration in _iterations(found)]
    kept = {0, last, *places}
    steps = (round(step * last / (COLUMNS - 1)) for step in range(COLUMNS))
    for place in steps:
        if len(kept) < COLUMNS:
            kept.add(place)
    return [points[place] for place in sorted(kept)]


def _iterations(found: Milestones) -> set[int]:
    return {found.hacking, found.decline, found.recommended}


def _shared(
    history: RunHistory, points: Sequence[HistoryPoint], pairs: Sequence[Pair]
) -> dict[tuple[str, int], Scored]:
    """(prompt id, index) → pairs, of the images that all of `points` have."""
    models = {point.model for point in points if point.model != BASE}
    by_noise: dict[tuple[str, int], dict[str, Pair]] = {}
    for pair in pairs:
        if pair.model in models and pair.split == history.split:
            by_noise.setdefault((pair.prompt_id, pair.index), {})[pair.model] = pair
    return {noise: found for noise, found in by_noise.items() if found.keys() == models}


def _shot(
    report: Report, point: HistoryPoint, scored: Scored, reward: str, encoder: ImageEncoder
) -> Shot:
    """The image of one checkpoint; that of the base model comes from the pair of any other."""
    is_base = point.model == BASE
    pair = next(iter(scored.values())) if is_base else scored[point.model]
    score = (pair.base if is_base else pair.tuned).get(reward, math.nan)
    file = pair.base_image if is_base else pair.tuned_image
    prompt = shortened(pair.prompt, ALT_LENGTH)
    return Shot(
        _title(point),
        model_class(report, point.model) if point.model != BASE else "",
        f"{prompt}, sample {pair.index}, {_title(point)}, score {number(score)}",
        encoder.encode(file, SIDE),
        "not scored" if math.isnan(score) else number(score),
        "",
        "",
    )


def _title(point: HistoryPoint) -> str:
    return f"iteration {point.iteration}" if point.iteration else "base model"
