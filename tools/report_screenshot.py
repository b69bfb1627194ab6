"""Writes the README's screenshot of a report: `python tools/report_screenshot.py REPORT.html`.

The report of `make demo` is runs/demo/eval/iteration-000012/report.html. Chromium renders the page.
Its sentence, the findings behind it and the run history go to docs/figures/report.webp.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "report.webp"
WIDTH = 1280  # pixels
MARGIN = 20  # pixels below the findings


def screenshot(page: Path, to: Path) -> None:
    """Writes the upper part of a report, down to the end of its findings, as a WebP image.

    Args:
        page: Path of the HTML file.
        to: Path of the image to write.

    Raises:
        FileNotFoundError: There is no such page, or no Chromium on this machine.
    """
    if not page.is_file():
        raise FileNotFoundError(f"no such report: {page}")
    browsers = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, browsers)), None)
    if browser is None:
        raise FileNotFoundError("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        view = running.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        view.goto(page.resolve().as_uri())
        for image in view.locator(".answers img").all():
            image.evaluate("image => image.decode()")
        box = view.locator(".answers").bounding_box()
        if box is None:
            raise FileNotFoundError(f"{page} is not a report: it has no findings")
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": round(box["y"] + box["height"]) + MARGIN}
        png = view.screenshot(full_page=True, clip=clip)
        running.close()
    with Image.open(io.BytesIO(png)) as shot:
        shot.convert("RGB").save(to, "WEBP", quality=80, method=6)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="report.html of an evaluation")
    screenshot(parser.parse_args().page, FIGURE)
