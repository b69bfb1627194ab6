"""Writes the README's screenshot of a report: `python tools/report_screenshot.py REPORT.html`.

The report of `make demo` is runs/demo/eval/iteration-000012/report.html. Chromium renders the page.
Its sentence, the findings behind it and the run history go to docs/figures/report.webp.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from browser_screenshot import browser_page, save_upper_part

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "report.webp"
WIDTH = 1280  # pixels


def screenshot(page: Path, to: Path) -> None:
    """Writes the upper part of a report, down to the end of its findings, as a WebP image.

    Args:
        page: Path of the HTML file.
        to: Path of the image to write.

    Raises:
        FileNotFoundError: There is no such page, or no Chromium on this machine.
        LookupError: The page is not a report.
    """
    if not page.is_file():
        raise FileNotFoundError(f"no such report: {page}")
    with browser_page(WIDTH) as view:
        view.goto(page.resolve().as_uri())
        for image in view.locator(".answers img").all():
            image.evaluate("image => image.decode()")
        save_upper_part(view, ".answers", to)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="report.html of an evaluation")
    screenshot(parser.parse_args().page, FIGURE)
