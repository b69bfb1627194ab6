"""`ddpo label` in a real browser: keys alone, a kill in the middle, two raters, a phone, axe."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import sync_playwright

from ddpo.inputs.tables import read_table
from ddpo.reward_quality.preference_file import read_preferences
from tests.warm_start import Process, start_ddpo

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PAIRS = 100
ROOT = Path(__file__).parents[2]
AXE = os.environ.get("DDPO_TEST_AXE")  # axe.min.js of the npm package axe-core
RED = (220, 30, 30)
BLUE = (30, 30, 220)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


def two_folders(folder: Path) -> tuple[Path, Path]:
    """Red images of the first model and blue ones of the second, one prompt each."""
    for name, colour in (("secret_base", RED), ("secret_tuned", BLUE)):
        (folder / name).mkdir()
        for number in range(PAIRS):
            image = folder / name / f"{number:03}.png"
            Image.new("RGB", (24, 24), (*colour[:2], colour[2] + number % 30)).save(image)
            image.with_suffix(".txt").write_text(f"prompt {number} <b onclick=alert(1)>bold</b>")
    return folder / "secret_base", folder / "secret_tuned"


@contextmanager
def server(folder: Path, *options: str) -> Iterator[tuple[str, Process]]:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = start_ddpo("label", *options, "--no-browser", cwd=folder, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address, line
        yield address[0], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def count_of(page: Any) -> int:
    return int(page.locator("#count").inner_text().split()[0])


def until(page: Any, expression: str, argument: Any = None) -> None:
    """Waits for an expression; playwright's own wait needs `eval`, which the page forbids."""
    ends = time.monotonic() + 20
    while not page.evaluate(expression, argument):
        assert time.monotonic() < ends, expression
        time.sleep(0.005)


def colour_on(page: Any, side: str) -> str:
    """The colour of the middle of an image, as a person would see it."""
    pixel = page.evaluate(
        """side => { const image = document.getElementById(side);
        const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
        const paint = canvas.getContext("2d"); paint.drawImage(image, 0, 0, 1, 1);
        return Array.from(paint.getImageData(0, 0, 1, 1).data); }""",
        side,
    )
    return "red" if pixel[0] > pixel[2] else "blue"


def label(page: Any, number: int, key: Any, total: int = PAIRS) -> None:
    """Answers `number` pairs by keyboard; `key` is the key for a place."""
    for _ in range(number):
        before = count_of(page)
        page.keyboard.press(key(before))
        until(
            page,
            "before => document.body.getAttribute('aria-busy') === null &&"
            " (parseInt(document.getElementById('count').textContent) === before + 1 ||"
            " !document.getElementById('end').hidden)",
            before,
        )


def prefer_blue(page: Any) -> Any:
    return lambda _: "ArrowLeft" if colour_on(page, "left") == "blue" else "ArrowRight"


def ready(page: Any) -> None:
    page.wait_for_selector("main")  # behind the page that takes the token
    until(
        page,
        "!document.getElementById('pair').hidden &&"
        " document.body.getAttribute('aria-busy') === null",
    )


@pytest.mark.slow
def test_a_hundred_pairs_by_keyboard_with_a_kill_and_two_raters(
    tmp_path: Path, browser: Any
) -> None:
    folders = [str(one) for one in two_folders(tmp_path)]
    options = (*folders, "-o", "choices.parquet", "--pairs", str(PAIRS))
    requests: list[str] = []
    errors: list[str] = []

    def new_page(address: str) -> Any:
        page = browser.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda one: errors.append(one.text) if one.type == "error" else None)
        page.goto(address)
        return page

    with server(tmp_path, *options, "--rater", "Ada") as (address, process):
        page = new_page(address)
        ready(page)
        assert "<b onclick" in page.locator("#prompt").inner_text()  # text, not markup
        label(page, 41, prefer_blue(page))
        content = page.content()
        process.kill()
        page.close()
    assert "secret" not in content + "".join(requests)
    with server(tmp_path, *options) as (address, process):
        ada = new_page(address)
        ada.wait_for_selector("#name:focus")
        ada.keyboard.type("Ada")
        ada.keyboard.press("Enter")
        ready(ada)
        assert count_of(ada) == 41  # nothing was lost
        ben = new_page(address)
        ben.wait_for_selector("#name:focus")
        ben.keyboard.type('=Ben <img src=x onerror="alert(1)">')
        ben.keyboard.press("Enter")
        ready(ben)
        assert count_of(ben) == 0
        ben_keys = ["1", "2", "0", "b"]
        ben.keyboard.press("2")
        until(ben, "document.getElementById('count').textContent.startsWith('1 ')")
        ready(ben)
        ben.keyboard.press("u")
        until(ben, "!document.getElementById('before').hidden")
        ready(ben)
        ben.keyboard.press("1")
        until(ben, "document.getElementById('before').hidden")
        ready(ben)
        assert count_of(ben) == 1  # the first answer was replaced
        label(ben, 7, lambda place: ben_keys[place % 4])
        label(ada, 59, prefer_blue(ada))
        assert "All 100 pairs" in ada.locator("#thanks").inner_text()
        ada.close()
        ben.close()
    rows = [row for _, row in read_table(tmp_path / "choices.parquet")]
    of_ada = [row for row in rows if row["rater"] == "Ada"]
    of_ben = [row for row in rows if row["rater"] != "Ada"]
    assert len(of_ada) == len({row["prompt"] for row in of_ada}) == PAIRS
    assert {row["label"] for row in of_ada} == {"b"}  # blue is the second folder
    assert Counter(row["left"] for row in of_ada) == {"a": 50, "b": 50}
    assert len(of_ben) == 8
    assert [row["label"] for row in of_ben][2::4] == ["tie", "tie"]
    assert [row["both_bad"] for row in of_ben] == ["false", "false", "false", "true"] * 2
    for row, side in zip(of_ben, "lr--lr--", strict=True):
        if side != "-":
            assert (row["label"] == row["left"]) == (side == "l")
    assert {(row["model_a"], row["model_b"]) for row in rows} == {("secret_base", "secret_tuned")}
    assert all(isinstance(row["seconds"], float) and row["seconds"] >= 0 for row in rows)
    pairs = list(read_preferences(tmp_path / "choices.parquet"))
    assert len(pairs) == 108
    assert all(isinstance(one.image_a, Path) and one.image_a.is_file() for one in pairs)
    assert not errors


@pytest.mark.slow
def test_the_page_fits_a_phone_and_passes_axe(tmp_path: Path, browser: Any) -> None:
    folders = [str(one) for one in two_folders(tmp_path)]
    with server(tmp_path, *folders, "--pairs", "4", "--rater", "Ada") as (address, _):
        for scheme in ("light", "dark"):
            context = browser.new_context(
                viewport={"width": 390, "height": 844}, color_scheme=scheme, bypass_csp=True
            )
            page = context.new_page()
            page.goto(address)
            ready(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            boxes = [page.locator(f"#{side}").bounding_box() for side in ("left", "right")]
            assert boxes[0]["width"] == boxes[1]["width"]
            assert boxes[0]["height"] == boxes[1]["height"]
            page.locator("[data-choice=left]").last.click()
            ready(page)
            if AXE:
                page.add_script_tag(path=AXE)
                found = page.evaluate("axe.run().then(found => found.violations.map(v => v.id))")
                assert found == []
            if shots := os.environ.get("DDPO_TEST_SHOTS"):
                page.screenshot(path=f"{shots}/label-{scheme}.png")
            context.close()
