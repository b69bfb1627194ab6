"""Writes the guide's screenshot of a run: `python tools/view_screenshot.py RUN`.

`ddpo view` shows the run folder, and Chromium renders its page, without the tables below the
samples. The image goes to docs/figures/viewing-runs.webp.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser_screenshot import browser_page, save_upper_part

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "viewing-runs.webp"
WIDTH = 1100  # pixels
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
        LookupError: The page has no samples.
    """
    with viewer(run) as address, browser_page(WIDTH) as view:
        view.goto(address)
        view.click("tbody a")
        view.wait_for_selector("[data-curve=reward_mean] svg")
        view.wait_for_load_state("networkidle")
        save_upper_part(view, ENDS, to)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    screenshot(parser.parse_args().run, FIGURE)
