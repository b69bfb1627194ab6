"""The report for a terminal, as a renderable of rich."""

from __future__ import annotations

from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ddpo.eval.analysis.tables import Gain
from ddpo.eval.report.answer import answer
from ddpo.eval.report.data import Report
from ddpo.eval.report.people import people_lines
from ddpo.eval.report.selection import (
    advice_on,
    assessment_of,
    gains_of,
    is_within_noise,
    reward_role,
    rewards_of,
    share_of,
)
from ddpo.eval.report.wording import (
    interval_text,
    mean_text,
    number,
    percent,
    reward_title,
    score_text,
    share_text,
    shortened,
    split_title,
)

__all__ = ["render_terminal"]

WIDE: Final = 100  # columns of a terminal that shows all columns of the table
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
TITLE_LENGTH: Final = 24
PROMPT_LENGTH: Final = 100


class _Terminal:
    """A report laid out for the width of the console."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        report = self._report
        yield Text(report.sentence, style="bold")
        yield Text("")
        is_wide = options.max_width >= WIDE
        for model in report.compared:
            if len(report.compared) > 1:
                yield Text(model.name, style="bold reverse")
            for reward in rewards_of(report, "trained", "heldout", "asked"):
                title = reward_title(reward.id)
                name = title if title == reward.id else f"{title} ({reward.id})"
                role = reward_role(report, reward, model.name)
                yield Text(f"{name}, {role}", style="bold")
                yield _table(report, model.name, reward.id, is_wide)
                yield Text("")
        for model in report.compared:
            yield from _findings(report, model.name)
        if lines := people_lines(report):
            yield _marked_lines([("•", line) for line in lines])
            yield Text("")
        yield _marked_lines([("•", line) for line in _notes(report)])


def render_terminal(report: Report) -> RenderableType:
    """The sentence, the gains, then the answers, the evidence, notes and leaks."""
    return _Terminal(report)


def _table(report: Report, model: str, reward: str, is_wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("", overflow="fold")
    for name in WIDE_COLUMNS if is_wide else COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for gain in gains_of(report, model=model, reward=reward):
        table.add_row(*(Text(cell) for cell in _cells(report, gain, is_wide)))
    return table


def _cells(report: Report, gain: Gain, is_wide: bool) -> list[str]:
    paired = gain.paired
    estimate = paired.gain
    has_interval = estimate.low == estimate.low
    noise = " ~" if is_within_noise(report, gain) else ""
    cells = [
        mean_text(estimate) + noise,
        interval_text(estimate) if has_interval else "–",
        number(estimate.mean / estimate.se, 2, signed=True) if estimate.se > 0 else "–",
        percent(paired.wins.rate),
        _carried_over(report, gain),
    ]
    if is_wide:
        scores = [score_text(one, estimate) for one in (paired.base_mean, paired.tuned_mean)]
        cells = [*scores, *cells, str(estimate.n)]
    return [shortened(split_title(gain.split), TITLE_LENGTH), *cells]


def _carried_over(report: Report, gain: Gain) -> str:
    if gain.role == "seen":
        return "trained on"
    share = share_of(report, gain)
    return "–" if share is None else share_text(share)


def _findings(report: Report, model: str) -> list[RenderableType]:
    title = model
    evidence = []
    assessment = assessment_of(report, model)
    if assessment is not None:
        title = f"{model}: {SHAPES[assessment.grade]} {assessment.grade}"
        evidence = [
            (SHAPES[item.grade], f"{item.kind}, {item.grade}: {item.text}")
            for item in assessment.evidence
        ]
    return [
        Text(title, style="bold"),
        _marked_lines([("•", sentence) for sentence in answer(report, model)]),
        _marked_lines(evidence, 2),
        *_tells_more(report, model),
        Text(""),
    ]


def _tells_more(report: Report, model: str) -> list[RenderableType]:
    """The sources of further evidence, each with its command on a line that can be copied."""
    advice = advice_on(report, model)
    if not advice:
        return []
    lines: list[RenderableType] = [Text("What would tell more:")]
    for one in advice:
        lines += [_marked_lines([("+", f"{one.kind}: {one.text}")], 2), _command(one.command)]
    return lines


def _command(command: str) -> Text:
    """A command on one line of any width, as long as the console does not crop it."""
    return Text(f"    {command}", no_wrap=True, overflow="ignore")


def _marked_lines(lines: list[tuple[str, str]], indent: int = 0) -> Table:
    """Paragraphs beside their marks."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=1 + indent, justify="right")
    table.add_column(overflow="fold")
    for mark, line in lines:
        table.add_row(Text(mark), Text(line))
    return table


def _notes(report: Report) -> list[str]:
    lines = list(report.notes)
    if excluded := sum(gain.paired.gain.excluded for gain in report.gains):
        lines.append(f"Comparisons left out because an image could not be scored: {excluded}.")
    if any(is_within_noise(report, gain) for gain in report.gains):
        lines.append("~ within the noise floor of the reward: no evidence of a change.")
    for split in report.splits:
        title = split_title(split.name)
        for leak in split.leaks[:LEAKS_SHOWN]:
            held_out = shortened(leak.heldout, PROMPT_LENGTH)
            trained = shortened(leak.train, PROMPT_LENGTH)
            lines.append(f"leak in {title}: “{held_out}”, trained on “{trained}” ({leak.reason})")
        if len(split.leaks) > LEAKS_SHOWN:
            rest = len(split.leaks) - LEAKS_SHOWN
            lines.append(f"and {rest} more leaks of {title}, all in report.json")
    return lines
