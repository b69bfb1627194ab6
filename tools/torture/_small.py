"""The small part of the trials that CI runs: a few kills of each work, and four pairs.

python tools/torture/_small.py SEED
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from kills import NAMES, Trial
from outcome import Outcome
from pairs import Place, one_cache, two_exports, two_samplings, two_scorings
from programs import load_packages
from work import WORKS

TRIES: Final = {"scoring": 6, "export": 4}  # others: 2
PAIRS: Final = (two_scorings, one_cache, two_exports, two_samplings)


def main(seed: str) -> None:
    """Prints the lines of the outcomes, and their faults."""
    load_packages()
    with tempfile.TemporaryDirectory(prefix="ddpo-small-") as folder:
        for name in NAMES:
            chance = random.Random(f"{seed} {name}")
            trial = Trial(WORKS[name], Path(folder, name), chance)
            show(trial.repeat(f"kills of {name}", (signal.SIGKILL,), TRIES.get(name, 2)))
        for pair in PAIRS:
            outcome = Outcome(pair.__name__)
            outcome.count(pair(Place(Path(folder, pair.__name__), random.Random(seed))))
            show(outcome)


def show(outcome: Outcome) -> None:
    """Prints an outcome."""
    print(outcome.line(), *outcome.faults, sep="\n  ", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
