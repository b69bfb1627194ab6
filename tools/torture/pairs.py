"""Pairs of programs on one folder, one table or one cache, the second at a random time.

Rivals want the same output: one does its work as if it were alone, and the other does so later or
is refused in one line with exit code 2. Neighbours only share files: both do their work.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from outcome import Outcome
from programs import Program, load_packages, run_program
from work import WORKS, Work, content, prepare, remove_outputs, train_words

__all__ = ["Place", "run"]

PAIRS: Final = 20  # of each kind
LONG: Final = 8  # iterations of a training that prunes while others read
REFUSALS: Final = ("is in use by", "already holds a run", "is not an empty folder")
GONE: Final = ("no such checkpoint", "nor a run with finished checkpoints", "was just removed")
TABLE: Final = ("--out", "table.jsonl", "--batch-size", "2")
KEEP_ONE: Final = ("--set", "checkpoint_keep=1")

Words = list[str]


def run(size: float, seed: int, folder: Path) -> Iterator[Outcome]:
    """Runs each kind of pair."""
    load_packages()
    kinds: tuple[tuple[str, Callable[[Place], str | None]], ...] = (
        ("two trainings of one folder", two_trainings),
        ("two resumptions of one run", two_resumptions),
        ("two scorings into one table", two_scorings),
        ("two evaluations into one folder", two_evaluations),
        ("two samplings into one folder", two_samplings),
        ("two exports into one folder", two_exports),
        ("two scorings that fill one cache", one_cache),
        ("an evaluation beside the training that prunes", evaluation_beside_training),
        ("an export beside the training that prunes", export_beside_training),
        ("a scoring beside an evaluation", scoring_beside_evaluation),
        ("a scoring of a folder that is being sampled", scoring_beside_sampling),
    )
    for number, (what, pair) in enumerate(kinds):
        place = Place(folder / str(number), random.Random(f"{seed} {what}"))
        outcome = Outcome(what)
        start = time.monotonic()
        for _ in range(max(1, round(PAIRS * size))):
            outcome.count(pair(place))
        outcome.measures["seconds"] = time.monotonic() - start
        shutil.rmtree(place.folder)
        yield outcome


class Place:
    """A folder in which pairs run, and what single programs leave there.

    Args:
        folder: the folder.
        chance: decides when the second program starts.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.chance = chance
        self._alone: dict[tuple[str, ...], tuple[dict[str, str], float]] = {}
        self.images: dict[int, list[str]] = {}  # of evaluations of the long training, alone

    def clean(self, work: Work) -> None:
        """Makes what the work reads, and removes what it wrote."""
        prepare(work, self.folder)
        remove_outputs(work, self.folder)

    def alone(
        self, work: Work, words: Words, start: Callable[[], None] | None = None
    ) -> tuple[dict[str, str], float]:
        """The content that a command leaves if nothing runs beside it, and its seconds."""
        key = (work.name, *words)
        if key not in self._alone:
            self.clean(work)
            if start is not None:
                start()
            began = time.monotonic()
            program = run_program(words, self.folder)
            if program.poll():
                raise RuntimeError(f"{words} fails alone: {program.output}")
            self._alone[key] = content(work, self.folder), time.monotonic() - began
        return self._alone[key]

    def both(self, first: Words, second: Words, seconds: float) -> tuple[Program, Program]:
        """Two programs that have ended, the second started within some seconds of the first."""
        one = Program(first, self.folder)
        time.sleep(self.chance.uniform(0, seconds))
        other = Program(second, self.folder)
        one.wait()
        other.wait()
        return one, other

    def rivals(
        self,
        work: Work,
        commands: tuple[Words, Words],
        start: Callable[[], None] | None = None,
    ) -> str | None:
        """The fault of two programs with one output, of which at least one does its work."""
        expected = [self.alone(work, words, start) for words in commands]
        self.clean(work)
        if start is not None:
            start()
        programs = self.both(*commands, expected[0][1])
        faults = [fault for one in programs if (fault := refusal_fault(one, REFUSALS))]
        winners = [number for number, one in enumerate(programs) if one.poll() == 0]
        if faults or not winners:
            return faults[0] if faults else f"both were refused: {programs[0].end()}"
        found = content(work, self.folder)
        if any(found == expected[number][0] for number in winners):
            return None
        wanted = expected[winners[0]][0]
        names = [
            name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
        ]
        return f"{', '.join(sorted(names)[:6])} differ; {[one.end() for one in programs]}"


