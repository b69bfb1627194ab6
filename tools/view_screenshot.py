"""Writes the guide's screenshot of a run: `python tools/view_screenshot.py RUN`.

`ddpo view` shows the run folder, and Chromium renders its page, without the tables below the
samples. The image goes to docs/figures/viewing-runs.webp.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "viewing-runs.webp"
WIDTH = 1100  # pixels
MARGIN = 20  # pixels below the samples
ENDS = ".along"
"""Last part of the page that is shown: one prompt along training."""


@contextmanager
def viewer(run: Path) -> Iterator[str]:
    """The address at which `ddpo view` shows a run.

    Args:
        run: Run folder.
    """
    command = [sys.executable, "-m", "ddpo", "view", str(run), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            if found is None:
                raise RuntimeError(f"ddpo view gave no address for {run}")
            yield found[0]
        finally:
            server.terminate()


def screenshot(run: Path, to: Path) -> None:
    """Writes the page of a run as a WebP image.

    Args:
        run: Run folder.
        to: Path of the image to write.

    Raises:
        FileNotFoundError: There is no Chromium on this machine.
    """
    browsers = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, browsers)), None)
    if browser is None:
        raise FileNotFoundError("no Chromium on this machine: apt-get install chromium")
    with viewer(run) as address, sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        view = running.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        view.goto(address)
        view.click("tbody a")
        view.wait_for_selector("[data-curve=reward_mean] svg")
        view.wait_for_load_state("networkidle")
        box = view.locator(ENDS).bounding_box()
        if box is None:
            raise RuntimeError(f"the page of {run} has no samples")
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": round(box["y"] + box["height"]) + MARGIN}
        png = view.screenshot(full_page=True, clip=clip)
        running.close()
    with Image.open(io.BytesIO(png)) as shot:
        shot.convert("RGB").save(to, "WEBP", quality=80, method=6)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    screenshot(parser.parse_args().run, FIGURE)
