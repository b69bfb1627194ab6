"""A reward author goes from a class in a file to an installed package, and trains on it.

The pages: docs/writing-a-reward.md, section by section; docs/bring-your-reward.md for the class
without a card.
"""

from __future__ import annotations

import json
from typing import Final

import numpy as np
import torch
from PIL import Image

from tests.walks.walk import Walk, python_of

SIZES: Final = {
    "ddpo train": "--iterations 1 --set sample.samples=4 --set sample.per_prompt=2 "
    "--set sample.batch=4 --set sample.steps=2 --set optim.timesteps=1 --set optim.updates=1 "
    "--out runs/author",
    "ddpo rewards bench": "--repeats 1 --batch-sizes 1,4",
    "ddpo rewards doctor": "mylab/contrast",
    "pytest": "-q -p no:cacheprovider",
}
WORDS: Final[dict[str, str]] = {}
PAGE: Final = "docs/writing-a-reward.md"


def walk(newcomer: Walk) -> None:
    """The commands of the pages, and a look at what they say."""
    (newcomer.folder / "images").mkdir()
    random = np.random.default_rng(0)
    for name in "ab":
        pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(newcomer.folder / f"images/{name}.png")
        (newcomer.folder / f"images/{name}.txt").write_text("noise", encoding="utf-8")
    _class_without_a_card(newcomer)
    newcomer.section(PAGE, "1. A function in a file")
    _, table, _, _ = newcomer.section(PAGE, "2. Try it")
    assert "wrote scores.csv" in table.stdout
    assert len((newcomer.folder / "scores.csv").read_text(encoding="utf-8").splitlines()) == 3
    (check,) = newcomer.section(PAGE, "3. Check it")
    assert "./my_reward.py:redness conforms" in check.stdout
    check, _ = newcomer.section(PAGE, "4. A class with a card")
    assert "./my_contrast.py:Contrast conforms" in check.stdout
    _package(newcomer)
    (diagnosis,) = newcomer.section(PAGE, "6. When something is wrong")
    assert "1 of 1 rewards can be loaded" in diagnosis.stdout


def _class_without_a_card(newcomer: Walk) -> None:
    newcomer.write(python_of("docs/bring-your-reward.md"))
    torch.save(torch.tensor(2.0), newcomer.folder / "head.pt")
    newcomer.run("ddpo rewards score ./mine.py:Scorer:weights=head.pt images/")
    check = newcomer.run("ddpo rewards check ./mine.py:Scorer:weights=head.pt")
    assert "./mine.py:Scorer:weights=head.pt conforms" in check.stdout


def _package(newcomer: Walk) -> None:
    """The package is installed without a network, listed, checked and trained on."""
    _, _, tests, listing, check, _ = newcomer.section(PAGE, "5. A package")
    assert " passed" in tests.stdout
    assert "mylab/contrast" in listing.stdout
    assert "mylab/contrast conforms" in check.stdout
    run = newcomer.folder / "runs/author"
    settings = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert settings["reward"] == "mylab/contrast"
    assert (run / "checkpoints/iteration-000001").is_dir()
