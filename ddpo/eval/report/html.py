"""`report.html`: one page that needs nothing else. The answer first, then the evidence, then how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from ddpo.eval.analysis.tables import Pair
from ddpo.eval.report.album import Album
from ddpo.eval.report.answer import answer
from ddpo.eval.report.assessment import readings_section
from ddpo.eval.report.cards import leaks_section, manifest_section, method_section, rewards_section
from ddpo.eval.report.choice import model_class, primary_reward, reading_of
from ddpo.eval.report.data import Report
from ddpo.eval.report.gains import gains_section, runs_section
from ddpo.eval.report.history import course_section, curves_section
from ddpo.eval.report.image_strips import Noise, by_noise, galleries, strip
from ddpo.eval.report.matrix import matrix_section
from ddpo.eval.report.shifts import artefact_section, variety_section
from ddpo.eval.report.style import CSS
from ddpo.eval.report.tags import badge

__all__ = ["render_html"]

SIZE_LIMIT: Final = 15_000_000  # bytes of the page
PAIRS_SHOWN: Final = (
    8,
    4,
    2,
    1,
    0,
)  # of each kind, model and split; the next is tried while the page is too large
FIGURES_PER_SPLIT: Final = 28  # more of them nobody looks at
POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # the browser itself refuses every request


def render_html(report: Report, pairs: Sequence[Pair], folder: Path) -> str:
    """The whole page, below 15 MB.

    Args:
        report: the findings.
        pairs: matched pairs, of which some are shown.
        folder: what the pairs' picture files are relative to.
    """
    noise, album = by_noise(report, pairs), Album(folder)
    kinds = 2 * len(report.compared) + 1
    sizes = [size for size in PAIRS_SHOWN if size * kinds <= FIGURES_PER_SPLIT or size <= 1]
    pages = (_page(report, pairs, noise, album, size) for size in sizes)
    page = next(pages)
    while len(page.encode()) > SIZE_LIMIT and (smaller := next(pages, None)) is not None:
        page = smaller
    return page


def _page(report: Report, pairs: Sequence[Pair], noise: Noise, album: Album, shown: int) -> str:
    sections = [
        gains_section(report),
        galleries(report, pairs, noise, album, shown),
        readings_section(report),
        course_section(report),
        artefact_section(report),
        variety_section(report),
        matrix_section(report),
        runs_section(report),
        curves_section(report),
        rewards_section(report),
        leaks_section(report),
        manifest_section(report),
        method_section(report),
    ]
    body = "\n".join(
        [_head(report, pairs, noise, album, shown), *(text for text in sections if text)]
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{escape(_title(report))}</title>'
        f"<style>{CSS}{_chooser_rules(report)}</style></head>\n<body><main>\n{body}\n</main>\n"
        f"<footer>Made by ddpo {escape(report.ddpo_version)}. The same numbers are in report.json, every single score in samples.parquet."
        f"</footer></body></html>\n"
    )


def _title(report: Report) -> str:
    names = ", ".join(model.name for model in report.compared)
    return f"{names} against {report.base}: did it generalise, or did it game the reward?"


def _head(report: Report, pairs: Sequence[Pair], noise: Noise, album: Album, shown: int) -> str:
    pictures = strip(report, pairs, noise, album) if shown else ""
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    return (
        f'<header><p class="kicker">Evaluation against <code>{escape(report.base)}</code></p>'
        f"<h1>Did it generalise, or did it game the reward?</h1>{_chooser(report)}"
        f'<div class="answers">{"".join(_answer(report, model.name) for model in report.compared)}</div>{pictures}'
        + (f'<div class="notice" role="note">{notes}</div>' if notes else "")
        + "</header>"
    )


def _answer(report: Report, model: str) -> str:
    facts = next(facts for facts in report.models if facts.name == model)
    seen, heldout, gaming = (escape(sentence) for sentence in answer(report, model))
    reading = reading_of(report, model)
    trained = (
        f"trained on {facts.trained_on}"
        if facts.trained_on
        else f"scored by {primary_reward(report, model)}"
    )
    after = f", {facts.iteration} iterations" if facts.iteration >= 0 else ""
    return (
        f'<div class="answer {model_class(report, model)}"><h2>{escape(model)} <small>{escape(trained + after)}</small></h2><dl>'
        f"<div><dt>Seen prompts</dt><dd>{seen}</dd></div><div><dt>Other prompts</dt><dd>{heldout}</dd></div>"
        f"<div><dt>Gaming? {badge(reading.grade if reading else 'not measured')}</dt><dd>{gaming}</dd></div></dl></div>"
    )


def _chooser(report: Report) -> str:
    """Radio buttons that choose a model by the style sheet alone; nothing to choose with one model."""
    if len(report.compared) < 2:
        return ""
    names = ["all side by side", *(model.name for model in report.compared)]
    choices = "".join(
        f'<label><input type="radio" name="model" id="show{position}"{" checked" if not position else ""}>{escape(name)}</label>'
        for position, name in enumerate(names)
    )
    return f'<fieldset class="choose"><legend>Show</legend>{choices}</fieldset>'


def _chooser_rules(report: Report) -> str:
    return "".join(
        f"main:has(#show{i + 1}:checked) .m:not(.m{i}){{display:none}}\n"
        for i in range(len(report.compared))
    )
