"""The report in Chromium: widths, light and dark, keyboard, links, images, paper, no script, axe.

One page comes from a real training and evaluation by the command line. The other has three models,
hostile prompts and every section.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image
from report_fixture import make

from ddpo.eval.report.html import render_html
from ddpo.eval.report.terms import TERMS
from tests.warm_start import run_ddpo

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = Path("/usr/bin/chromium")
ROOT = Path(__file__).parents[2]
AXE = os.environ.get("DDPO_TEST_AXE")  # axe.min.js of the npm package axe-core
WIDTHS = (390, 1280, 1920)
SCHEMES = ("light", "dark")
PAPER = 718  # CSS pixels between the margins of A4
TRAIN = (
    *("train", "--reward", "compressibility", "--iterations", "2", "--set", "checkpoint_every=1"),
    *("--set", "sample.samples=4", "--set", "sample.per_prompt=2", "--set", "sample.batch=4"),
    *("--set", "sample.steps=2", "--set", "optim.updates=1", "--set", "optim.timesteps=1"),
    *("--quiet", "--out", "run"),
)
EVAL = (
    *("eval", "run", "--limit", "3", "--per-prompt", "2", "--history", "1", "--quiet"),
    *("--history-per-prompt", "1", "--best-of", "2", "--out", "real"),
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The files of both pages."""
    folder = tmp_path_factory.mktemp("pages")
    for command in (TRAIN, EVAL):
        done = run_ddpo(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
    made = folder / "made"
    report, pairs = make(made, prompts=3, seeds=2, side=48)
    earlier = [
        replace(pair, model=f"{pair.model}@{iteration}")
        for pair in pairs
        for iteration in (10, 20)
        if pair.split == "animals"
    ]
    page = made / "report.html"
    page.write_text(render_html(report, pairs + earlier, made), encoding="utf-8")
    return {"real": folder / "real" / "report.html", "made": page}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield found
        found.close()


@contextmanager
def opened(browser: Any, file: Path, width: int = 1280, **settings: Any) -> Iterator[Any]:
    """The page at a width. Any error of the console and any other request fails the test."""
    context = browser.new_context(viewport={"width": width, "height": 844}, **settings)
    page = context.new_page()
    errors: list[str] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: said.type == "error" and errors.append(said.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert errors == []
    left = {url.partition("#")[0] for url in requests if not url.startswith("data:")}
    assert left == {file.as_uri()}


def open_all(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")


def is_expanded(page: Any, target: str) -> bool:
    """The state of the button of a popover, as the browser tells assistive programs."""
    session = page.context.new_cdp_session(page)
    chosen = f"document.querySelector('[popovertarget={target}]')"
    found = session.send("Runtime.evaluate", {"expression": chosen})["result"]["objectId"]
    tree = session.send(
        "Accessibility.getPartialAXTree", {"objectId": found, "fetchRelatives": False}
    )
    session.detach()
    states = {one["name"]: one["value"].get("value") for one in tree["nodes"][0]["properties"]}
    return bool(states["expanded"])


def visible(page: Any) -> list[str]:
    """The start of every element that has text and is drawn, and its place among all."""
    return page.evaluate(
        """() => [...document.querySelectorAll('main *, footer')].map((one, place) =>
            one.closest('.choose, svg') || !one.textContent.trim() ||
            !one.checkVisibility({contentVisibilityAuto: true}) ? '' :
            `${place} ${one.tagName} ${one.textContent.trim().slice(0, 60)}`).filter(one => one)"""
    )


def too_wide(page: Any) -> int:
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["real", "made"])
def test_the_page_fits_every_width_and_tables_scroll_by_themselves(
    browser: Any, pages: Mapping[str, Path], name: str, width: int, scheme: str
) -> None:
    with opened(browser, pages[name], width, color_scheme=scheme) as page:
        open_all(page)
        assert too_wide(page) <= 0
        cut = page.evaluate(
            """() => [...document.querySelectorAll('main *, footer')].filter(one => {
                if (one.closest('.scroll, nav, .visually-hidden, svg')) return false;
                const box = one.getBoundingClientRect();
                return box.width && (box.right > innerWidth + 1 || box.left < -1);
            }).map(one => one.outerHTML.slice(0, 120))"""
        )
        assert cut == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = int(re.findall(r"\d+", ground)[0])
        assert (brightness > 200) == (scheme == "light")
        if AXE:
            violations = _violations(browser, pages[name], width, scheme)
            assert violations == []
        if shots := os.environ.get("DDPO_TEST_SHOTS"):
            page.screenshot(path=f"{shots}/report-{name}-{width}-{scheme}.png", full_page=True)


def _violations(browser: Any, file: Path, width: int, scheme: str) -> list[str]:
    """The findings of axe-core with all parts open; the policy of the page refuses any script."""
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    page.goto(file.as_uri())
    open_all(page)
    page.add_script_tag(path=AXE)
    found = page.evaluate(
        "axe.run().then(f => f.violations.map(v => v.id + ' ' + v.nodes[0].html.slice(0, 160)))"
    )
    context.close()
    return found


@pytest.mark.parametrize("width", [390, 1280])
def test_every_term_opens_and_closes_by_keyboard_and_is_announced(
    browser: Any, pages: Mapping[str, Path], width: int
) -> None:
    with opened(browser, pages["made"], width) as page:
        open_all(page)
        buttons = page.locator("button.term")
        assert buttons.count() > len(TERMS)
        seen = set()
        for place in range(buttons.count()):
            target = buttons.nth(place).get_attribute("popovertarget")
            if target in seen:
                continue
            button = buttons.nth(place)
            seen.add(target)
            tip = page.locator(f"#{target}")
            button.focus()
            assert not is_expanded(page, target)
            page.keyboard.press("Enter")
            assert tip.is_visible()
            assert is_expanded(page, target)
            assert page.evaluate("document.activeElement.id") == target  # so that it is read
            name = tip.locator("b").inner_text()
            assert tip.aria_snapshot().startswith(f'- dialog "{name}"')
            description = page.locator(f"#{tip.get_attribute('aria-describedby')}")
            assert description.inner_text() == TERMS[name].replace("`", "") + "."
            box = tip.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert 0 <= box["y"] <= 844 - box["height"]
            page.keyboard.press("Escape")
            assert not tip.is_visible()
            assert button.evaluate("one => one === document.activeElement")
        assert len(seen) > 10
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "All words"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # on Close
        assert not tip.is_visible()
        assert button.evaluate("one => one === document.activeElement")


def test_links_lead_somewhere(browser: Any, pages: Mapping[str, Path]) -> None:
    for file in pages.values():
        with opened(browser, file) as page:
            links = page.eval_on_selector_all(
                "a", "all => all.map(one => one.getAttribute('href'))"
            )
            ids = set(page.eval_on_selector_all("[id]", "all => all.map(one => one.id)"))
            assert {link[1:] for link in links if link.startswith("#")} <= ids
            files = [link for link in links if not link.startswith("#")]
            assert all((file.parent / unquote(urlsplit(link).path)).exists() for link in files)
            for link in page.locator("nav a").all():
                link.focus()
                page.keyboard.press("Enter")
                heading = page.locator(str(link.get_attribute("href")))
                bar = page.locator("nav").bounding_box()
                assert heading.bounding_box()["y"] >= bar["y"] + bar["height"] - 1 or (
                    page.evaluate("scrollY") == 0
                )
    assert len(files) == 1  # the folder of images, beside a page that was made alone


def test_a_real_report_links_its_data(browser: Any, pages: Mapping[str, Path]) -> None:
    with opened(browser, pages["real"]) as page:
        links = page.locator(".made a").all_inner_texts()
        assert links == ["report.json", "report.md", "samples.parquet", "images"]
        assert "ddpo eval --checkpoint run" in page.locator(".made code").inner_text()


def test_every_image_has_a_text_and_is_drawn(browser: Any, pages: Mapping[str, Path]) -> None:
    for file in pages.values():
        with opened(browser, file) as page:
            images = page.evaluate(
                """async () => Promise.all([...document.images].map(async one => {
                    await one.decode();
                    return [one.alt, one.naturalWidth];
                }))"""
            )
            assert len(images) > 8
            assert all(alt.strip() and width > 0 for alt, width in images)
            plots = page.eval_on_selector_all(
                "svg",
                "all => all.map(one => one.getAttribute('aria-hidden') ?? one.ariaLabel)",
            )
            assert all(plots)


def test_an_image_is_enlarged_and_closed_by_keyboard(
    browser: Any, pages: Mapping[str, Path]
) -> None:
    with opened(browser, pages["real"], 390) as page:
        link = page.locator("a.enlarge").first
        small = page.locator("figure img").first.bounding_box()["width"]
        link.focus()
        page.keyboard.press("Enter")
        figure = page.locator("figure:target")
        assert figure.bounding_box()["width"] == 390
        assert figure.locator("img").first.bounding_box()["width"] > 2 * small
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert figure.count() == 0


def test_paper_has_everything(browser: Any, pages: Mapping[str, Path]) -> None:
    """Closed parts are printed, no bar lies over text, and nothing is wider than the paper."""
    for file in pages.values():
        with opened(browser, file, PAPER, color_scheme="dark") as page:
            page.emulate_media(media="print")
            printed = visible(page)
            page.emulate_media(media="screen")
            closed = visible(page)
            open_all(page)
            shown = visible(page)
            assert len(closed) < len(shown)
            assert sorted(set(shown) - set(printed)) == []
            page.reload()
            page.emulate_media(media="print")
            fixed = page.evaluate(
                """() => [...document.querySelectorAll('body *')].filter(one =>
                    one.checkVisibility() &&
                    ['fixed', 'sticky'].includes(getComputedStyle(one).position)
                ).map(one => one.outerHTML.slice(0, 120))"""
            )
            assert fixed == []
            assert too_wide(page) <= 0
            assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
            assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_script_nothing_is_missing(browser: Any, pages: Mapping[str, Path]) -> None:
    with opened(browser, pages["real"]) as page:
        with_script = page.locator("body").inner_text()
    with opened(browser, pages["real"], java_script_enabled=False) as page:
        assert page.locator("body").inner_text() == with_script
        page.locator("button.term").first.focus()
        page.keyboard.press("Enter")
        assert page.locator(".tip:popover-open").is_visible()
        summary = page.locator("summary").first
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator("details[open] .guide, details.guide[open]").count() == 1


def test_the_screenshot_of_the_readme_ends_below_the_findings(
    pages: Mapping[str, Path], tmp_path: Path
) -> None:
    tool = ROOT / "tools" / "report_screenshot.py"
    code = (
        f"import sys; sys.path.insert(0, {str(tool.parent)!r}); from pathlib import Path; "
        f"from report_screenshot import screenshot; "
        f"screenshot(Path({str(pages['real'])!r}), Path('shot.webp'))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    with Image.open(tmp_path / "shot.webp") as shot:
        assert shot.format == "WEBP"
        assert shot.width == 1280
        assert 500 < shot.height < 1300
        colours = shot.convert("RGB").crop((620, 300, 1240, shot.height - 100)).getcolors(10**6)
        assert len(colours) > 1000  # the images of the run history
