"""Views of the gains of every reward on every prompt list, and of several training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddpo.eval.analysis.tables import Gain, RunsGain
from ddpo.eval.report.data import Report, RewardFacts
from ddpo.eval.report.interval_plots import Axis
from ddpo.eval.report.selection import (
    gains_of,
    is_within_noise,
    model_class,
    reward_role,
    reward_unit,
    rewards_of,
    share_of,
)
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
    interval_text,
    listed,
    mean_text,
    number,
    p_text,
    percent,
    range_text,
    reward_title,
    rounded,
    score_text,
    share_text,
    shortened,
    split_title,
    with_unit,
)
from ddpo.stats.paired import Gap, WinRate

__all__ = ["GainsView", "SeedsView", "excluded_pairs", "gains_views", "seeds_views"]


@dataclass(frozen=True, slots=True)
class GainsView:
    """The gains by one reward."""

    title: str
    notes: str  # role, unit and direction of the reward
    is_open: bool
    table: PlotTable
    more: Sequence[TableRow]


@dataclass(frozen=True, slots=True)
class SeedsView:
    """The gain of one reward over runs that differ only in their training seed."""

    title: str
    table: PlotTable


def gains_views(report: Report) -> list[GainsView]:
    """Trained rewards first, then held-out rewards, then requested ones."""
    return [_view(report, reward) for reward in rewards_of(report, "trained", "heldout", "asked")]


def _view(report: Report, reward: RewardFacts) -> GainsView:
    gains = gains_of(report, reward=reward.id)
    is_open = reward.role == "trained" or (reward.role == "heldout" and len(report.compared) < 3)
    unit = reward_unit(report, reward.id)
    is_lower_better = reward.card.get("direction") == "lower"
    notes = [reward_role(report, reward), unit, "lower is better" if is_lower_better else ""]
    title = reward_title(reward.id)
    if title != reward.id:
        notes.insert(0, reward.id)
    return GainsView(
        title,
        " · ".join(note for note in notes if note),
        is_open,
        _plot_table(report, reward, gains, unit),
        _more_rows(report, gains),
    )


def _plot_table(report: Report, reward: RewardFacts, gains: Sequence[Gain], unit: str) -> PlotTable:
    label = with_unit("gain", shortened(unit, 24)) if unit else "gain, tuned − base"
    marks = [interval_mark(gain.paired.gain, gain.role) for gain in gains]
    groups = [
        PlotGroup(
            Label(split_title(split.name), split.role),
            [_plot_row(report, gain) for gain in gains if gain.split == split.name],
        )
        for split in report.splits
    ]
    return PlotTable.of(groups, Axis.over(marks, 0.0, label, reward.noise_floor))


def _plot_row(report: Report, gain: Gain) -> PlotRow:
    paired = gain.paired
    share = share_of(report, gain)
    size = Cell(
        f"({interval_text(paired.gain)})",
        lead=mean_text(paired.gain),
        is_within_noise=is_within_noise(report, gain),
    )
    others = (
        " → ".join(score_text(one, paired.gain) for one in (paired.base_mean, paired.tuned_mean)),
        "–" if share is None else share_text(share),
        _win_rate(paired.wins),
        number(paired.d_z, 2, signed=True),
        p_text(gain.p_holm),
        f"{paired.gain.n} / {paired.gain.clusters}",
    )
    return PlotRow(
        Label(gain.model),
        [interval_mark(paired.gain, gain.role)],
        [size, *(Cell(text) for text in others)],
        model_class(report, gain.model),
    )


def _win_rate(wins: WinRate) -> str:
    if not wins.n:
        return "–"
    return f"{percent(wins.rate)} ({wins.low * 100:.0f} to {wins.high * 100:.0f})"


def _more_rows(report: Report, gains: Sequence[Gain]) -> list[TableRow]:
    """The bootstrap interval, the effect in standard deviations and the generalisation gap."""
    gaps = {(t.model, t.split, t.reward): t.gap for t in report.transfers}
    rows = []
    for gain in gains:
        paired = gain.paired
        gap = gaps.get((gain.model, gain.split, gain.reward), Gap())
        has_bootstrap = paired.boot_low == paired.boot_low
        cells = (
            split_title(gain.split),
            gain.model,
            range_text(paired.boot_low, paired.boot_high) if has_bootstrap else "–",
            estimate_text(gain.z),
            _gap(gap),
            str(paired.wins.ties),
        )
        rows.append(TableRow(cells, model_class(report, gain.model)))
    return rows


def _gap(gap: Gap) -> str:
    if gap.mean != gap.mean:
        return "–"
    return f"{rounded(gap.mean, gap.low, gap.high, signed=True)} ({range_text(gap.low, gap.high)})"


def excluded_pairs(report: Report) -> list[str]:
    """The numbers of pairs that could not be scored, by model, prompt list and reward."""
    return [
        f"{gain.paired.gain.excluded} of {gain.model} on {split_title(gain.split)} "
        f"by {reward_title(gain.reward)}"
        for gain in report.gains
        if gain.paired.gain.excluded
    ]


def seeds_views(report: Report) -> list[SeedsView]:
    """One table for each reward and group of runs that differ only in their training seed."""
    groups: dict[tuple[tuple[str, ...], str], list[RunsGain]] = {}
    for gain in report.runs:
        groups.setdefault((gain.models, gain.reward), []).append(gain)
    return [
        SeedsView(f"{reward_title(reward)} over {listed(models)}", _seeds_table(report, gains))
        for (models, reward), gains in groups.items()
    ]


def _seeds_table(report: Report, gains: Sequence[RunsGain]) -> PlotTable:
    marks = [interval_mark(gain.gain, gain.role) for gain in gains]
    label = with_unit("gain", reward_unit(report, gains[0].reward))
    rows = [
        PlotRow(Label(split_title(gain.split), gain.role), [mark], _seeds_cells(gain))
        for gain, mark in zip(gains, marks, strict=True)
    ]
    return PlotTable.of([PlotGroup(None, rows)], Axis.over(marks, 0.0, label))


def _seeds_cells(gain: RunsGain) -> list[Cell]:
    size = Cell(f"({interval_text(gain.gain)})", lead=mean_text(gain.gain))
    return [size, Cell(str(gain.gain.clusters))]
