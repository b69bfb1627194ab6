"""Views of changes beside the reward: pixel statistics, diversity and prompt dependence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ddpo.eval.analysis.diversity import DiversityChange
from ddpo.eval.analysis.prompt_dependence import Dependence
from ddpo.eval.analysis.tables import Gain
from ddpo.eval.report.data import Report, RewardFacts
from ddpo.eval.report.interval_plots import Axis, Mark
from ddpo.eval.report.selection import gains_of, model_class, rewards_of
from ddpo.eval.report.table_views import (
    Cell,
    Label,
    PlotGroup,
    PlotRow,
    PlotTable,
    TableRow,
    interval_mark,
)
from ddpo.eval.report.wording import (
    estimate_text,
    number,
    range_text,
    rounded,
    score_text,
    split_title,
)

__all__ = ["ChangesView", "artefacts_view", "diversity_views"]

Change = DiversityChange | Dependence
SCOPES: Final = {"within": "between images of one prompt", "across": "between prompts"}
TESTS: Final = {
    "swap": "swap test: how far an image moves when only its prompt changes",
    "explained": "share of the variance between images that their prompts explain (ω²)",
}


@dataclass(frozen=True, slots=True)
class ChangesView:
    """A table with a plot of all prompt lists, and all its numbers."""

    title: str
    table: PlotTable
    rows: Sequence[TableRow]


def artefacts_view(report: Report) -> ChangesView | None:
    """The effect sizes of the pixel statistics; None without any."""
    rewards = rewards_of(report, "artefact")
    gains = [gain for reward in rewards for gain in gains_of(report, reward=reward.id)]
    if not gains:
        return None
    marks = [interval_mark(gain.z, gain.role) for gain in gains]
    groups = [_artefact_group(report, reward) for reward in rewards]
    table = PlotTable.of(groups, Axis.over(marks, 0.0, "standard deviations"))
    return ChangesView("Pixel statistics", table, [_artefact_numbers(report, g) for g in gains])


def _artefact_group(report: Report, reward: RewardFacts) -> PlotGroup:
    rows = [_artefact_row(report, model.name, reward.id) for model in report.compared]
    return PlotGroup(Label(reward.id, note=str(reward.card.get("summary", ""))), rows)


def _artefact_row(report: Report, model: str, reward: str) -> PlotRow:
    gains = gains_of(report, model=model, reward=reward)
    training = [estimate_text(gain.z) for gain in gains if gain.role == "seen"]
    held_out = [gain for gain in gains if gain.role != "seen" and math.isfinite(gain.z.mean)]
    largest = max(held_out, key=lambda gain: abs(gain.z.mean), default=None)
    marks = [interval_mark(gain.z, gain.role) for gain in gains]
    elsewhere = Cell("–")
    if largest is not None:
        elsewhere = Cell(estimate_text(largest.z), note=split_title(largest.split))
    cells = [Cell("; ".join(training) or "–"), elsewhere]
    return PlotRow(Label(model), marks, cells, model_class(report, model))


def _artefact_numbers(report: Report, gain: Gain) -> TableRow:
    cells = (
        gain.reward,
        gain.model,
        split_title(gain.split),
        score_text(gain.paired.base_mean, gain.paired.gain),
        score_text(gain.paired.tuned_mean, gain.paired.gain),
        estimate_text(gain.paired.gain),
        estimate_text(gain.z),
    )
    return TableRow(cells, model_class(report, gain.model))


def diversity_views(report: Report) -> list[ChangesView]:
    """Diversity and prompt dependence as ratios, tuned over base; without those not measured."""
    diversity = [(f"{one.measure}, {SCOPES[one.scope]}", one) for one in report.diversity]
    dependence = [(TESTS.get(one.test, one.test), one) for one in report.dependence]
    titled: Mapping[str, Sequence[tuple[str, Change]]] = {
        "Diversity": diversity,
        "Prompt dependence": dependence,
    }
    return [
        _ratios_view(report, title, changes)
        for title, changes in titled.items()
        if any(math.isfinite(change.ratio) for _, change in changes)
    ]


def _ratios_view(report: Report, title: str, changes: Sequence[tuple[str, Change]]) -> ChangesView:
    roles = {split.name: split.role for split in report.splits}
    marks = [_ratio_mark(change, roles) for _, change in changes]
    axis = Axis.over(marks, 1.0, "ratio, tuned / base")
    groups = []
    for measure in dict.fromkeys(measure for measure, _ in changes):
        of_measure = [change for name, change in changes if name == measure]
        rows = []
        for model in report.compared:
            own = [change for change in of_measure if change.model == model.name]
            if any(math.isfinite(change.ratio) for change in own):
                rows.append(_ratio_row(report, model.name, own, roles))
        groups.append(PlotGroup(Label(measure), rows))
    numbers = [_ratio_numbers(report, measure, change) for measure, change in changes]
    return ChangesView(title, PlotTable.of(groups, axis), numbers)


def _ratio_row(
    report: Report, model: str, changes: Sequence[Change], roles: dict[str, str]
) -> PlotRow:
    training = [_ratio_text(change) for change in changes if roles[change.split] == "seen"]
    lowest = min((c for c in changes if math.isfinite(c.ratio)), key=lambda c: c.ratio)
    cells = [
        Cell("; ".join(training) or "–"),
        Cell(_ratio_text(lowest), note=split_title(lowest.split)),
    ]
    marks = [_ratio_mark(change, roles) for change in changes]
    return PlotRow(Label(model), marks, cells, model_class(report, model))


def _ratio_numbers(report: Report, measure: str, change: Change) -> TableRow:
    cells = (
        measure,
        change.model,
        split_title(change.split),
        number(change.base),
        number(change.tuned),
        _ratio_text(change),
        str(change.prompts),
    )
    return TableRow(cells, model_class(report, change.model))


def _ratio_mark(change: Change, roles: dict[str, str]) -> Mark:
    kind = "seen" if roles[change.split] == "seen" else "heldout"
    return Mark(change.ratio, change.low, change.high, kind)


def _ratio_text(change: Change) -> str:
    if math.isnan(change.ratio):
        return "not measured"
    interval = range_text(change.low, change.high, signed=False)
    return f"{rounded(change.ratio, change.low, change.high)} ({interval})"
