"""Kills at random times and at random file operations, each followed by the same command again.

What is there at the end must equal what an undisturbed run leaves, to the byte, but for measured
times. A resumed command is killed again.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from outcome import Outcome
from programs import Program, load_packages, run_program, watch_operations
from work import WORKS, Work, content, prepare, remove_outputs

__all__ = ["NAMES", "Trial", "run"]

KILLS: Final = 100  # of each kind of work
SIGNALS: Final = 30
MOST: Final = 6  # kills within one piece of work
POLITE: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
NAMES: Final = ("training", "scoring", "evaluation", "sampling", "export")
CODES: Final = {signal.SIGINT: (130, -signal.SIGINT)}


def run(size: float, seed: int, folder: Path) -> list[Outcome]:
    """Kills each kind of work, and sends it the signals of a terminal and of a scheduler."""
    load_packages()
    outcomes = []
    for name in NAMES:
        trial = Trial(WORKS[name], folder / name, random.Random(f"{seed} {name}"))
        outcomes.append(trial.repeat(f"kills of {name}", (signal.SIGKILL,), _tries(KILLS, size)))
        words = f"SIGTERM, SIGINT and SIGHUP of {name}"
        outcomes.append(trial.repeat(words, POLITE, _tries(SIGNALS, size)))
    return outcomes


def _tries(full: int, size: float) -> int:
    return max(2, round(full * size))


class Trial:
    """One kind of work that is disturbed again and again.

    Args:
        work: the work.
        folder: its folder; all tries are made there, so that paths in files are equal.
        chance: decides when and how.
    """

    def __init__(self, work: Work, folder: Path, chance: random.Random) -> None:
        self.work = work
        self.folder = folder
        self.chance = chance
        prepare(work, folder)
        log = folder.with_name(f"{folder.name}.operations")
        start = time.monotonic()
        program = run_program(work.words(folder), folder, partial(_count_operations, folder, log))
        self.seconds = time.monotonic() - start
        if program.poll():
            raise RuntimeError(f"{work.name} fails undisturbed: {program.output}")
        self.operations = log.stat().st_size
        self.expected = content(work, folder)

    def repeat(self, what: str, signals: tuple[int, ...], tries: int) -> Outcome:
        """Disturbs until there were so many signals."""
        outcome = Outcome(what)
        pieces = 0
        start = time.monotonic()
        while outcome.tries < tries:
            remove_outputs(self.work, self.folder)
            hits, fault = self.disturbed(signals, min(MOST, tries - outcome.tries))
            outcome.tries += hits
            outcome.faults += [fault] if fault else []
            pieces += 1
        outcome.measures = {"pieces of work": pieces, "seconds": time.monotonic() - start}
        return outcome

    def disturbed(self, signals: tuple[int, ...], most: int) -> tuple[int, str | None]:
        """The number of signals that hit one piece of work, and the fault, if there is one."""
        hits: list[str] = []
        while True:
            number = self.chance.choice(signals)
            moment = f"undisturbed after {', '.join(hits) or 'nothing'}"
            if len(hits) < most:
                program, moment = self._disturbed_once(number)
            else:
                program = run_program(self.work.words(self.folder), self.folder)
            code = program.wait()
            if "Traceback" in program.output:
                return len(hits), f"{moment}: {program.output}"
            if code == 0 or (hits and _is_done(program)):
                break
            if moment.startswith("undisturbed") or code not in CODES.get(number, (-number,)):
                return len(hits) + 1, f"{moment}: exit code {code}: {program.end()}"
            hits.append(moment)
        found = content(self.work, self.folder)
        if found == self.expected:
            return len(hits), None
        names = sorted(
            name
            for name in found.keys() | self.expected.keys()
            if found.get(name) != self.expected.get(name)
        )
        return len(hits), f"after {', '.join(hits)}: {', '.join(names[:8])} differ"

    def _disturbed_once(self, number: int) -> tuple[Program, str]:
        """A program that has got a signal, if it was not faster, and when it got it."""
        words = self.work.words(self.folder)
        name = signal.Signals(number).name
        if self.chance.random() < 0.5:
            seconds = self.chance.uniform(0, self.seconds)
            program = Program(words, self.folder)
            program.wait(seconds, number)
            return program, f"{name} after {seconds:.2f} s"
        operation = self.chance.randint(1, max(1, self.operations))
        share = self.chance.choice((None, self.chance.random()))
        hook = partial(_signal_at_operation, self.folder, operation, number, share)
        return run_program(words, self.folder, hook), f"{name} at file operation {operation}"


def _is_done(program: Program) -> bool:
    """True for work that is refused because it is there; its content is then compared."""
    return program.poll() == 2 and "is not an empty folder" in program.output


def _signal_at_operation(folder: Path, operation: int, number: int, share: float | None) -> None:
    """Sends this process a signal before one of its file operations.

    Args:
        folder: folder of the files.
        operation: 1-based number of the operation.
        number: number of the signal.
        share: what is written of the line under way before; None for no part of it.
    """
    counts = itertools.count(1)

    def act(tear: Callable[[float], None]) -> None:
        if next(counts) == operation:
            if share is not None:
                tear(share)
            os.kill(os.getpid(), number)

    watch_operations(folder, act)


def _count_operations(folder: Path, log: Path) -> None:
    """Adds a byte to a file for each file operation of this process."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    write = os.write
    watch_operations(folder, lambda tear: write(descriptor, b"."))
