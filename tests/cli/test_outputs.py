"""The rule for output files: a refused command makes no folder, and an accepted one makes its own.

Every command that writes a file or folder follows it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Run

REFUSED = [
    "rewards score darkness nowhere.png --out new/a/x.csv",
    "rewards score darkness nowhere.png --contact-sheet new/a/x.png",
    "rewards score darkness a.png --contact-sheet new/a/x.jpg",
    "rewards score darkness empty --contact-sheet new/a/x.png",
    "rewards score nonsense a.png --out new/a/x.csv",
    "rewards compare darkness contrast nowhere.png --out new/a/x.json",
    "rewards compare darkness contrast empty --contact-sheet new/a/x.png",
    "rewards calibrate darkness empty --out new/a/x.json",
    "rewards validate darkness --preferences a.png --out new/a/x.json",
    "rewards new 'Bad Name' --out new/a/x",
    "cache export --out new/a/x.pdf",
    "doctor --out new/a/x.pdf",
    "train --reward darkness --out new/a/x --model nowhere",
    "sample x --out new/a/x --model nowhere",
    "eval nowhere --out new/a/x",
    "export nowhere --out new/a/x",
    "label nowhere --out new/a/x.csv",
]
ACCEPTED = [
    ("rewards score darkness a.png b.png --out new/a/x.csv", "new/a/x.csv"),
    ("rewards score darkness a.png b.png --contact-sheet new/a/x.png", "new/a/x.png"),
    ("rewards compare darkness contrast a.png b.png --no-edits --out new/a/x.json", "new/a/x.json"),
    ("rewards calibrate darkness a.png b.png --out new/a/x.json", "new/a/x.json"),
    ("rewards new redness --out new/a/x", "new/a/x/pyproject.toml"),
    ("doctor --out new/a/x.json", "new/a/x.md"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two images and an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name, grey in (("a", 10), ("b", 200)):
        Image.new("RGB", (16, 16), (grey, grey, 40)).save(f"{name}.png")
    Path("empty").mkdir()
    return tmp_path


@pytest.mark.parametrize("line", REFUSED)
def test_a_refused_command_makes_no_folder(line: str, ddpo: Run, folder: Path) -> None:
    import shlex

    code, _, error = ddpo(*shlex.split(line))
    assert code == 2, error
    assert not (folder / "new").exists()


@pytest.mark.parametrize(("line", "file"), ACCEPTED)
def test_the_folder_of_an_output_is_made(line: str, file: str, ddpo: Run, folder: Path) -> None:
    code, _, error = ddpo(*line.split())
    assert code == 0, error
    assert (folder / file).is_file()
    assert [path.name for path in (folder / "new").iterdir()] == ["a"]


def test_trust_without_a_run_is_refused(ddpo: Run, folder: Path) -> None:
    code, _, error = ddpo("train", "--reward", "darkness", "--trust", "./mine.py:f")
    assert (code, error.count("\n")) == (2, 1)
    assert "--resume RUN" in error
