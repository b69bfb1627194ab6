"""The colours of all pages: defined once, in tokens.css, and used by every page."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from ddpo.web import TOKENS

PACKAGE = Path(str(files("ddpo")))
STYLES = sorted(path for path in PACKAGE.rglob("*.css") if path != TOKENS)
PAGES = sorted(PACKAGE.rglob("static/index.html"))
SOURCES = sorted(
    path for path in PACKAGE.rglob("*") if path.suffix in {".css", ".html", ".jinja", ".js"}
)
DEFINITION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*)\s*:")
COLOUR = re.compile(r"#[0-9a-f]{3,8}\b|\b(?:rgba?|hsla?|oklch)\(", re.IGNORECASE)
OF_ELEMENTS = {"--columns"}  # a number that a template sets on one element


def _defined(text: str) -> set[str]:
    return set(DEFINITION.findall(text))


def test_the_files_are_those_of_the_package() -> None:
    assert TOKENS.is_file()
    assert {path.name for path in STYLES} == {"style.css", "frame.css", "view.css", "label.css"}
    assert len(PAGES) == 2


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_other_file_defines_a_token_or_a_colour(path: Path) -> None:
    if path == TOKENS:
        return
    text = path.read_text(encoding="utf-8")
    assert _defined(text) <= OF_ELEMENTS
    if path.suffix == ".css":
        assert COLOUR.findall(text) == []


def test_every_token_that_a_page_uses_is_defined_in_light_and_dark() -> None:
    text = TOKENS.read_text(encoding="utf-8")
    light, dark, paper = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    used = {
        name
        for path in SOURCES
        for name in re.findall(r"var\((--[a-z-]+)", path.read_text(encoding="utf-8"))
    } - OF_ELEMENTS
    assert used == _defined(light) == _defined(dark)
    assert _defined(paper) < _defined(light)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parents[1].name)
def test_a_local_page_loads_the_tokens_first(page: Path) -> None:
    hrefs = re.findall(r'rel="stylesheet" href="([^"]+)"', page.read_text(encoding="utf-8"))
    assert hrefs[:2] == ["/frame/tokens.css", "/frame/frame.css"]
