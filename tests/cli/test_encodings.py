"""Output that the terminal cannot encode is escaped, in every command and for every name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.test_every_command import COMMANDS

POOR = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "the C locale": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
EACH = """
import sys
from ddpo.cli.main import main
for words in sys.argv[1].split("|"):
    sys.argv = ["ddpo", *words.split(), "--help"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""


@pytest.mark.parametrize("name", POOR)
def test_every_help_is_printed_in_every_encoding(name: str) -> None:
    words = "|".join(["", "rewards", "recipes", "cache", "algorithms", *COMMANDS])
    done = subprocess.run(
        [sys.executable, "-c", EACH, words], capture_output=True, env=os.environ | POOR[name]
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert done.stdout.count(b"General") > len(COMMANDS)


@pytest.mark.parametrize("name", POOR)
@pytest.mark.parametrize("as_json", [False, True])
def test_names_and_prompts_of_any_letters_are_printed(
    name: str, as_json: bool, tmp_path: Path
) -> None:
    """A file name that is no UTF-8, an emoji and letters outside Latin-1."""
    images = tmp_path / "images"
    images.mkdir()
    for file in (b"\xff.png", "é🐱.png".encode(), "字.png".encode()):
        Image.new("RGB", (8, 8)).save(os.fsencode(images) + b"/" + file, format="png")
    arguments = ["rewards", "score", "darkness", "images", "--prompt", "a 🐱 é"]
    done = subprocess.run(
        [sys.executable, "-m", "ddpo", *arguments, *(["--json"] if as_json else [])],
        cwd=tmp_path,
        capture_output=True,
        env=os.environ | POOR[name],
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    if as_json:
        found = json.loads(done.stdout.decode("latin-1"))
        assert len(found["images"]) == 3
        assert {image["prompt"] for image in found["images"]} == {"a 🐱 é"}
