"""`report.html`: one page that needs nothing else. The answer first, then the evidence, then how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from ddpo.eval.render.figures import galleries, strip
from ddpo.eval.render.plots import forest_plot, reward_curve
from ddpo.eval.render.style import CSS
from ddpo.eval.render.words import (
    METHOD,
    answer,
    interval_text,
    number,
    p_text,
    percent,
    primary_reward,
    share_text,
    split_title,
    unit_text,
)
from ddpo.eval.report import Report, RewardFacts
from ddpo.eval.tables import Gain, Pair

__all__ = ["render_html"]

SIZE_LIMIT: Final = 15_000_000  # bytes of the page
PAIRS_SHOWN: Final = (8, 4, 2, 1, 0)  # of each kind and split; the next is tried while the page is too large
COLUMNS: Final = ("base", "tuned", "gain", "95 % interval", "carried over", "win rate", "d<sub>z</sub>", "p (Holm)", "pairs / prompts")
KEY: Final = (
    '<span aria-hidden="true"><span class="key-seen">●</span> in training, <span class="key-heldout">◆</span> not in training.</span>'
)
CARD_FACTS: Final = {
    "summary": "measures", "flaws": "flaws", "unit": "unit", "version": "version", "family": "family", "preprocessing": "preprocessing",
    "lineage": "lineage", "paper": "paper", "code_licence": "licence of the code",
}  # fmt: skip
POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # the browser itself refuses every request


def render_html(report: Report, pairs: Sequence[Pair], folder: Path) -> str:
    """The whole page, below 15 MB.

    Args:
        report: the findings.
        pairs: matched pairs, of which some are shown.
        folder: what the pairs' picture files are relative to.
    """
    pages = (_page(report, pairs, folder, shown) for shown in PAIRS_SHOWN)
    page = next(pages)
    while len(page.encode()) > SIZE_LIMIT and (smaller := next(pages, None)) is not None:
        page = smaller
    return page


def _page(report: Report, pairs: Sequence[Pair], folder: Path, shown: int) -> str:
    title = f"{primary_reward(report)}, {report.model}, iteration {report.iteration}: evaluation"
    evidence = [_gains(report), galleries([split.name for split in report.splits], pairs, primary_reward(report), folder, shown)]
    sections = [_head(report, pairs, folder, shown), *evidence, _method(report), _rewards(report), _made(report)]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{escape(title)}</title><style>{CSS}</style></head>\n'
        f"<body><main>\n{chr(10).join(sections)}\n<footer>Made by ddpo {escape(report.ddpo_version)}. The same numbers are in report.json, "
        f"every single score in samples.parquet.</footer>\n</main></body></html>\n"
    )


def _head(report: Report, pairs: Sequence[Pair], folder: Path, shown: int) -> str:
    seen, heldout, share = (escape(sentence) for sentence in answer(report))
    reward = primary_reward(report)
    pictures = strip([split.name for split in report.splits], pairs, reward, folder) if shown else ""
    return (
        f'<header><p class="kicker">Evaluation of <code>{escape(report.checkpoint)}</code>, '
        f"{escape(report.kind)} weights on {escape(report.model)}</p>"
        f"<h1>{escape(reward)} after {report.iteration} iterations: did it generalise?</h1>"
        f'<dl class="answer"><div><dt>Trained prompts</dt><dd>{seen}</dd></div><div><dt>Unseen prompts</dt><dd>{heldout}</dd></div>'
        f"<div><dt>Share carried over</dt><dd>{share}</dd></div></dl>{pictures}{_notices(report)}</header>"
    )


def _notices(report: Report) -> str:
    leaks = [(split, leak) for split in report.splits for leak in split.leaks]
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    listed = "".join(
        f"<li>{escape(split_title(split.name))}: “{escape(leak.heldout)}”, trained on “{escape(leak.train)}” ({escape(leak.reason)})</li>"
        for split, leak in leaks[:20]
    )
    more = f"<li>and {len(leaks) - 20} more, all in report.json</li>" if len(leaks) > 20 else ""
    found = f"<p>{_count(len(leaks), 'prompt')} not fully unseen:</p><ul>{listed}{more}</ul>" if leaks else ""
    return f'<div class="notice" role="note">{notes}{found}</div>' if notes or found else ""


def _gains(report: Report) -> str:
    head = '<th scope="col" class="l">prompts</th>' + "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    bodies = "".join(_reward_lines(report, reward) for reward in report.rewards)
    plots = "".join(_forest(report, reward) for reward in report.rewards)
    return (
        '<section aria-labelledby="gains"><h2 id="gains">Gains</h2>'
        f'<p class="soft" id="told">Tuned minus base on the reward’s own scale, {report.seeds} pictures per prompt and model. {KEY}</p>'
        '<div class="scroll" role="region" aria-labelledby="gains" tabindex="0"><table aria-labelledby="gains" aria-describedby="told">'
        f"<thead><tr>{head}</tr></thead>{bodies}</table></div>{_excluded(report)}"
        f'<div class="plots">{plots}{_curve(report)}</div></section>'
    )


def _reward_lines(report: Report, reward: RewardFacts) -> str:
    shares = {transfer.split: transfer.share for transfer in report.transfers if transfer.reward == reward.id}
    lines = "".join(
        _gain_line(gain, share_text(shares[gain.split]) if gain.split in shares and not shares[gain.split].reason else "–")
        for gain in report.gains
        if gain.reward == reward.id
    )
    unit = unit_text(str(reward.card.get("unit", "")))
    trained = ", trained on" if reward.id == report.trained_on else ""
    label = f"{escape(reward.id)} <small class='soft'>{escape(unit)}{trained}</small>"
    return f'<tbody><tr><th colspan="10" scope="rowgroup" class="l">{label}</th></tr>{lines}</tbody>'


def _gain_line(gain: Gain, share: str) -> str:
    paired, wins = gain.paired, gain.paired.wins
    interval = f"{wins.low * 100:.0f} to {wins.high * 100:.0f}" if wins.n else "–"
    cells = (
        number(paired.base_mean), number(paired.tuned_mean), f"<b>{number(paired.gain.mean, signed=True)}</b>", interval_text(paired.gain),
        share, f"{percent(wins.rate)} ({interval})", number(paired.d_z, 2, signed=True), escape(p_text(gain.p_holm)),
        f"{paired.gain.n} / {paired.gain.clusters}",
    )  # fmt: skip
    name = f"{_key(gain.role)} {escape(split_title(gain.split))}"
    return f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _excluded(report: Report) -> str:
    """How many pairs could not be scored, where there are any."""
    told = [
        f"{gain.paired.gain.excluded} of {split_title(gain.split)} by {gain.reward}" for gain in report.gains if gain.paired.gain.excluded
    ]
    return f"<p>Pairs left out because a picture could not be scored: {escape(', '.join(told))}.</p>" if told else ""


def _key(role: str) -> str:
    """The mark of a split, the same as in the plots; told in words to a screen reader."""
    css, mark, words = ("seen", "●", "in training") if role == "seen" else ("heldout", "◆", "not in training")
    return f'<span class="key-{css}" role="img" aria-label="{words}">{mark}</span>'


def _forest(report: Report, reward: RewardFacts) -> str:
    gains = [gain for gain in report.gains if gain.reward == reward.id]
    plot = forest_plot(gains, unit_text(str(reward.card.get("unit", ""))))
    return f"<figure><figcaption><b>{escape(reward.id)}</b>: gain with 95 % interval</figcaption>{plot}</figure>"


def _curve(report: Report) -> str:
    name = report.trained_on or "reward"
    unit = next((unit_text(str(reward.card.get("unit", ""))) for reward in report.rewards if reward.id == report.trained_on), "")
    plot = reward_curve(report.curve, name, unit)
    if not plot:
        return ""
    queries = f"{report.curve[-1].queries:,}".replace(",", "\u202f")
    told = f"<b>{escape(name)}</b> during training: mean of each rollout ± 1.96 standard errors; {queries} pictures scored in all"
    return f"<figure><figcaption>{told}</figcaption>{plot}</figure>"


def _method(report: Report) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in report.sampler.items())
    drawn = f"{report.seeds} pictures per prompt and model; noise seed {report.seed}; sampler: {settings}."
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in METHOD)
    sources = "".join(
        f"<dt>{escape(split_title(split.name))}</dt>"
        f"<dd>{_count(split.prompts, 'prompt')}, role {escape(split.role)}, {escape(split.source or 'source not stated')}</dd>"
        for split in report.splits
    )
    return (
        f'<section aria-labelledby="method"><h2 id="method">How to read this</h2>{paragraphs}<h3>Prompts and sampling</h3>'
        f'<dl class="facts">{sources}<dt>sampling</dt><dd>{escape(drawn)}</dd></dl></section>'
    )


def _rewards(report: Report) -> str:
    cards = []
    for reward in report.rewards:
        facts = {label: reward.card.get(key) for key, label in CARD_FACTS.items() if reward.card.get(key) not in (None, "", [], {})}
        listed = "".join(f"<dt>{escape(label)}</dt><dd>{escape(_plain(value))}</dd>" for label, value in facts.items())
        cards.append(
            f'<h3>{escape(reward.id)}</h3><dl class="facts">{listed}<dt>signature</dt><dd><code>{escape(reward.signature)}</code></dd></dl>'
        )
    return f'<section aria-labelledby="rewards"><h2 id="rewards">Rewards</h2>{"".join(cards)}</section>'


def _made(report: Report) -> str:
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _flat(report.manifest))
    if not listed:
        return ""
    facts = f'<details open><summary>Manifest</summary><dl class="facts">{listed}</dl></details>'
    return f'<section aria-labelledby="made"><h2 id="made">The run</h2>{facts}</section>'


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted names and short texts of nested JSON values."""
    lines: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{name}.")
        else:
            lines.append((f"{prefix}{name}", _plain(value)))
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        texts = [_plain(item) for item in value]
        return ", ".join(texts[:60]) + (f" … ({len(texts)} in all)" if len(texts) > 60 else "")
    return str(value)


def _count(number_of: int, noun: str) -> str:
    return f"{number_of} {noun}{'' if number_of == 1 else 's'}"
