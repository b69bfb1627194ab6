"""The Jinja environment of the HTML report: autoescaped templates, loaded once when first used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup, escape

from ddpo.eval.report import wording
from ddpo.eval.report.interval_plots import axis_plot, interval_plot
from ddpo.eval.report.terms import term_number
from ddpo.web import TOKENS

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["code_spans", "render", "stylesheet"]

TEMPLATES: Final = Path(__file__).parent / "templates"


def render(template: str, values: Mapping[str, Any]) -> str:
    """The text of a template.

    Args:
        template: file name below `templates`.
        values: variables of the template; text that is not `Markup` is escaped.

    Raises:
        jinja2.UndefinedError: the template uses a variable that `values` lacks.
    """
    return _environment().get_template(template).render(values)


@cache
def stylesheet() -> Markup:
    """The stylesheet of the page, with the colours that all pages of the package share."""
    files = (TOKENS, TEMPLATES / "style.css")
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return Markup(text)  # noqa: S704  # files of this package


def code_spans(text: str) -> Markup:
    """The text with its parts between backticks as code."""
    parts = text.split("`")
    marked = [
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    ]
    return Markup("").join(marked)


def unbroken(text: str) -> str:
    """The text without a line break between a number and its percent sign."""
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "code_spans": code_spans,
        "counted": wording.count,
        "estimate": wording.estimate_text,
        "listed": wording.listed,
        "reward_title": wording.reward_title,
        "shortened": wording.shortened,
        "split_title": wording.split_title,
        "unbroken": unbroken,
    }
    environment.globals |= {
        "axis_plot": axis_plot,
        "interval_plot": interval_plot,
        "term_number": term_number,
    }
    return environment