def refusal_fault(program: Program, refusals: Sequence[str]) -> str | None:
    """The fault of a program that neither did its work nor was refused in one line."""
    code = program.poll()
    if code == 0:
        return None
    errors = [line for line in program.output.splitlines() if line.startswith("error: ")]
    known = code == 2 and len(errors) == 1 and any(word in errors[0] for word in refusals)
    if known and "Traceback" not in program.output:
        return None
    return f"{' '.join(program.words[:3])} ends with {code}: {program.output[-600:]}"


def two_trainings(place: Place) -> str | None:
    """Two trainings with different rewards, in one new folder."""
    commands = (train_words("run"), train_words("run", reward="sharpness"))
    return place.rivals(WORKS["training"], commands)


def two_resumptions(place: Place) -> str | None:
    """Two programs that resume one interrupted run."""
    work = WORKS["training"]
    half = place.folder.with_name("half")
    if not half.exists():
        place.clean(work)
        program = Program(train_words("run"), place.folder)
        metrics = place.folder / "run" / "state" / "state.safetensors"
        while not metrics.exists() and program.poll() is None:
            time.sleep(0.002)
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
        shutil.copytree(place.folder / "run", half)

    def start() -> None:
        shutil.copytree(half, place.folder / "run")

    words = ["train", "--resume", "run"]
    return place.rivals(work, (words, words), start)


def two_scorings(place: Place) -> str | None:
    """Two scorings with different rewards, into one table."""
    first = ["rewards", "score", "darkness", "images", *TABLE]
    second = ["rewards", "score", "sharpness", "images", *TABLE]
    return place.rivals(WORKS["scoring"], (first, second))


def two_evaluations(place: Place) -> str | None:
    """The same evaluation twice, into one folder."""
    work = WORKS["evaluation"]
    return place.rivals(work, (work.words(place.folder), work.words(place.folder)))


def two_samplings(place: Place) -> str | None:
    """Two samplings with different seeds, into one folder."""
    work = WORKS["sampling"]
    return place.rivals(work, (work.words(place.folder), [*work.words(place.folder), "--seed=1"]))


def two_exports(place: Place) -> str | None:
    """The same export twice, into one folder."""
    work = WORKS["export"]
    return place.rivals(work, (work.words(place.folder), work.words(place.folder)))


def neighbours(place: Place, names: tuple[str, str], commands: tuple[Words, Words]) -> str | None:
    """The fault of two programs that share what they read, and both do their work."""
    reads = tuple(dict.fromkeys(WORKS[names[0]].reads + WORKS[names[1]].reads))
    works = [replace(WORKS[name], reads=reads) for name in names]
    alone = [place.alone(work, words) for work, words in zip(works, commands, strict=True)]
    place.clean(works[0])
    programs = place.both(*commands, max(seconds for _, seconds in alone))
    for work, program, (expected, _) in zip(works, programs, alone, strict=True):
        if program.poll() != 0 or "Traceback" in program.output:
            return f"{' '.join(program.words[:3])} ends with {program.poll()}: {program.output}"
        if "damaged" in program.output or "cannot be used" in program.output:
            return f"{' '.join(program.words[:3])}: {program.output}"
        if not expected.items() <= content(work, place.folder).items():
            return f"{' '.join(program.words[:3])} did not leave what it leaves alone"
    return None


def one_cache(place: Place) -> str | None:
    """Two scorings of the same images, whose scores both go to one new cache."""
    first = ["rewards", "score", "darkness", "sharpness", "images", *TABLE]
    second = [word.replace("table.jsonl", "other.csv") for word in first]
    return neighbours(place, ("scoring", "scoring"), (first, second))


def scoring_beside_evaluation(place: Place) -> str | None:
    """A scoring and an evaluation with the same reward."""
    names = ("evaluation", "scoring")
    first, second = (WORKS[name].words(place.folder) for name in names)
    return neighbours(place, names, (first, second))


def _long_training(keep: Sequence[str]) -> Words:
    return [*train_words("run", LONG), *keep]


