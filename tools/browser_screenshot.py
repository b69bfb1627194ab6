"""Screenshots of the upper part of a web page, rendered by Chromium and saved as WebP."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import FloatRect, Page, sync_playwright

__all__ = ["browser_page", "save_upper_part"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MARGIN = 20  # pixels below the last part that is shown


@contextmanager
def browser_page(width: int) -> Iterator[Page]:
    """An empty page of Chromium in light colours.

    Args:
        width: Width of the page in pixels.

    Raises:
        FileNotFoundError: There is no Chromium on this machine.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        yield running.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
        running.close()


def save_upper_part(page: Page, last: str, to: Path) -> None:
    """Writes a page from its top to the end of one element.

    Args:
        page: Page that is loaded.
        last: CSS selector of the last element that is shown.
        to: Path of the WebP image to write.

    Raises:
        LookupError: The page has no such element.
    """
    box = page.locator(last).bounding_box()
    if box is None or page.viewport_size is None:
        raise LookupError(f"{page.url} has no {last}")
    height = round(box["y"] + box["height"]) + MARGIN
    clip: FloatRect = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": height}
    png = page.screenshot(full_page=True, clip=clip)
    with Image.open(io.BytesIO(png)) as shot:
        shot.convert("RGB").save(to, "WEBP", quality=80, method=6)
