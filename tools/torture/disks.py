"""Disks that are full after a random number of bytes, for all that writes files.

The system refuses to let any file grow beyond a random size (RLIMIT_FSIZE), which fails as a full
disk does. Then the same command, or `--resume`, must give the bytes of an undisturbed command.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from outcome import Outcome
from PIL import Image
from work import steady_bytes

ROOT = Path(__file__).parents[2]
TRIES = 50  # of each command
PATIENCE = 300  # seconds
SMALL = (
    "sample.samples=4",
    "sample.per_prompt=2",
    "sample.steps=2",
    "sample.batch=2",
    "optim.updates=1",
    "optim.timesteps=1",
    "checkpoint_every=1",
)


@dataclass(frozen=True, slots=True)
class Command:
    """A command that writes to one place.

    Attributes:
        what: the thing tried.
        first: its words, with {out} for the place.
        again: the words after room is made, if these are others.
        grows_to: largest limit of bytes that is tried.
    """

    what: str
    first: Sequence[str]
    again: Sequence[str]
    grows_to: int


def run(size: float, seed: int, folder: Path) -> Iterator[Outcome]:
    """One outcome for each command, of `TRIES` times `size` tries."""
    chance = random.Random(seed)
    tries = max(1, round(TRIES * size))
    for command in _commands(folder):
        yield _tried(command, tries, chance, folder)


def _commands(folder: Path) -> list[Command]:
    images = folder / "images"
    base = folder / "base"
    for place in (images, base):
        place.mkdir()
        for number in range(24):
            Image.new("RGB", (16, 16 + number % 3), (9 * number, len(place.name), 0)).save(
                place / f"{number:02}.png"
            )
            (place / f"{number:02}.txt").write_text(f"prompt {number % 4}")
    train = ["train", "--reward", "darkness", "--iterations", "2", "--seed", "0"]
    for setting in SMALL:
        train += ["--set", setting]
    run_folder = folder / "exported_run"
    _must([*train, "--out", str(run_folder)])
    score = ["rewards", "score", "darkness", "contrast", str(images), "--no-cache", "--out"]
    sample = ["sample", "a cat", "a dog", "--count", "3", "--steps", "2", "--out", "{out}"]
    report = ["eval", "--images", f"base={base}", "--images", f"tuned={images}"]
    report += ["--reward", "darkness", "--no-held-out", "--out", "{out}"]
    export = ["export", str(run_folder), "--to", "{out}"]
    resume = ["train", "--resume", "{out}"]
    return [
        Command("full disks of training", [*train, "--out", "{out}"], resume, 9_000_000),
        Command("full disks of scoring", [*score, "{out}.csv"], [*score, "{out}.csv"], 6_000),
        Command("full disks of sampling", sample, sample, 12_000),
        Command("full disks of evaluation", report, report, 60_000),
        Command("full disks of export", export, export, 9_000_000),
    ]


def _tried(command: Command, tries: int, chance: random.Random, folder: Path) -> Outcome:
    outcome = Outcome(command.what)
    place = folder / "place"
    _must([word.format(out=place) for word in command.first])
    expected = _contents(place)
    refused = 0
    for _ in range(tries):
        _clear(place)
        limit = int(command.grows_to ** chance.random())  # as many small as large
        code, errors = _run([word.format(out=place) for word in command.first], limit)
        refused += code != 0
        outcome.count(_fault(command, place, limit, code, errors, expected))
    _clear(place)
    outcome.measures["refused"] = refused
    return outcome


def _fault(
    command: Command, place: Path, limit: int, code: int, errors: str, expected: dict[str, str]
) -> str | None:
    """The fault of the first command or of the one after it; None without a fault."""
    where = f"{command.what} at {limit} bytes"
    last = errors.strip().splitlines()[-1] if errors.strip() else ""
    if code not in (0, 2) or "Traceback" in errors:
        return f"{where}: exit code {code}: {last}"
    if code and not last.startswith("error: "):
        return f"{where}: no line of an error, but {last!r}"
    if code:
        started = (place / "config.json").exists() or command.again == command.first
        words = command.again if started else command.first
        again, errors = _run([word.format(out=place) for word in words])
        if again:
            return f"{where}: the command after it: {errors.strip()[-300:]}"
    found = _contents(place)
    if found != expected:
        names = sorted(name for name in found | expected if found.get(name) != expected.get(name))
        return f"{where}: other bytes than undisturbed in {', '.join(names[:5])}"
    return None


def _contents(place: Path) -> dict[str, str]:
    """The SHA-256 of each file that a command wrote, by relative path, measured times aside."""
    found = {}
    for path in sorted(place.parent.glob(f"{place.name}*")):
        files = path.rglob("*") if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                name = str(file.relative_to(place.parent))
                found[name] = hashlib.sha256(_steady(file)).hexdigest()
    return found


def _steady(file: Path) -> bytes:
    """The bytes of a file; of a journal, its lines in order, since a resumed one may append."""
    data = steady_bytes(file)
    if file.suffix == ".jsonl" and file.parent.name != "place":
        return b"\n".join(sorted(data.splitlines()))
    return data


def _clear(place: Path) -> None:
    for path in [*place.parent.glob(f"{place.name}*"), *place.parent.glob(f".{place.name}*")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _must(words: Sequence[str]) -> None:
    code, errors = _run(words)
    if code:
        raise RuntimeError(f"{json.dumps(list(words))} ends with {code}: {errors[-500:]}")


def _run(words: Sequence[str], limit: int | None = None) -> tuple[int, str]:
    """The exit code and standard error of a command."""
    before: Callable[[], object] | None = None
    if limit is not None:
        sizes = (limit, limit)

        def before() -> object:
            return resource.setrlimit(resource.RLIMIT_FSIZE, sizes)

    done = subprocess.run(
        [sys.executable, "-m", "ddpo", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=before,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stderr.decode(errors="replace")
