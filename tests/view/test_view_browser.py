"""`ddpo view` in Chromium, during a real training: the curve grows without a reload."""

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from run_folders import PROMPTS, make_run

from tests.warm_start import Process, start_ddpo

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium")

TRAIN = (
    *("train", "--reward", "compressibility", "--iterations", "200"),
    *("--set", "sample.samples=4", "--set", "sample.per_prompt=2", "--set", "sample.batch=4"),
    *("--set", "sample.steps=2", "--set", "optim.updates=1", "--set", "optim.timesteps=1"),
    *("--set", "grid_every=2", "--out"),
)


@contextmanager
def started(*words: str) -> Iterator[Process]:
    with start_ddpo(*words, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def address_of(folder: Path) -> Iterator[str]:
    with started("view", str(folder), "--no-browser") as server:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        yield found[0]


@contextmanager
def page_at(address: str, width: int = 1280) -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda said: said.type == "error" and page.errors.append(said.text))
        page.goto(address)
        page.wait_for_selector("tbody tr", timeout=30_000)
        yield page
        browser.close()


@pytest.mark.slow
def test_the_curve_grows_during_a_training(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "live"
    with started(*TRAIN, str(run)) as training:
        metrics = run / "metrics.jsonl"
        until = time.monotonic() + 120
        while not metrics.exists() and time.monotonic() < until:
            time.sleep(0.5)
        with address_of(tmp_path / "runs") as address, page_at(address) as page:
            page.click("text=live")
            points = "Number(document.querySelector('[data-curve=reward_mean] svg').dataset.points)"
            page.wait_for_selector("[data-curve=reward_mean] svg", timeout=30_000)
            page.evaluate("window.unloaded = false")
            before = page.evaluate(points)
            until = time.monotonic() + 60
            while page.evaluate(points) <= before + 1 and time.monotonic() < until:
                time.sleep(0.5)
            assert page.evaluate(points) > before + 1
            assert page.evaluate("window.unloaded") is False
            assert "training" in page.text_content("main")
            shown = page.evaluate(points)
            assert shown <= len(metrics.read_text().splitlines())
            assert page.errors == []
        assert training.poll() is None  # the training was not disturbed


@pytest.mark.slow
def test_keys_prompts_of_markup_and_a_narrow_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "one", iterations=3)
    make_run(tmp_path / "runs" / "two", iterations=2)
    with address_of(tmp_path / "runs") as address, page_at(address, width=390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.click("button:text('Reward')")
        names = page.eval_on_selector_all("tbody th", "all => all.map(one => one.textContent)")
        assert names == ["two", "one"]  # rewards 2 and 3
        heads = page.locator("thead th:visible").all_inner_texts()
        assert "Samples" in heads
        assert "Reward hacking" not in heads  # no run has an evaluation
        page.evaluate("document.querySelector('.scroll').scrollLeft = 999")
        assert page.locator("tbody th").first.bounding_box()["x"] == 16  # it stays in view
        page.click("tbody a:text('one')")
        page.wait_for_selector("ul.cells img")
        assert page.text_content("output").startswith("3 ")
        for plot in page.locator("figure svg").all():
            levels = plot.locator("text.tick[text-anchor=end]").all_text_contents()
            assert len(levels) > 1
            decimals = {len(level.partition(".")[2]) for level in levels if level != "0"}
            assert len(decimals) == 1
        page.keyboard.press("ArrowLeft")
        assert page.text_content("output") == "0 · base model"
        page.keyboard.press("End")
        assert page.text_content("output").startswith("3 ")
        captions = page.eval_on_selector_all(
            "ul.cells:not(.along) figcaption", "all => all.map(one => one.textContent)"
        )
        assert captions == PROMPTS
        assert page.locator("figcaption b", has_text="a horse").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.click("text=Compare two iterations")
        page.wait_for_selector("ul.pairs img")
        assert page.locator("ul.pairs > li").count() == len(PROMPTS)
        page.keyboard.press("Escape")
        page.wait_for_selector("tbody tr")
        assert page.errors == []
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"iteration": 4, "reward_queries": 1, "reward_mean": 9.0}) + "\n")
        page.wait_for_selector("td:text('4 of 3')", timeout=20_000)


@pytest.mark.slow
def test_a_report_keeps_its_own_policy_and_strangers_get_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "one")
    folder = run / "eval" / "best"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text("{}")
    (folder / "report.html").write_text("<p id=here>x</p><script>document.title='run'</script>")
    with address_of(tmp_path / "runs") as address, page_at(address) as page:
        page.click("tbody a:text('one')")
        with page.expect_navigation(url="**/report.html"):
            page.click("a:text('best')")
        page.wait_for_selector("#here")
        assert page.title() != "run"
        assert (
            page.goto(page.url)
            .headers["content-security-policy"]
            .startswith("default-src 'none'; img-src data:")
        )
        root = address.partition("/open")[0]
        for path in ("/api/runs", page.url.removeprefix(root), "/static/main.js"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(root + path)
