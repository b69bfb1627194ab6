"""The report for a terminal: a renderable for rich; the command line prints it."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ddpo.eval.render.words import answer, interval_text, number, percent, share_text, split_title
from ddpo.eval.report import Report
from ddpo.eval.stats import TransferRatio
from ddpo.eval.tables import Gain

__all__ = ["render_terminal"]

WIDE = 100  # columns of the terminal from which all columns of the table are shown
COLUMNS = ("gain", "95 % interval", "gain/SE", "win rate", "carried over")
WIDE_COLUMNS = ("base", "tuned", *COLUMNS, "pairs")


class _Terminal:
    """Lays the report out for the width that it is given."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= WIDE
        for reward in self.report.rewards:
            yield _table(self.report, reward.id, wide)
            yield Text("")
        yield Group(*(Text(f"• {line}") for line in _lines(self.report)))


def render_terminal(report: Report) -> RenderableType:
    """A table of gains for each reward, then the answer in three sentences, notes and leaks."""
    return _Terminal(report)


def _table(report: Report, reward: str, wide: bool) -> Table:
    shares = {transfer.split: transfer.share for transfer in report.transfers if transfer.reward == reward}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(Text(reward), overflow="ellipsis", no_wrap=True)
    for name in WIDE_COLUMNS if wide else COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for gain in report.gains:
        if gain.reward == reward:
            table.add_row(*(Text(cell) for cell in _cells(gain, shares.get(gain.split), wide)))
    return table


def _cells(gain: Gain, share: TransferRatio | None, wide: bool) -> list[str]:
    paired, estimate = gain.paired, gain.paired.gain
    interval = "–" if estimate.low != estimate.low else interval_text(estimate)
    errors = number(estimate.mean / estimate.se, 2, signed=True) if estimate.se > 0 else "–"
    carried = "trained on" if gain.role == "seen" else share_text(share) if share is not None and not share.reason else "–"
    cells = [number(estimate.mean, signed=True), interval, errors, percent(paired.wins.rate), carried]
    if wide:
        cells = [number(paired.base_mean), number(paired.tuned_mean), *cells, str(estimate.n)]
    return [split_title(gain.split), *cells]


def _lines(report: Report) -> list[str]:
    excluded = sum(gain.paired.gain.excluded for gain in report.gains)
    lines = [*answer(report), *report.notes, *([f"{excluded} pairs could not be scored and are left out."] if excluded else [])]
    return lines + [
        f"not unseen in {split_title(split.name)}: “{leak.heldout}”, trained on “{leak.train}” ({leak.reason})"
        for split in report.splits
        for leak in split.leaks[:5]
    ]
