"""Views of the run history: gains of the checkpoints beside best-of-n, and the training curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from markupsafe import Markup

from ddpo.eval.analysis.history import CheckpointAssessment, Peak, RunHistory
from ddpo.eval.report.data import Curve, Report, RewardFacts
from ddpo.eval.report.selection import model_class, reward_role, reward_unit, rewards_of
from ddpo.eval.report.table_views import TableRow
from ddpo.eval.report.training_plots import Panel, PlotPoint, Series, panel_plot, reward_curve
from ddpo.eval.report.wording import (
    count,
    estimate_text,
    mean_text,
    number,
    reward_title,
    shortened,
    split_title,
    with_unit,
)

__all__ = ["CurveView", "HistoryView", "PanelView", "curve_views", "history_views"]

AxisName = Literal["kl", "queries"]
AXIS_LABELS: Final[dict[AxisName, str]] = {
    "kl": "√KL to the base model (√nats per image)",
    "queries": "reward queries (square-root scale)",
}
TABLE_POINTS: Final = 40  # rows of the table of a training curve, at most


@dataclass(frozen=True, slots=True)
class PanelView:
    """One plot of a run history."""

    reward: str
    role: str
    plot: Markup


@dataclass(frozen=True, slots=True)
class HistoryView:
    """The history of one run."""

    run: str
    css: str
    summary: str
    onsets: Sequence[str]  # sentences
    signs: Sequence[CheckpointAssessment]
    begins: int  # iteration from which on there are strong signs of reward hacking; -1: none
    panels: Sequence[PanelView]
    rewards: Sequence[str]  # titles of the columns of `rows`
    rows: Sequence[TableRow]
    fits: Sequence[TableRow]


@dataclass(frozen=True, slots=True)
class CurveView:
    """The rewards of the rollouts of one run."""

    model: str
    css: str
    summary: str
    plot: Markup
    rows: Sequence[TableRow]


def history_views(report: Report) -> list[HistoryView]:
    """One view per run whose earlier checkpoints were evaluated."""
    return [_view(report, history) for history in report.courses]


def _view(report: Report, history: RunHistory) -> HistoryView:
    rewards = _plotted_rewards(report, history)
    ids = {reward.id for reward in rewards}
    axes: tuple[AxisName, ...] = ("kl", "queries") if _has_kl(history) else ("queries",)
    peaks = [one for one in history.peaks if one.onset_iteration >= 0 and one.reward in ids]
    measured = [reward.id for reward in report.rewards if _is_measured(history, reward.id)]
    return HistoryView(
        run=history.run,
        css=model_class(report, history.points[-1].model) if history.points else "m",
        summary=_summary(history),
        onsets=[_onset_sentence(peak) for peak in peaks],
        signs=history.signs,
        begins=history.hacking_from,
        panels=[_panel(report, history, reward, axis) for reward in rewards for axis in axes],
        rewards=[reward_title(id) for id in measured],
        rows=_rows(history, measured),
        fits=_fit_rows(report, history),
    )


def _plotted_rewards(report: Report, history: RunHistory) -> list[RewardFacts]:
    """The trained reward first, then the held-out rewards; all others where none is held-out."""
    measured = [
        reward
        for reward in rewards_of(report, "trained", "heldout", "asked")
        if _is_measured(history, reward.id)
    ]
    if any(reward.role == "heldout" for reward in measured):
        kept = (history.trained_on, *(r.id for r in measured if r.role == "heldout"))
        measured = [reward for reward in measured if reward.id in kept]
    return sorted(measured, key=lambda reward: reward.id != history.trained_on)


def _is_measured(history: RunHistory, reward: str) -> bool:
    gains = [point.gains[reward] for point in history.points[1:] if reward in point.gains]
    return any(math.isfinite(gain.mean) for gain in gains)


def _has_kl(history: RunHistory) -> bool:
    return any(math.isfinite(point.kl.mean) for point in history.points[1:])


def _summary(history: RunHistory) -> str:
    trained_on = reward_title(history.trained_on) or "an unknown reward"
    split = split_title(history.split)
    sentences = [f"Gain over the base model on {split}; trained on {trained_on}."]
    if history.best_iteration > 0:
        best = _checkpoint(history.best_iteration)
        sentences.append(f"On average over the held-out rewards, {best} is best.")
    if history.best_iteration == 0:
        sentences.append(
            "On average over the held-out rewards, no examined checkpoint is better than the base "
            "model."
        )
    if history.best_of_verdict:
        sentences.append(history.best_of_verdict)
    if not _has_kl(history):
        sentences.append("The KL divergence from the base model is not known.")
    return " ".join(sentences)


def _checkpoint(iteration: int) -> str:
    """The name of the checkpoint at an iteration; 0 is the base model."""
    return f"iteration {iteration}" if iteration else "base model"


def _onset_sentence(peak: Peak) -> str:
    best = _checkpoint(peak.best_iteration) if peak.best_iteration else "the base model"
    return (
        f"By {reward_title(peak.reward)}, {best} is best, and iteration {peak.onset_iteration} is "
        f"the first that is significantly below it. The last checkpoint is at "
        f"{estimate_text(peak.drop)} from it."
    )


def _panel(report: Report, history: RunHistory, reward: RewardFacts, axis: AxisName) -> PanelView:
    run = _run_points(history, reward.id, axis)
    kind = "trained" if reward.id == history.trained_on else "heldout"
    series = [Series(kind, [point for point in run.values() if math.isfinite(point.x)])]
    if best_of := _best_of_points(history, reward.id, axis):
        series.append(Series("best-of", best_of))
    best, onset = _marked_points(history, reward.id, run)
    title = reward_title(reward.id)
    panel = Panel(
        x_label=AXIS_LABELS[axis],
        y_label=with_unit("gain", shortened(reward_unit(report, reward.id), 40)),
        description=f"{title} of {history.run} against {AXIS_LABELS[axis]}",
        best=best,
        onset=onset,
        is_root=axis == "queries",
    )
    role = reward_role(report, reward, history.points[-1].model)
    return PanelView(title, role, panel_plot(series, panel))


def _run_points(history: RunHistory, reward: str, axis: AxisName) -> dict[int, PlotPoint]:
    """Iteration → point of each checkpoint; x is NaN where it is not known."""
    found = {}
    for point in history.points:
        if reward not in point.gains:
            continue
        if axis == "queries":
            x = float(point.queries) if point.queries >= 0 else math.nan
        elif math.isfinite(point.kl.mean):
            x = math.sqrt(max(point.kl.mean, 0.0))
        else:
            x = math.nan if point.iteration else 0.0
        name = f"iteration {point.iteration}"
        found[point.iteration] = PlotPoint(x, point.gains[reward], name)
    return found


def _best_of_points(history: RunHistory, reward: str, axis: AxisName) -> list[PlotPoint]:
    return [
        PlotPoint(
            math.sqrt(one.kl) if axis == "kl" else float(one.queries),
            one.gains[reward],
            f"best of {one.n}",
        )
        for one in history.best_of_n
        if reward in one.gains
    ]


def _marked_points(
    history: RunHistory, reward: str, run: dict[int, PlotPoint]
) -> tuple[PlotPoint | None, PlotPoint | None]:
    """The points at which the reward was best and from which on it was significantly below that."""
    peak = next((peak for peak in history.peaks if peak.reward == reward), None)
    if peak is None:
        return None, None
    best = run.get(peak.best_iteration)
    if best is not None and math.isfinite(best.x + best.estimate.mean):
        name = f"best: {_checkpoint(peak.best_iteration)}"
        best = PlotPoint(best.x, best.estimate, name)
    else:
        best = None
    onset = run.get(peak.onset_iteration)
    if onset is not None and peak.onset_iteration >= 0 and math.isfinite(onset.x):
        name = f"onset: {_checkpoint(peak.onset_iteration)}"
        return best, PlotPoint(onset.x, onset.estimate, name)
    return best, None


def _rows(history: RunHistory, rewards: Sequence[str]) -> list[TableRow]:
    rows = []
    for point in history.points:
        if point.iteration == 0:
            rows.append(TableRow((_checkpoint(0), *("0" for _ in range(2 + len(rewards))))))
            continue
        gains = [estimate_text(point.gains[r]) if r in point.gains else "–" for r in rewards]
        queries = str(point.queries) if point.queries >= 0 else "–"
        name = _checkpoint(point.iteration)
        rows.append(TableRow((name, queries, mean_text(point.kl, signed=False), *gains)))
    for one in history.best_of_n:
        gains = [estimate_text(one.gains[r]) if r in one.gains else "–" for r in rewards]
        rows.append(TableRow((f"best of {one.n}", str(one.queries), number(one.kl), *gains)))
    return rows


def _fit_rows(report: Report, history: RunHistory) -> list[TableRow]:
    return [
        TableRow(
            (
                reward_title(fit.reward),
                reward_unit(report, fit.reward),
                number(fit.alpha),
                number(fit.beta),
                number(fit.peak_kl),
                number(fit.rmse),
                str(fit.points),
            )
        )
        for fit in history.fits
    ]


def curve_views(report: Report) -> list[CurveView]:
    """One view per run of which two rollouts or more have a reward."""
    views = [_curve_view(report, curve) for curve in report.curves]
    return [view for view in views if view.plot]


def _curve_view(report: Report, curve: Curve) -> CurveView:
    trained_on = next((m.trained_on for m in report.models if m.name == curve.model), "")
    reward = reward_title(trained_on) or "reward"
    queries = count(curve.points[-1].queries, "image") if curve.points else "no images"
    stride = max(1, -(-len(curve.points) // TABLE_POINTS))
    rows = [
        TableRow((str(p.iteration), str(p.queries), number(p.mean), number(p.se)))
        for p in curve.points[::stride]
    ]
    return CurveView(
        curve.model,
        model_class(report, curve.model),
        f"{reward}, {queries} scored in all",
        reward_curve(curve.points, reward, reward_unit(report, trained_on)),
        rows,
    )
