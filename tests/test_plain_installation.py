"""The core works as `pip install ddpo` leaves it: no extra and no developer's package is there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SIZES = ("samples=4", "per_prompt=2", "steps=2", "batch=4")
SMALL = [
    *(word for size in SIZES for word in ("--set", f"sample.{size}")),
    *("--set", "optim.timesteps=1", "--set", "optim.updates=1"),
]
COMMANDS = [
    ["rewards", "list"],
    ["rewards", "score", "compressibility", "darkness", "images", "--out", "scores.csv"],
    ["sample", "a cat", "--per-prompt", "1", "--steps", "2", "--out", "samples"],
    ["train", "--reward", "compressibility", "--set", "iterations=1", "--out", "run", *SMALL],
    ["eval", "--checkpoint", "run", "--prompts", "prompts.txt", "--seeds", "2", "--steps", "2"],
]
PROGRAM = """
import json
import sys

sys.path.append(sys.argv[1])
from importlib.util import find_spec

from ddpo.cli.main import main

hidden, commands = map(json.loads, sys.argv[2:])
assert [name for name in hidden if find_spec(name)] == []
for words in commands:
    sys.argv = ["ddpo", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""


def plain_name(name: str) -> str:
    """The name of a distribution, as indices compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(requirements: Iterable[str]) -> dict[str, Distribution]:
    """The distributions that requirements bring, directly or through others."""
    found: dict[str, Distribution] = {}
    seen = set()
    left = [(Requirement(text), "") for text in requirements]
    while left:
        requirement, extra = left.pop()
        name = plain_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in {"", *requirement.extras}:
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            try:
                found[name] = distribution(name)
            except PackageNotFoundError:
                continue
            left += [(Requirement(text), wanted) for text in found[name].requires or ()]
    return found


def top_level(one: Distribution) -> dict[str, Path]:
    """Names beside which `import` looks: packages, modules and metadata, with their places."""
    parts = {file.parts[0] for file in one.files or () if file.parts[0] not in ("..", os.sep)}
    return {part: Path(str(one.locate_file(part))) for part in parts if part != "__pycache__"}


def packages_of(distributions: Iterable[Distribution]) -> set[str]:
    """The names of packages and modules that can be imported."""
    names = {name for one in distributions for name in top_level(one)}
    return {name.partition(".")[0] for name in names if not name.endswith((".dist-info", ".pth"))}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages as a plain installation has them, by links."""
    folder = tmp_path / "site"
    folder.mkdir()
    found = {"ddpo": ROOT / "ddpo"}
    for one in installed(PROJECT["dependencies"]).values():
        found |= top_level(one)
    metadata = top_level(distribution("ddpo"))
    found |= {name: place for name, place in metadata.items() if name.endswith(".dist-info")}
    for name, place in found.items():
        (folder / name).symlink_to(place)
    return folder


@pytest.mark.slow
def test_the_core_works_without_extras_and_packages_of_developers(
    site: Path, tmp_path: Path
) -> None:
    groups = PROJECT["optional-dependencies"].values()
    optional = installed(text for group in groups for text in group if not text.startswith("ddpo["))
    core = installed(PROJECT["dependencies"])
    hidden = packages_of(optional.values()) - packages_of(core.values())
    assert {"pillow_heif", "pytest", "fastapi", "tensorboard"} <= hidden
    work = tmp_path / "work"
    (work / "images").mkdir(parents=True)
    for kind in ("png", "jpg", "webp"):
        Image.new("RGB", (32, 32), (200, 30, 90)).save(work / "images" / f"one.{kind}")
    (work / "prompts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    words = [str(site), json.dumps(sorted(hidden)), json.dumps(COMMANDS)]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "ignore", "-c", PROGRAM, *words],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    scores = (work / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert len(scores) == 1 + 2 * 3
    assert len(list((work / "samples").glob("*-*.png"))) == 1
    assert len((work / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    (report,) = (work / "run" / "eval").glob("*/report.html")
    assert report.stat().st_size > 10_000
