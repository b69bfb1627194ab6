"""The report as Markdown, for a README, an issue or a model card."""

from __future__ import annotations

import re

from ddpo.eval.render.words import answer, estimate_text, number, p_text, percent, share_text, split_title
from ddpo.eval.report import Report

__all__ = ["render_markdown"]

HEADER = ("reward", "prompts", "role", "base", "tuned", "gain (95 % interval)", "win rate", "d_z", "p (Holm)", "pairs", "carried over")


def render_markdown(report: Report) -> str:
    """The answer in three sentences, the table of gains, leaks and signatures."""
    shares = {(transfer.split, transfer.reward): transfer.share for transfer in report.transfers}
    lines = [f"### {report.model}, iteration {report.iteration}", "", *(f"- {_safe(sentence)}" for sentence in answer(report)), ""]
    lines += [_row(HEADER), _row(["---"] * 3 + ["---:"] * (len(HEADER) - 3))]
    for gain in report.gains:
        paired, share = gain.paired, shares.get((gain.split, gain.reward))
        carried = share_text(share) if share is not None and not share.reason else "–"
        cells = (
            gain.reward,
            split_title(gain.split),
            gain.role,
            number(paired.base_mean),
            number(paired.tuned_mean),
            estimate_text(paired.gain),
        )
        lines.append(_row((*cells, percent(paired.wins.rate), number(paired.d_z, 2), p_text(gain.p_holm), str(paired.gain.n), carried)))
    leaks = [(split.name, leak) for split in report.splits for leak in split.leaks]
    if leaks or report.notes:
        lines += ["", *(f"- {_safe(note)}" for note in report.notes)]
        lines += [
            f"- not unseen in {_safe(name)}: “{_safe(leak.heldout)}”, trained on “{_safe(leak.train)}” ({leak.reason})"
            for name, leak in leaks
        ]
    lines += ["", f"{report.seeds} pictures per prompt and model; intervals clustered by prompt.", ""]
    return "\n".join([*lines, *(f"`{reward.signature.replace('`', '')}`" for reward in report.rewards)]) + "\n"


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(_safe(cell) for cell in cells) + " |"


def _safe(text: str) -> str:
    """Text that cannot end a table cell or open a tag."""
    return re.sub(r"[ \t\r\n]+", " ", text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;"))
