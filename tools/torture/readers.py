"""Fuzzes every reader of JSON, JSON lines, tensors and tables with damaged and hostile files.

The files come from a tiny run, its evaluation, a scoring and the other writers. Each input must be
read or end in an error of `ddpo.errors`, within 30 seconds and 2 GB. Size 1 is a million inputs.
"""

from __future__ import annotations

import logging
import multiprocessing
import random
import resource
import shutil
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from mutations import Damage
from outcome import Outcome
from reader_files import copied_files, made_files
from reader_table import READERS, Reader

from ddpo.cli.console import quiet_libraries
from ddpo.errors import DdpoError

INPUTS = 1_000_000
LONGEST_SECONDS = 30
MOST_BYTES = 2 << 30
SHOWN_FAULTS = 5  # of one reader


class Hang(BaseException):
    """An input that took too long."""


def run(size: float, seed: int, folder: Path) -> Iterator[Outcome]:
    """One outcome per reader, and one of all.

    Args:
        size: share of a million inputs.
        seed: seed of the damage.
        folder: empty folder for the files.
    """
    made_files(folder / "whole")
    total = sum(reader.share for reader in READERS)
    outcomes = []
    for reader in READERS:
        tries = max(1, round(INPUTS * size * reader.share / total))
        outcomes.append(_in_a_child(reader, tries, seed, folder))
        yield outcomes[-1]
    yield _summary(outcomes)


def run_here(tries: int, seed: int, folder: Path, fixtures: Path) -> Iterator[Outcome]:
    """The outcome of each reader in this process, with files of an older version.

    Args:
        tries: inputs of each reader.
        seed: seed of the damage.
        folder: empty folder for the files.
        fixtures: folder of the older version's files.
    """
    copied_files(fixtures, folder / "whole")
    for reader in READERS:
        yield fuzz(reader, tries, seed, folder)


def fuzz(reader: Reader, tries: int, seed: int, folder: Path) -> Outcome:
    """Reads damaged versions of a reader's file.

    Args:
        reader: the reader.
        tries: number of inputs.
        seed: seed of the damage.
        folder: folder with the files in "whole"; a copy is damaged.
    """
    place = folder / "damaged"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / "whole", place)
    file = place / reader.file
    whole = file.read_bytes()
    quiet_libraries()
    logging.getLogger("ddpo").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = reader.prepare(place)
        read(file)
        outcome = Outcome(f"reader {reader.name}")
        chance = random.Random(f"{seed} {reader.name}")
        found: Counter[str] = Counter()
        start = time.monotonic()
        for _ in range(tries):
            fault = _one(read, file, reader.damage, whole, chance)
            outcome.tries += 1
            if fault:
                found[fault] += 1
        outcome.measures["ms each"] = 1000 * (time.monotonic() - start) / max(tries, 1)
    for fault, times in found.most_common(SHOWN_FAULTS):
        outcome.faults.append(f"{reader.name}: {times} × {fault}")
    return outcome


def _one(
    read: Callable[[Path], object],
    file: Path,
    damage: Damage,
    whole: bytes,
    chance: random.Random,
) -> str | None:
    """The fault of one input; None if it was read or refused."""
    file.write_bytes(damage(whole, chance))
    try:
        with _time_limit():
            read(file)
    except DdpoError as error:
        text = str(error)
        return f"an error of several lines: {text[:200]!r}" if "\n" in text else None
    except Hang:
        return f"more than {LONGEST_SECONDS} s"
    except Exception as error:  # noqa: BLE001  # that is what is sought
        frames = traceback.extract_tb(error.__traceback__)
        last = [frames[-1], *(one for one in frames if "/ddpo/" in one.filename)][-1]
        place = f"{last.filename.rsplit('/ddpo/', 1)[-1]}:{last.lineno}"
        return f"{type(error).__name__} at {place}: {str(error)[:100]!r}"
    return None


@contextmanager
def _time_limit() -> Iterator[None]:
    def end(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _in_a_child(reader: Reader, tries: int, seed: int, folder: Path) -> Outcome:
    """The outcome of a reader in a process of its own, whose memory is measured."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, reader.name, tries, seed, folder))
    child.start()
    sender.close()
    try:
        outcome: Outcome = receiver.recv()
    except EOFError:
        outcome = Outcome(f"reader {reader.name}", tries)
        outcome.faults.append(f"{reader.name}: the process died")
    child.join()
    peak = outcome.measures.get("peak MiB", 0.0)
    if peak * 2**20 > MOST_BYTES:
        outcome.faults.append(f"{reader.name}: {peak:.0f} MiB of memory")
    return outcome


def _child(sender: Connection, name: str, tries: int, seed: int, folder: Path) -> None:
    reader = next(one for one in READERS if one.name == name)
    outcome = fuzz(reader, tries, seed, folder)
    outcome.measures["peak MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sender.send(outcome)


def _summary(outcomes: list[Outcome]) -> Outcome:
    peak = max(one.measures.get("peak MiB", 0.0) for one in outcomes)
    total = Outcome("all readers", sum(one.tries for one in outcomes))
    total.faults = [fault for one in outcomes for fault in one.faults]
    total.measures = {"readers": len(outcomes), "peak MiB": peak}
    return total
