"""Writes the README's screenshot of a report: `python tools/report_screenshot.py REPORT.html`.

The report of `make demo` is runs/demo/eval/iteration-000010/report.html. Chromium renders the page,
and its upper part goes to docs/figures/report.webp.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "report.webp"
WIDTH = 1280  # pixels
HEIGHT = 1360  # pixels: the answer, the images side by side, the first table of gains


def screenshot(page: Path, to: Path) -> None:
    """Writes the upper part of an HTML page as a WebP image.

    Args:
        page: Path of the HTML file.
        to: Path of the image to write.

    Raises:
        FileNotFoundError: There is no Chromium on this machine.
        subprocess.CalledProcessError: Chromium failed.
    """
    browser = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if browser is None:
        raise FileNotFoundError("no Chromium on this machine: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        rendered = Path(folder) / "page.png"
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={WIDTH},{HEIGHT}",
        ]
        subprocess.run(
            [browser, *options, f"--screenshot={rendered}", page.resolve().as_uri()],
            check=True,
            timeout=120,
        )
        with Image.open(rendered) as image:
            image.convert("RGB").save(to, "WEBP", quality=80, method=6)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="report.html of an evaluation")
    screenshot(parser.parse_args().page, FIGURE)
