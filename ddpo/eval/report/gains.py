"""The gains of every reward on every prompt list, each line with its interval drawn, and the runs of several training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from ddpo.eval.analysis.tables import Gain
from ddpo.eval.report.choice import (
    gains_of,
    model_class,
    reward_role,
    reward_unit,
    rewards_of,
    within_noise,
)
from ddpo.eval.report.data import Report, RewardFacts, SplitFacts
from ddpo.eval.report.forest import Group, Line, forest_table, interval_mark
from ddpo.eval.report.intervals import Axis
from ddpo.eval.report.tags import details, key, section, table
from ddpo.eval.report.wording import (
    count,
    estimate_text,
    interval_text,
    listed,
    number,
    p_text,
    percent,
    share_text,
    shortened,
    split_title,
)
from ddpo.stats.paired import Gap

__all__ = ["gains_section", "runs_section"]

COLUMNS: Final = (
    "prompts",
    "gain (95&nbsp;% interval)",
    "base → tuned",
    "carried over",
    "win rate",
    "d<sub>z</sub>",
    "p (Holm)",
    "pairs / prompts",
)
KEY: Final = (
    '<span class="key-seen" aria-hidden="true">●</span> prompts of the training, <span class="key-heldout" aria-hidden="true">◆</span> '
    'other prompts. <span class="key-noise" aria-hidden="true"></span> '
    "Grey band: noise floor of the reward; a gain inside it, marked ~, is no evidence."
)


def gains_section(report: Report) -> str:
    """The section of gains: trained rewards first, then held-out ones, then those that were asked for."""
    told = f"Tuned minus base on the reward’s own scale, {count(report.seeds, 'picture')} per prompt and model. {KEY}"
    parts = []
    for reward in rewards_of(report, "trained", "heldout", "asked"):
        shown = reward.role != "asked" and (len(report.compared) < 3 or reward.role == "trained")
        parts.append(details(_summary(report, reward), _table(report, reward), shown, "reward"))
    return section("gains", "Gains", "".join(parts) + _excluded(report), told)


def _summary(report: Report, reward: RewardFacts) -> str:
    unit, lower = reward_unit(report, reward.id), reward.card.get("direction") == "lower"
    told = [
        reward_role(report, reward),
        *([unit] if unit else []),
        *(["lower is better"] if lower else []),
    ]
    return f'<h3>{escape(reward.id)}</h3> <span class="soft">{escape(" · ".join(told))}</span>'


def _table(report: Report, reward: RewardFacts) -> str:
    gains, unit = gains_of(report, reward=reward.id), reward_unit(report, reward.id)
    label = f"gain{f' ({shortened(unit, 24)})' if unit else ', tuned − base'}"
    axis = Axis.over(
        [interval_mark(gain.paired.gain, gain.role) for gain in gains],
        0.0,
        label,
        reward.noise_floor,
    )
    groups = [
        Group(_title(split), [_line(report, gain) for gain in gains if gain.split == split.name])
        for split in report.splits
    ]
    return forest_table(f"Gains by {reward.id}", COLUMNS, groups, axis) + _more(report, gains)


def _more(report: Report, gains: Sequence[Gain]) -> str:
    """What few readers need: the bootstrap interval beside the t interval, effects in standard deviations, generalisation gaps."""
    gaps = {(t.model, t.split, t.reward): t.gap for t in report.transfers}
    rows = []
    for gain in gains:
        gap, paired = gaps.get((gain.model, gain.split, gain.reward), Gap()), gain.paired
        boot = (
            f"{number(paired.boot_low, signed=True)} to {number(paired.boot_high, signed=True)}"
            if paired.boot_low == paired.boot_low
            else "–"
        )
        behind = f"{number(gap.mean, signed=True)} ({number(gap.low, signed=True)} to {number(gap.high, signed=True)})"
        names = (escape(split_title(gain.split)), escape(gain.model))
        rows.append(
            (
                *names,
                boot,
                estimate_text(gain.z),
                behind if gap.mean == gap.mean else "–",
                str(gain.paired.wins.ties),
            )
        )
    head = (
        "prompts",
        "model",
        "95&nbsp;% interval by bootstrap",
        "gain in standard deviations",
        "seen gain − this gain",
        "ties",
    )
    return details(
        "More numbers",
        table(
            f"Gains by {gains[0].reward if gains else '–'}, more numbers",
            head,
            rows,
            [model_class(report, gain.model) for gain in gains],
        ),
    )


def _title(split: SplitFacts) -> str:
    return f"{key(split.role)} {escape(split_title(split.name))}"


def _line(report: Report, gain: Gain) -> Line:
    paired, wins = gain.paired, gain.paired.wins
    share = next(
        (
            t.share
            for t in report.transfers
            if (t.model, t.split, t.reward) == (gain.model, gain.split, gain.reward)
        ),
        None,
    )
    chance = (
        f"{percent(wins.rate)} ({wins.low * 100:.0f} to {wins.high * 100:.0f})" if wins.n else "–"
    )
    size = f"<b>{number(paired.gain.mean, signed=True)}</b>"
    if within_noise(report, gain):
        size = f'<span aria-hidden="true">~</span> {number(paired.gain.mean, signed=True)}<span class="away"> within noise</span>'
    cells = (
        f"{size} ({interval_text(paired.gain)})",
        f"{number(paired.base_mean)} → {number(paired.tuned_mean)}",
        share_text(share) if share is not None and not share.reason else "–",
        chance,
        number(paired.d_z, 2, signed=True),
        escape(p_text(gain.p_holm)),
        f"{paired.gain.n} / {paired.gain.clusters}",
    )
    return Line(
        escape(gain.model),
        [interval_mark(paired.gain, gain.role)],
        cells,
        model_class(report, gain.model),
    )


def _excluded(report: Report) -> str:
    """How many pairs could not be scored, where there are any."""
    told = [
        f"{gain.paired.gain.excluded} of {gain.model} on {split_title(gain.split)} by {gain.reward}"
        for gain in report.gains
        if gain.paired.gain.excluded
    ]
    return (
        f'<p class="soft">Pairs left out because a picture could not be scored: {escape(", ".join(told))}.</p>'
        if told
        else ""
    )


def runs_section(report: Report) -> str:
    """Runs that differ in their training seed alone, taken together; empty if there are none."""
    parts = []
    for models in dict.fromkeys(line.models for line in report.runs):
        for reward in dict.fromkeys(line.reward for line in report.runs if line.models == models):
            lines = [line for line in report.runs if (line.models, line.reward) == (models, reward)]
            unit = reward_unit(report, reward)
            axis = Axis.over(
                [interval_mark(g.gain, g.role) for g in lines],
                0.0,
                f"gain{f' ({unit})' if unit else ''}",
            )
            rows = [
                Line(
                    f"{key(g.role)} {escape(split_title(g.split))}",
                    [interval_mark(g.gain, g.role)],
                    (
                        f"<b>{number(g.gain.mean, signed=True)}</b> ({interval_text(g.gain)})",
                        str(g.gain.clusters),
                    ),
                )
                for g in lines
            ]
            title = f"{reward} over {listed(models)}"
            parts.append(f"<h3>{escape(title)}</h3>")
            parts.append(
                forest_table(
                    f"Gain of {title}",
                    ("prompts", "gain (95&nbsp;% interval)", "runs"),
                    [Group("", rows)],
                    axis,
                )
            )
    told = (
        "These runs differ in their training seed alone. Here the run is the unit: the interval says how the gain would vary over other "
        "training runs, which the tables above do not. With few runs it is wide."
    )
    return section("runs", "Several training seeds", "".join(parts), told) if parts else ""
