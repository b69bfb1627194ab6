"""Tries inputs in a process of their own, whose hangs, crashes and memory are counted."""

from __future__ import annotations

import argparse
import os
import selectors
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from outcome import Outcome

__all__ = ["tried_in_workers", "work"]

HANG_SECONDS: Final = 30.0  # of processor time, since the machine may have other work
MOST_MEMORY: Final = 2 * 1024  # MiB
Try = Callable[[int, int, Path], None]
"""A try: its seed, its number, and a folder for its files; raises for a fault."""


def tried_in_workers(script: str, what: str, tries: int, seed: int, folder: Path) -> Outcome:
    """The outcome of the numbers 0 … tries - 1, each tried by `script` in a worker process.

    A worker that hangs, crashes or takes too much memory is replaced after the number at fault.

    Args:
        script: Path of a module that calls `work` as its main program.
        what: Name of the outcome.
        tries: Number of tries.
        seed: Seed of the inputs.
        folder: Folder for files of the tries.
    """
    outcome = Outcome(what, tries)
    peak = 0.0
    start = 0
    while start < tries:
        start, peak = _worker(script, outcome, (seed, start, tries), folder, peak)
    outcome.measures["peak MiB"] = peak
    return outcome


def _worker(
    script: str, outcome: Outcome, numbers: tuple[int, int, int], folder: Path, peak: float
) -> tuple[int, float]:
    """Runs one worker; returns the next number, and the peak memory so far in MiB."""
    command = [sys.executable, script, *map(str, numbers), str(folder)]
    number = numbers[1] - 1
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            rest = b""
            busy = 0.0  # processor time at the last sign of life
            while True:
                if not waiting.select(1.0):
                    if _seconds_of(process.pid) - busy < HANG_SECONDS:
                        continue
                    process.kill()
                    outcome.faults.append(f"{number}: no answer for {HANG_SECONDS:g} s")
                    return number + 1, peak
                busy = _seconds_of(process.pid)
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    break
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    kind, _, text = line.decode("utf-8", "replace").partition(" ")
                    if kind == "try":
                        number = int(text)
                    elif kind == "peak":
                        peak = max(peak, float(text))
                    else:
                        outcome.faults.append(f"{number}: {text}")
        code = process.wait()
    if code != 0:
        outcome.faults.append(f"{number}: the process ended with {code}")
        return number + 1, peak
    return numbers[2] if number == numbers[2] - 1 else number + 1, peak


def _seconds_of(process: int) -> float:
    """Processor time of a process so far, s; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def work(try_one: Try) -> None:
    """Main program of a worker: tries a range of numbers and reports on standard output."""
    parser = argparse.ArgumentParser()
    for name in ("seed", "start", "stop"):
        parser.add_argument(name, type=int)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    report = sys.stdout
    before = 0.0
    for number in range(options.start, options.stop):
        print(f"try {number}", file=report, flush=True)
        try:
            try_one(options.seed, number, options.folder)
        except BaseException as error:  # noqa: BLE001  # counted
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            text = " ".join(str(error).split())[:200]
            print(f"fault {type(error).__name__} at {place}: {text}", file=report)
        peak = _peak_memory()
        if peak > before:
            before = peak
            print(f"peak {peak:.0f}", file=report, flush=True)
        if peak > MOST_MEMORY:
            print(f"fault {peak:.0f} MiB of memory", file=report, flush=True)
            return


def _peak_memory() -> float:
    """The greatest resident memory of this process so far, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 1024
    return 0.0
