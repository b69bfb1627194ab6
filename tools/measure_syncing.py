"""Cost of syncing files to the disk in the demo: seconds within fsync, and runs without it.

    python tools/measure_syncing.py --pairs 3 --iterations 20

Trains and evaluates as `make demo` does, by turns with and without syncing. Only this program
switches syncing off, in its own processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "torture"))

from programs import load_packages, run_program


def time_syncs(log: Path) -> None:
    """Adds a line with the seconds of each fsync of this process to a file."""
    real = os.fsync
    file = log.open("a", buffering=1)

    def timed(descriptor: Any, /) -> None:
        start = time.perf_counter()
        real(descriptor)
        file.write(f"{time.perf_counter() - start}\n")

    os.fsync = timed


def switch_off() -> None:
    """Makes fsync of this process do nothing."""
    os.fsync = lambda descriptor, /: None


def demo(folder: Path, iterations: int | None, syncing: bool, log: Path) -> float:
    """Seconds of a training and its evaluation in a new folder."""
    before = partial(time_syncs, log) if syncing else switch_off
    train = ["train", "--reward", "compressibility", "--out", "demo"]
    if iterations is not None:
        train += ["--iterations", str(iterations)]
    start = time.perf_counter()
    for words in (train, ["eval", "--checkpoint", "demo"]):
        program = run_program(words, folder, before)
        if program.poll():
            raise RuntimeError(program.output)
    return time.perf_counter() - start


def main() -> None:
    """Prints the seconds with and without syncing, and the share of the time within fsync."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--iterations", type=int, help="default: those of the demo")
    parser.add_argument("--folder", type=Path, help="disk to measure; default: that of TMPDIR")
    options = parser.parse_args()
    load_packages()
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        log = Path(folder, "syncs")
        for pair in range(options.pairs):
            for syncing in (pair % 2 == 0, pair % 2 == 1):
                place = Path(folder, f"{pair}-{syncing}")
                place.mkdir()
                seconds[syncing].append(demo(place, options.iterations, syncing, log))
        syncs = [float(line) for line in log.read_text().splitlines()]
    with_syncs, without = (statistics.median(seconds[syncing]) for syncing in (True, False))
    print(f"with syncing {with_syncs:.2f} s, without {without:.2f} s (medians of {options.pairs})")
    share = sum(syncs) / sum(seconds[True])
    count = len(syncs) / options.pairs
    print(f"{count:.0f} syncs per demo, {share:.2%} of its time")


if __name__ == "__main__":
    main()
