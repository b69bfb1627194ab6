"""`report.html`: one page without requests, from the answer over the evidence to its origin."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.eval.analysis.tables import Pair
from ddpo.eval.inputs.models import ModelFacts
from ddpo.eval.report.answer import answer
from ddpo.eval.report.data import Report
from ddpo.eval.report.findings import model_sentence
from ddpo.eval.report.gains import excluded_pairs, gains_views, seeds_views
from ddpo.eval.report.history import curve_views, history_views
from ddpo.eval.report.history_strip import history_strips
from ddpo.eval.report.image_grids import ImageGrids
from ddpo.eval.report.inline_images import ImageEncoder
from ddpo.eval.report.matrix import matrix_views
from ddpo.eval.report.people import people_view
from ddpo.eval.report.provenance import card_views, manifest_views, model_rows, sampling_facts
from ddpo.eval.report.selection import advice_on, assessment_of, model_class, primary_reward
from ddpo.eval.report.side_effects import artefacts_view, diversity_views
from ddpo.eval.report.templating import render, stylesheet
from ddpo.eval.report.terms import TERMS
from ddpo.eval.report.wording import METHOD, reward_title

__all__ = ["render_html"]

SIZE_LIMIT: Final = 15_000_000  # bytes of the page
PAIRS_SHOWN: Final = (8, 4, 2, 1, 0)
"""Pairs of each kind, model and prompt list; a page that is too large gets the next number."""
FIGURES_PER_SPLIT: Final = 28  # more figures of one prompt list find no reader


FILES: Final = ("report.json", "report.md", "samples.parquet", "images")
"""The data of the report, beside the page."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page; its template has the name of its id."""

    id: str
    title: str  # in the list of contents
    needs: str  # variable of the page without which the section is left out


SECTIONS: Final = (
    Section("gains", "Gains", "gains"),
    Section("images", "Images", "report"),
    Section("people", "People", "people"),
    Section("hacking", "Hacking", "assessments"),
    Section("history", "History", "histories"),
    Section("artefacts", "Artefacts", "artefacts"),
    Section("diversity", "Diversity", "diversity"),
    Section("matrix", "Matrix", "matrices"),
    Section("seeds", "Seeds", "seeds"),
    Section("curves", "Curves", "curves"),
    Section("rewards", "Rewards", "report"),
    Section("leaks", "Leaks", "report"),
    Section("manifests", "Models", "report"),
    Section("method", "Method", "report"),
    Section("words", "Words", "terms"),
)


@dataclass(frozen=True, slots=True)
class AnswerView:
    """The answer about one model."""

    model: str
    css: str
    facts: str
    sentence: str
    training: str
    held_out: str
    hacking: str
    grade: str


def render_html(report: Report, pairs: Sequence[Pair], folder: Path) -> str:
    """The whole page, below 15 MB.

    Args:
        report: the report.
        pairs: matched pairs of images, of which some are shown.
        folder: folder that the image files of the pairs are relative to.
    """
    encoder = ImageEncoder(folder)
    values = _values(report) | {"files": [name for name in FILES if (folder / name).exists()]}
    kinds = 2 * len(report.compared) + 1
    values["sections"] = [one for one in SECTIONS if values[one.needs]]
    page = ""
    for size in PAIRS_SHOWN:
        if size > 1 and size * kinds > FIGURES_PER_SPLIT:
            continue
        page = render("page.html.jinja", values | _images(report, pairs, encoder, size))
        if len(page.encode()) <= SIZE_LIMIT:
            break
    return page


def _values(report: Report) -> dict[str, Any]:
    """The variables of the page other than its images."""
    return {
        "report": report,
        "stylesheet": stylesheet(),
        "sentence": report.sentence,
        "answers": [_answer(report, model) for model in report.compared],
        "gains": gains_views(report),
        "excluded": excluded_pairs(report),
        "people": people_view(report),
        "assessments": [
            (model_class(report, one.model), one, advice_on(report, one.model))
            for one in report.readings
        ],
        "histories": history_views(report),
        "artefacts": artefacts_view(report),
        "diversity": diversity_views(report),
        "matrices": matrix_views(report),
        "seeds": seeds_views(report),
        "curves": curve_views(report),
        "cards": card_views(report),
        "models": model_rows(report),
        "manifests": manifest_views(report),
        "method": METHOD,
        "terms": TERMS,
        "sampling": sampling_facts(report),
    }


def _images(
    report: Report, pairs: Sequence[Pair], encoder: ImageEncoder, size: int
) -> dict[str, Any]:
    """The variables of the images; none are shown at size 0."""
    if not size:
        return {"has_images": False, "strips": {}, "strip": [], "galleries": []}
    numbers = itertools.count(1)
    strips = history_strips(report, pairs, encoder, numbers)
    grids = ImageGrids(report, pairs, encoder, numbers)
    return {
        "has_images": True,
        "strips": strips,
        "strip": grids.strip(),
        "galleries": grids.galleries(size),
    }


def _answer(report: Report, model: ModelFacts) -> AnswerView:
    if model.trained_on and model.kind != "images":
        facts = f"trained on {reward_title(model.trained_on)}"
    else:
        facts = f"scored by {reward_title(primary_reward(report, model.name))}"
    if model.iteration >= 0:
        facts += f", {model.iteration} iterations"
    assessment = assessment_of(report, model.name)
    grade = assessment.grade if assessment else "not measured"
    css = model_class(report, model.name)
    return AnswerView(
        model.name,
        css,
        facts,
        model_sentence(report, model.name),
        *answer(report, model.name),
        grade,
    )
