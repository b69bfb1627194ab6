"""The report as Markdown, for an issue or a model card and for the summary of a CI job."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ddpo.eval.analysis.tables import Gain
from ddpo.eval.report.answer import answer
from ddpo.eval.report.data import Report
from ddpo.eval.report.people import people_lines
from ddpo.eval.report.selection import (
    advice_on,
    assessment_of,
    gains_of,
    is_within_noise,
    primary_reward,
    rewards_of,
    share_of,
)
from ddpo.eval.report.wording import (
    count,
    estimate_text,
    number,
    p_text,
    percent,
    reward_title,
    role_text,
    score_text,
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
SIGNATURE_LENGTH: Final = 400
COMMAND_LENGTH: Final = 4000


def render_markdown(report: Report) -> str:
    """The report in short, with the gains by the trained, held-out and requested rewards."""
    rewards = rewards_of(report, "trained", "heldout", "asked")
    gains = [
        gain
        for model in report.compared
        for reward in rewards
        for gain in gains_of(report, model=model.name, reward=reward.id)
    ]
    lines = [*_answers(report), *_table(report, gains), "", *_people(report)]
    lines += ["", *_assessments(report), ""]
    lines += [*_notes(report), *_leaks(report), *_settings(report)]
    return _document(lines)


def render_github(report: Report) -> str:
    """GitHub-flavoured, with the gains by each model's own reward; other parts are folded."""
    own = [gain for gain in report.gains if gain.reward == primary_reward(report, gain.model)]
    rest = [
        gain
        for model in report.compared
        for reward in report.rewards
        if reward.id != primary_reward(report, model.name)
        for gain in gains_of(report, model=model.name, reward=reward.id)
    ]
    lines = [*_answers(report), *_table(report, own), "", *_people(report), *_notes(report)]
    parts = {
        "Evidence of reward hacking": _assessments(report),
        "Gains by other rewards, and pixel statistics": _table(report, rest) if rest else [],
        "Leaks": _leaks(report),
        "Signatures": _settings(report),
    }
    for title, body in parts.items():
        if body:
            lines += ["", f"<details><summary>{title}</summary>", "", *body, "", "</details>"]
    return _document(lines)


def _answers(report: Report) -> list[str]:
    lines = [f"## {_safe(report.sentence)}", ""]
    for model in report.compared:
        facts = [f"trained on {reward_title(model.trained_on)}"] if model.trained_on else []
        facts += [f"{model.iteration} iterations"] if model.iteration >= 0 else []
        about = f" ({_safe(', '.join(facts))})" if facts else ""
        lines += [f"### {_safe(model.name)} against {_safe(report.base)}{about}", ""]
        lines += [*(f"- {_safe(sentence)}" for sentence in answer(report, model.name)), ""]
    return lines


def _table(report: Report, gains: Sequence[Gain]) -> list[str]:
    alignment = ["---"] * 3 + ["---:"] * (len(HEADER) - 3)
    rows = [_row(_cells(report, gain)) for gain in gains]
    return [_row(HEADER), f"| {' | '.join(alignment)} |", *rows]


def _cells(report: Report, gain: Gain) -> list[str]:
    paired = gain.paired
    share = share_of(report, gain)
    prompts = "training prompts" if gain.role == "seen" else "held-out"
    noise = " within noise" if is_within_noise(report, gain) else ""
    return [
        gain.model,
        reward_title(gain.reward),
        f"{split_title(gain.split)} ({prompts})",
        score_text(paired.base_mean, paired.gain),
        score_text(paired.tuned_mean, paired.gain),
        estimate_text(paired.gain) + noise,
        percent(paired.wins.rate),
        number(paired.d_z, 2),
        p_text(gain.p_holm),
        str(paired.gain.n),
        "–" if share is None else share_text(share),
    ]


def _assessments(report: Report) -> list[str]:
    lines: list[str] = []
    for model in report.compared:
        found = assessment_of(report, model.name)
        if found is None:
            continue
        lines += ["", f"**{_safe(model.name)}: {found.grade}.** {_safe(found.text)}", ""]
        for item in found.evidence:
            lines.append(f"- {_safe(item.kind)}, **{item.grade}**: {_safe(item.text)}")
        if advice := advice_on(report, model.name):
            lines += ["", "What would tell more:", ""]
            lines += [
                f"- {_safe(one.kind)}: {_safe(one.text)}: {_code(one.command, COMMAND_LENGTH)}"
                for one in advice
            ]
    return lines


def _people(report: Report) -> list[str]:
    return [f"- {_safe(line)}" for line in people_lines(report)]


def _notes(report: Report) -> list[str]:
    return [f"- {_safe(note)}" for note in report.notes]


def _leaks(report: Report) -> list[str]:
    leaks = [(split_title(split.name), leak) for split in report.splits for leak in split.leaks]
    lines = [
        f"- leak in {_safe(title)}: {_code(leak.heldout)}, "
        f"trained on {_code(leak.train)} ({_safe(leak.reason)})"
        for title, leak in leaks[:LEAKS_SHOWN]
    ]
    rest = len(leaks) - LEAKS_SHOWN
    return [*lines, f"- and {rest} more leaks, all in report.json"] if rest > 0 else lines


def _settings(report: Report) -> list[str]:
    """The number of images and the signatures of the rewards."""
    images = count(report.seeds, "image")
    signatures = [
        f"- {role_text(reward.role)}: {_code(reward.signature, SIGNATURE_LENGTH)}"
        for reward in report.rewards
    ]
    about = f"{images} per prompt and model; intervals clustered by prompt."
    return ["", about, "", *signatures]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_safe(cell) for cell in cells) + " |"


def _document(lines: Sequence[str]) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _safe(text: str) -> str:
    """Text that ends no table cell, opens no tag, link or emphasis, and notifies nobody."""
    line = re.sub(r"[^\S\xa0\u202f]+", " ", text).strip()
    escaped = re.sub(r"([\\`*_\[\]|])", r"\\\1", line)
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([@#])(?=\w)", "\\1\N{ZERO WIDTH NON-JOINER}", escaped)


def _code(text: str, limit: int = PROMPT_LENGTH) -> str:
    """A text as code, where only the backtick is markup; not for tables, whose cells end at |."""
    return f"`{shortened(text, limit).replace('`', chr(0x2CB))}`"
