"""A data scientist scores, trains and evaluates in Python alone.

The cells are those of docs/python.md and of README.md, in order, with cells between them that look
at the results.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from tests.walks.walk import Walk, python_of

SMALL_RUN: Final = (
    '"sample.samples": 4, "sample.per_prompt": 2, "sample.batch": 4, "sample.steps": 2, '
    '"optim.updates": 1, "optim.timesteps": 1'
)
SMALL_REPORT: Final = "limit=2, best_of=0, held_out=False, seeds=2, history=0"
SIZES: Final[dict[str, str]] = {}
WORDS: Final[dict[str, str]] = {}
SMALL: Final = {
    '"sample.samples": 16': SMALL_RUN,
    "seeds=2, history=0": SMALL_REPORT,
    'out="runs/mine")': f'out="runs/mine", iterations=2, settings={{{SMALL_RUN}}})',
    "ddpo.evaluate(run)": f"ddpo.evaluate(run, {SMALL_REPORT})",
}
"""Words of the pages → what makes them small."""

REWARDS: Final = """
import numpy as np
import torch
from PIL import Image

assert {"measures", "ready"} <= set(table.columns)
assert bool(table.loc["sharpness", "ready"]) and not table.loc["aesthetic", "ready"]
image = Image.open("cat.png").convert("RGB")
array = np.asarray(image)
floats = torch.from_numpy(array.copy()).permute(2, 0, 1) / 255
assert one > 0
assert [sharp(image), sharp(array), sharp(floats)] == [one] * 3
assert sharp(np.stack([array, array])).tolist() == [one, one]
assert many.tolist() == [one, sharp("dog.png")]
assert letters(["cat.png", "dog.png"], ["a cat", "a bird"]).tolist() == [5, 6]
try:
    letters(["cat.png", "dog.png"], "a cat")
except ddpo.errors.UserError as error:
    assert len(str(error).splitlines()) == 1
else:
    raise AssertionError("one text for two images passed")
"""
TABLES: Final = """
assert list(scores.columns) >= ["image", "prompt", "sharpness", "colorfulness", "error"]
assert len(scores) == 2
assert best.endswith("cat.png")
"""
TRAINED: Final = """
assert run.metrics.index.tolist() == [1, 2]
assert run.metrics.reward_mean.notna().all()
assert set(run.checkpoints) == {1, 2}
assert len(repr(run)) < 1000
"""
REPORT: Final = """
assert report.sentence.endswith(".")
gains = report.gains_df()
assert set(gains.split) == {"animals", "unseen_animals", "objects"}
assert {"redness", "colorfulness"} <= set(gains.reward)
images = report.samples_df()
assert images.notna().any().any() and len(images) > len(gains)
assert "<table" in report._repr_html_() and len(repr(report)) < 1000
assert (report.folder / "report.html").is_file()
"""
README: Final = """
assert {"compressibility"} <= set(report.gains_df().reward)
assert ddpo.load_run("runs/mine").metrics.shape == run.metrics.shape
"""
LOOKS: Final = {
    ("docs/python.md", "Rewards"): REWARDS,
    ("docs/python.md", "Tables of scores"): TABLES,
    ("docs/python.md", "Train and evaluate"): TRAINED + REPORT,
    ("README.md", "Python and notebook"): README,
}
"""Page and section → the cell after it."""


def walk(newcomer: Walk) -> None:
    """The cells in one process, as in a notebook."""
    for folder in ("images", "my_folder"):
        (newcomer.folder / folder).mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for name, image in (
        ("cat", Image.fromarray(noise)),
        ("dog", Image.new("RGB", (16, 16), "green")),
    ):
        for place in (".", "images", "my_folder"):
            image.save(newcomer.folder / place / f"{name}.png")
    cells = "\n".join(
        _small(python_of(page, section)) + look for (page, section), look in LOOKS.items()
    )
    assert all(small in cells for small in SMALL.values())
    (newcomer.folder / "cells.py").write_text(cells, encoding="utf-8")
    done = newcomer.run("python cells.py")
    assert (done.stdout, done.stderr) == ("", "")


def _small(code: str) -> str:
    for words, small in SMALL.items():
        code = code.replace(words, small)
    return code
