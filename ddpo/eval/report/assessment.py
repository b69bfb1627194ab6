"""The reading of each model with its evidence, graded by word and shape."""

from __future__ import annotations

from html import escape

from ddpo.eval.analysis.hacking import HackingAssessment
from ddpo.eval.report.choice import model_class
from ddpo.eval.report.data import Report
from ddpo.eval.report.tags import badge, section

__all__ = ["readings_section"]


def readings_section(report: Report) -> str:
    """One card per model; empty without readings."""
    cards = "".join(_card(report, reading) for reading in report.readings)
    told = "Graded evidence, not a verdict: each line says what was found, with its numbers. Judge for yourself, beside the pictures."
    return (
        section("reading", "Did it game the reward?", f'<div class="cards">{cards}</div>', told)
        if cards
        else ""
    )


def _card(report: Report, reading: HackingAssessment) -> str:
    lines = "".join(
        f"<div><dt>{escape(item.kind)} {badge(item.grade)}</dt><dd>{escape(item.text)}</dd></div>"
        for item in reading.evidence
    )
    return (
        f'<article class="card {model_class(report, reading.model)}"><h3>{escape(reading.model)} {badge(reading.grade)}</h3>'
        f"<p>{escape(reading.text)}</p>" + (f"<dl>{lines}</dl>" if lines else "") + "</article>"
    )
