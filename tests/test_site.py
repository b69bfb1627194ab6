"""The website of the documentation builds without a warning, and has no dead link."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]


class Links(HTMLParser):
    """The links, the files that are loaded, and the anchors of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors.add(found.get("id", ""))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and "href" in found:
            self.loaded.append(found["href"])
        elif "src" in found:
            self.loaded.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "tools/docs_site", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, "")
    return out


@pytest.mark.slow
def test_no_link_is_dead_and_nothing_comes_from_elsewhere(site: Path) -> None:
    pages = {path: Links(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 60
    dead = []
    for page, found in pages.items():
        for link in [*found.links, *found.loaded]:
            if link.startswith(("https://", "http://", "mailto:", "data:")):
                continue
            name, _, anchor = unquote(link).partition("#")
            target = (page.parent / name).resolve() if name else page
            if target.is_dir():  # a server shows its index
                target /= "index.html"
            if not target.is_file() or (anchor and anchor not in pages[target].anchors):
                dead.append((page.name, link))
        assert [link for link in found.loaded if "://" in link] == []
    assert dead == []


@pytest.mark.slow
def test_each_document_is_a_page(site: Path) -> None:
    documents = {
        path.relative_to(ROOT / "docs").with_suffix(".html")
        for path in (ROOT / "docs").rglob("*.md")
        if path.name != "README.md"
    }
    assert [str(page) for page in sorted(documents) if not (site / page).is_file()] == []
