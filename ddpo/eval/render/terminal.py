"""The report for a terminal: a renderable for rich; the command line prints it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ddpo.eval.render.words import answer, interval_text, number, percent, share_text, split_title
from ddpo.eval.report import Report

__all__ = ["render_terminal"]


def render_terminal(report: Report) -> RenderableType:
    """The table of gains, then the answer in three sentences."""
    shares = {(transfer.split, transfer.reward): transfer.share for transfer in report.transfers}
    several = len(report.rewards) > 1
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for name in ("reward",) * several + (
        "prompts",
        "base",
        "tuned",
        "gain",
        "95 % interval",
        "gain/SE",
        "win rate",
        "pairs",
        "carried over",
    ):
        table.add_column(name, justify="left" if name in ("reward", "prompts") else "right", no_wrap=name != "carried over")
    for gain in report.gains:
        paired, share = gain.paired, shares.get((gain.split, gain.reward))
        estimate = paired.gain
        interval = "–" if estimate.low != estimate.low else interval_text(estimate)
        errors = number(estimate.mean / estimate.se, 2, signed=True) if estimate.se > 0 else "–"
        name = split_title(gain.split) + (" (in training)" if gain.role == "seen" else "")
        cells = (name, number(paired.base_mean), number(paired.tuned_mean), number(estimate.mean, signed=True), interval, errors)
        carried = share_text(share) if share is not None and not share.reason else "–"
        table.add_row(*(Text(cell) for cell in (*((gain.reward,) * several), *cells, percent(paired.wins.rate), str(estimate.n), carried)))
    excluded = sum(gain.paired.gain.excluded for gain in report.gains)
    lines = [*answer(report), *report.notes, *([f"{excluded} pairs could not be scored and are left out."] if excluded else [])]
    lines += [
        f"not unseen in {split_title(split.name)}: “{leak.heldout}”, trained on “{leak.train}” ({leak.reason})"
        for split in report.splits
        for leak in split.leaks[:5]
    ]
    return Group(table, Text(""), *(Text(f"• {line}") for line in lines))