def _reference(place: Place) -> dict[str, bytes]:
    """The weights of each checkpoint of the long training, by the name of its folder."""
    kept = place.folder.with_name("checkpoints")
    if not kept.exists():
        place.clean(WORKS["training"])
        program = run_program(_long_training(["--set", "checkpoint_keep=0"]), place.folder)
        if program.poll():
            raise RuntimeError(program.output)
        shutil.copytree(place.folder / "run" / "checkpoints", kept)
    return {path.parent.name: path.read_bytes() for path in kept.glob("*/*.safetensors")}


def _beside_training(place: Place, reader: Words) -> tuple[Program | None, str | None]:
    """A program that reads a run's last checkpoint while the run prunes, and a fault of the run."""
    weights = _reference(place)
    place.clean(WORKS["evaluation"])
    training = Program(_long_training(KEEP_ONE), place.folder)
    first = place.folder / "run" / "checkpoints" / "iteration-000001"
    while not first.exists() and training.poll() is None:
        time.sleep(0.002)
    time.sleep(place.chance.uniform(0, 2))
    program = run_program(reader, place.folder)
    if training.wait():
        return None, f"train ends with {training.poll()}: {training.output[-600:]}"
    for folder in (place.folder / "run" / "checkpoints").glob("iteration-*"):
        if next(folder.glob("*.safetensors")).read_bytes() != weights[folder.name]:
            return None, f"the weights of {folder.name} are not those of an undisturbed run"
    fault = refusal_fault(program, GONE)
    return (None if fault or program.poll() else program), fault


def evaluation_beside_training(place: Place) -> str | None:
    """An evaluation of the last checkpoint, which the run wants to prune meanwhile."""
    words = WORKS["evaluation"].words(place.folder)
    words[words.index("trained")] = "run"
    program, fault = _beside_training(place, words)
    if program is None:
        return fault
    report = json.loads((place.folder / "report" / "report.json").read_text())
    iteration = next(model["iteration"] for model in report["models"] if model["iteration"])
    images = sorted(path.name for path in (place.folder / "report" / "images").rglob("*.png"))
    if iteration not in place.images:
        shutil.rmtree(place.folder / "report")
        _put_back(place, iteration)
        again = run_program(words, place.folder)
        if again.poll():
            return f"the evaluation fails alone: {again.output[-600:]}"
        found = (place.folder / "report" / "images").rglob("*.png")
        place.images[iteration] = sorted(path.name for path in found)
    return None if images == place.images[iteration] else "the images differ from those made alone"


def _put_back(place: Place, iteration: int) -> None:
    """Leaves the run with the checkpoint of one iteration, from the undisturbed run."""
    name = f"iteration-{iteration:06d}"
    folder = place.folder / "run" / "checkpoints"
    shutil.rmtree(folder)
    shutil.copytree(place.folder.with_name("checkpoints") / name, folder / name)


def export_beside_training(place: Place) -> str | None:
    """An export of the last checkpoint, which the run wants to prune meanwhile."""
    program, fault = _beside_training(place, ["export", "run", "--to", "exported"])
    if program is None:
        return fault
    exported = (place.folder / "exported" / "pytorch_lora_weights.safetensors").read_bytes()
    iteration = int(program.output.split("iteration ")[1].split(",")[0])
    expected = _reference(place)[f"iteration-{iteration:06d}"]
    return None if exported == expected else f"the weights are not those of iteration {iteration}"


def scoring_beside_sampling(place: Place) -> str | None:
    """A scoring of a folder while it is sampled into: each image is whole or not there yet."""
    sampling = WORKS["sampling"]
    expected, seconds = place.alone(sampling, sampling.words(place.folder))
    place.clean(sampling)
    scoring = ["rewards", "score", "darkness", "samples", "--out", "scores.jsonl", "--no-cache"]
    one, other = place.both(sampling.words(place.folder), scoring, seconds)
    if one.poll():
        return f"sample ends with {one.poll()}: {one.output[-600:]}"
    if not expected.items() <= content(sampling, place.folder).items():
        return "the samples differ from those made alone"
    if "unscorable" in other.output or "damaged" in other.output:
        return f"an image was read in part: {other.output[-600:]}"
    return refusal_fault(other, ("holds no images", "no such file or folder"))
