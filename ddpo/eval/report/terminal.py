"""The report for a terminal: a renderable for rich; the command line prints it."""

from __future__ import annotations

from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ddpo.eval.analysis.tables import Gain
from ddpo.eval.report.answer import answer
from ddpo.eval.report.choice import gains_of, reading_of, reward_role, rewards_of, within_noise
from ddpo.eval.report.data import Report
from ddpo.eval.report.wording import (
    interval_text,
    number,
    percent,
    share_text,
    shortened,
    split_title,
)
from ddpo.stats.paired import TransferRatio

__all__ = ["render_terminal"]

WIDE: Final = 100  # columns of the terminal from which all columns of the table are shown
COLUMNS: Final = ("gain", "95 % interval", "gain/SE", "win rate", "carried over")
WIDE_COLUMNS: Final = ("base", "tuned", *COLUMNS, "pairs")
SHAPES: Final = {
    "no sign": "○",
    "watch": "△",
    "strong signs": "■",
    "not measured": "–",
    "too little measured": "–",
}
LEAKS_SHOWN: Final = 5


class _Terminal:
    """Lays the report out for the width that it is given."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide, report = options.max_width >= WIDE, self.report
        for model in report.compared:
            if len(report.compared) > 1:
                yield Text(model.name, style="bold reverse")
            for reward in rewards_of(report, "trained", "heldout", "asked"):
                yield Text(f"{reward.id}, {reward_role(report, reward, model.name)}", style="bold")
                yield _table(report, model.name, reward.id, wide)
                yield Text("")
        for model in report.compared:
            yield from _findings(report, model.name)
        yield _hung([("•", line) for line in _lines(report)])


def render_terminal(report: Report) -> RenderableType:
    """A table of gains for each model and reward, then the answers in three sentences, the evidence, notes and leaks."""
    return _Terminal(report)


def _table(report: Report, model: str, reward: str, wide: bool) -> Table:
    shares = {t.split: t.share for t in report.transfers if (t.model, t.reward) == (model, reward)}
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("", overflow="fold")
    for name in WIDE_COLUMNS if wide else COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for gain in gains_of(report, model=model, reward=reward):
        table.add_row(*(Text(cell) for cell in _cells(report, gain, shares.get(gain.split), wide)))
    return table


def _cells(report: Report, gain: Gain, share: TransferRatio | None, wide: bool) -> list[str]:
    paired, estimate = gain.paired, gain.paired.gain
    interval = "–" if estimate.low != estimate.low else interval_text(estimate)
    errors = number(estimate.mean / estimate.se, 2, signed=True) if estimate.se > 0 else "–"
    carried = (
        "seen"
        if gain.role == "seen"
        else share_text(share)
        if share is not None and not share.reason
        else "–"
    )
    noise = " ~" if within_noise(report, gain) else ""
    cells = [
        number(estimate.mean, signed=True) + noise,
        interval,
        errors,
        percent(paired.wins.rate),
        carried,
    ]
    if wide:
        cells = [number(paired.base_mean), number(paired.tuned_mean), *cells, str(estimate.n)]
    return [shortened(split_title(gain.split), 24), *cells]


def _findings(report: Report, model: str) -> list[RenderableType]:
    reading = reading_of(report, model)
    title = f"{model}: {SHAPES[reading.grade]} {reading.grade}" if reading else model
    evidence = (
        [
            (SHAPES[item.grade], f"{item.kind}, {item.grade}: {item.text}")
            for item in reading.evidence
        ]
        if reading
        else []
    )
    return [
        Text(title, style="bold"),
        _hung([("•", sentence) for sentence in answer(report, model)]),
        _hung(evidence, 2),
        Text(""),
    ]


def _hung(lines: list[tuple[str, str]], indent: int = 0) -> Table:
    """Lines that hang from their mark."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=1 + indent, justify="right")
    table.add_column(overflow="fold")
    for mark, line in lines:
        table.add_row(Text(mark), Text(line))
    return table


def _lines(report: Report) -> list[str]:
    excluded = sum(gain.paired.gain.excluded for gain in report.gains)
    lines = [
        *report.notes,
        *(
            [
                f"{excluded} comparisons of two pictures by a reward are left out: one could not be scored."
            ]
            if excluded
            else []
        ),
    ]
    if any(within_noise(report, gain) for gain in report.gains):
        lines.append("~ within the noise floor of the reward: no evidence of a change.")
    for split in report.splits:
        for leak in split.leaks[:LEAKS_SHOWN]:
            prompts = f"“{shortened(leak.heldout, 100)}”, trained on “{shortened(leak.train, 100)}”"
            lines.append(f"not unseen in {split_title(split.name)}: {prompts} ({leak.reason})")
        if len(split.leaks) > LEAKS_SHOWN:
            lines.append(
                f"and {len(split.leaks) - LEAKS_SHOWN} more leaks of {split_title(split.name)}, all in report.json"
            )
    return lines
