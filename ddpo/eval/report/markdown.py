"""The report as Markdown: `render_markdown` in short for an issue or a model card, `render_github` for the summary of a CI job."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ddpo.eval.analysis.tables import Gain
from ddpo.eval.report.answer import answer
from ddpo.eval.report.choice import gains_of, primary_reward, reading_of, rewards_of, within_noise
from ddpo.eval.report.data import Report
from ddpo.eval.report.wording import (
    count,
    estimate_text,
    number,
    p_text,
    percent,
    role_text,
    share_text,
    shortened,
    split_title,
)

__all__ = ["render_github", "render_markdown"]

HEADER: Final = (
    "model",
    "reward",
    "prompts",
    "base",
    "tuned",
    "gain (95 % interval)",
    "win rate",
    "d_z",
    "p (Holm)",
    "pairs",
    "carried over",
)
LEAKS_SHOWN: Final = 20
PROMPT_LENGTH: Final = 120


def render_markdown(report: Report) -> str:
    """The answer in three sentences for each model, gains by the trained and held-out rewards, readings, leaks and signatures."""
    rewards = rewards_of(report, "trained", "heldout", "asked")
    gains = [
        gain
        for model in report.compared
        for reward in rewards
        for gain in gains_of(report, model=model.name, reward=reward.id)
    ]
    lines = [*_answers(report), *_table(report, gains), ""]
    lines += [*_readings(report), "", *_notes(report), *_leaks(report), *_drawn(report)]
    return _joined(lines)


def render_github(report: Report) -> str:
    """GitHub-flavoured: the answers and the gains by each model's own reward; everything else opens. No pictures."""
    own = [gain for gain in report.gains if gain.reward == primary_reward(report, gain.model)]
    rest = [
        gain
        for model in report.compared
        for reward in report.rewards
        if reward.id != primary_reward(report, model.name)
        for gain in gains_of(report, model=model.name, reward=reward.id)
    ]
    lines = [*_answers(report), *_table(report, own), "", *_notes(report)]
    parts = {
        "Evidence of gaming": _readings(report),
        "Gains by other rewards, and pixel statistics": _table(report, rest) if rest else [],
        "Leaks": _leaks(report),
        "Signatures": _drawn(report),
    }
    for title, body in parts.items():
        lines += (
            ["", f"<details><summary>{title}</summary>", "", *body, "", "</details>"]
            if body
            else []
        )
    return _joined(lines)


def _answers(report: Report) -> list[str]:
    lines: list[str] = []
    for model in report.compared:
        facts = [f"trained on {model.trained_on}"] if model.trained_on else []
        facts += [f"{model.iteration} iterations"] if model.iteration >= 0 else []
        about = f" ({_safe(', '.join(facts))})" if facts else ""
        lines += [f"### {_safe(model.name)} against {_safe(report.base)}{about}", ""]
        lines += [*(f"- {_safe(sentence)}" for sentence in answer(report, model.name)), ""]
    return lines


def _table(report: Report, gains: Sequence[Gain]) -> list[str]:
    shares = {(t.model, t.split, t.reward): t.share for t in report.transfers}
    lines = [_row(HEADER), "| " + " | ".join(["---"] * 3 + ["---:"] * (len(HEADER) - 3)) + " |"]
    for gain in gains:
        paired, share = gain.paired, shares.get((gain.model, gain.split, gain.reward))
        carried = share_text(share) if share is not None and not share.reason else "–"
        change = estimate_text(paired.gain) + (
            " within noise" if within_noise(report, gain) else ""
        )
        prompts = f"{split_title(gain.split)} ({'trained on' if gain.role == 'seen' else 'not trained on'})"
        cells = (
            gain.model,
            gain.reward,
            prompts,
            number(paired.base_mean),
            number(paired.tuned_mean),
            change,
        )
        lines.append(
            _row(
                (
                    *cells,
                    percent(paired.wins.rate),
                    number(paired.d_z, 2),
                    p_text(gain.p_holm),
                    str(paired.gain.n),
                    carried,
                )
            )
        )
    return lines


def _readings(report: Report) -> list[str]:
    lines: list[str] = []
    for model in report.compared:
        reading = reading_of(report, model.name)
        if reading is not None:
            lines += ["", f"**{_safe(model.name)}: {reading.grade}.** {_safe(reading.text)}", ""]
            lines += [
                f"- {_safe(item.kind)}, **{item.grade}**: {_safe(item.text)}"
                for item in reading.evidence
            ]
    return lines


def _notes(report: Report) -> list[str]:
    return [f"- {_safe(note)}" for note in report.notes]


def _leaks(report: Report) -> list[str]:
    leaks = [(split, leak) for split in report.splits for leak in split.leaks]
    lines = [
        f"- not unseen in {_safe(split_title(split.name))}: {_code(leak.heldout)}, trained on {_code(leak.train)} ({_safe(leak.reason)})"
        for split, leak in leaks[:LEAKS_SHOWN]
    ]
    return lines + (
        [f"- and {len(leaks) - LEAKS_SHOWN} more leaks, all in report.json"]
        if len(leaks) > LEAKS_SHOWN
        else []
    )


def _drawn(report: Report) -> list[str]:
    signatures = [
        f"- {role_text(reward.role)}: {_code(reward.signature, 400)}" for reward in report.rewards
    ]
    return [
        "",
        f"{count(report.seeds, 'picture')} per prompt and model; intervals clustered by prompt.",
        "",
        *signatures,
    ]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_safe(cell) for cell in cells) + " |"


def _joined(lines: Sequence[str]) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _safe(text: str) -> str:
    """Text that ends no table cell, opens no tag, link or emphasis, and calls nobody by @name or #number."""
    escaped = (
        re.sub(r"([\\`*_\[\]|])", r"\\\1", re.sub(r"[^\S\xa0\u202f]+", " ", text).strip())
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
    )
    return re.sub(r"([@#])(?=\w)", "\\1\N{ZERO WIDTH NON-JOINER}", escaped)


def _code(text: str, limit: int = PROMPT_LENGTH) -> str:
    """A prompt as code, in which nothing is markup but the backtick. Not for tables, where a bar would end the cell."""
    return f"`{shortened(text, limit).replace('`', chr(0x2CB))}`"
