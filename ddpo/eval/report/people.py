"""People as judges in words and tables: win rates, agreement of rewards, agreement of raters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ddpo.eval.analysis.people import (
    ALL_LISTS,
    People,
    PeopleWins,
    RaterAgreement,
    RewardAgreement,
)
from ddpo.eval.report.data import Report
from ddpo.eval.report.interval_plots import Axis, Mark
from ddpo.eval.report.selection import model_class
from ddpo.eval.report.table_views import Cell, Label, PlotGroup, PlotRow, PlotTable
from ddpo.eval.report.wording import count, number, percent, reward_title, split_title
from ddpo.stats.estimate import Estimate
from ddpo.stats.pairwise import Accuracy

__all__ = ["PeopleView", "people_lines", "people_view"]

EVEN: Final = 50.0  # percent
NO_INTERVAL: Final = "no interval: fewer than two prompts"


@dataclass(frozen=True, slots=True)
class PeopleView:
    """The section about people."""

    choices: str  # number of choices, in words
    wins: PlotTable | None  # None if nobody compared a model with the base model
    judges: PlotTable | None  # None if no reward scored the images
    raters: str  # sentence about the agreement of raters


def people_view(report: Report) -> PeopleView | None:
    """The section about people; None if nobody judged the images."""
    people = report.people
    if people is None:
        return None
    return PeopleView(
        count(people.choices, "choice"),
        _wins_table(report, people.wins) if people.wins else None,
        _judges_table(people.judges) if people.judges else None,
        _raters_line(people.agreement),
    )


def people_lines(report: Report) -> list[str]:
    """Sentences on every win rate and agreement, for outputs without plots."""
    people = report.people
    if people is None:
        return []
    models = dict.fromkeys(one.model for one in people.wins)
    return [
        *(_wins_line(people, model) for model in models),
        *_judges_lines(people.judges),
        _raters_line(people.agreement),
    ]


def _wins_line(people: People, model: str) -> str:
    """The win rate of a model in all, and on each list if there are several."""
    wins = [one for one in people.wins if one.model == model]
    lists = [one for one in wins if one.split != ALL_LISTS]
    total = next(one.share for one in wins if one.split == ALL_LISTS)
    line = f"People's win rate of {model}: {_share(total)} of {count(total.n, 'choice')}"
    if len(lists) < 2:
        return f"{line}."
    parts = [f"{split_title(one.split)} {_share(one.share)}" for one in lists]
    return f"{line}; {', '.join(parts)}."


def _judges_lines(judges: Sequence[RewardAgreement]) -> Iterator[str]:
    if judges:
        parts = [
            f"{reward_title(one.reward)} {_share(one.accuracy)} of {one.accuracy.n}"
            for one in judges
        ]
        yield f"Agreement of rewards with people's decided choices: {', '.join(parts)}."


def _raters_line(agreement: RaterAgreement | None) -> str:
    """The agreement of raters in a sentence; a value that is not defined is "not measured"."""
    if agreement is None:
        return "The agreement of raters was not measured, since it takes two named raters."
    if not agreement.pairs:
        return f"The {agreement.raters} raters judged no pair in common."
    parts = [f"Krippendorff's alpha {_measured(agreement.alpha)}"]
    if agreement.raters == 2:
        parts.insert(0, f"Cohen's kappa {_measured(agreement.kappa)}")
    pairs = count(agreement.pairs, "common pair")
    return f"Agreement of {agreement.raters} raters on {pairs}: {', '.join(parts)}."


def _measured(value: float) -> str:
    return "not measured" if math.isnan(value) else number(value, 2)


def _share(found: Estimate | Accuracy) -> str:
    """A share with its interval, in percent."""
    value = found.mean if isinstance(found, Estimate) else found.value
    return f"{percent(value)} ({_interval(found)})"


def _interval(found: Estimate | Accuracy) -> str:
    if math.isnan(found.low):
        return NO_INTERVAL
    return f"{found.low * 100:.0f} to {found.high * 100:.0f}"


def _mark(found: Estimate | Accuracy, kind: str) -> Mark:
    """A share as a mark in percent."""
    value = found.mean if isinstance(found, Estimate) else found.value
    return Mark(100 * value, 100 * found.low, 100 * found.high, kind)


def _cell(found: Estimate | Accuracy) -> Cell:
    value = found.mean if isinstance(found, Estimate) else found.value
    return Cell(f"({_interval(found)})", lead=percent(value))


def _wins_table(report: Report, wins: Sequence[PeopleWins]) -> PlotTable:
    """A group of rows for all lists together and for each list, with a row for each model."""
    splits = [split.name for split in report.splits if any(one.split == split.name for one in wins)]
    groups = [
        PlotGroup(_split_label(report, split), _wins_rows(report, wins, split))
        for split in ([ALL_LISTS, *splits] if len(splits) > 1 else splits)
    ]
    marks = [mark for group in groups for row in group.rows for mark in row.marks]
    return PlotTable.of(groups, Axis.over(marks, EVEN, "tuned preferred (%)"))


def _split_label(report: Report, split: str) -> Label:
    if split == ALL_LISTS:
        return Label("all lists")
    return Label(split_title(split), report.role(split))


def _wins_rows(report: Report, wins: Sequence[PeopleWins], split: str) -> list[PlotRow]:
    return [_wins_row(report, one) for one in wins if one.split == split]


def _wins_row(report: Report, one: PeopleWins) -> PlotRow:
    share = one.share
    is_seen = one.split != ALL_LISTS and report.role(one.split) == "seen"
    mark = _mark(share, "seen" if is_seen else "heldout")
    cells = [_cell(share), *(Cell(str(number)) for number in (share.n, one.ties, share.clusters))]
    return PlotRow(Label(one.model), [mark], cells, _class_of(report, one.model))


def _class_of(report: Report, name: str) -> str:
    """The class of a compared model, or of the model whose earlier checkpoint this is."""
    runs = {model.run for model in report.models if model.name == name and model.run}
    owner = next((one.name for one in report.compared if one.name == name or one.run in runs), name)
    return model_class(report, owner)


def _judges_table(judges: Sequence[RewardAgreement]) -> PlotTable:
    marks = [_mark(one.accuracy, "heldout") for one in judges]
    rows = [
        PlotRow(
            Label(reward_title(one.reward)),
            [mark],
            [_cell(one.accuracy), Cell(str(one.accuracy.n))],
        )
        for one, mark in zip(judges, marks, strict=True)
    ]
    return PlotTable([PlotGroup(None, rows)], Axis.over(marks, EVEN, "agreement (%)"))
