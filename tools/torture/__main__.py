"""Tries to make ddpo lose, run or leak something: kills, power cuts, hostile files, full disks.

    python tools/torture                    # every trial, at the sizes of docs/reliability.md
    python tools/torture kills --size 0.05  # one trial, with a twentieth of its tries
    python tools/torture --json FILE        # also as JSON, for tools/reliability_table.py

A trial is a module beside this file with `run(size: float, seed: int, folder: Path)`, which returns
a list of `Outcome`. Its size is 1 for the numbers of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def main() -> int:
    """Prints one line for each outcome and each fault; exit code 1 if there is a fault."""
    names = sorted(path.stem for path in HERE.glob("[!_]*.py") if "def run(" in path.read_text())
    parser = argparse.ArgumentParser(prog="tools/torture", description=__doc__.splitlines()[0])
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"of {', '.join(names)}")
    parser.add_argument("--size", type=float, default=1.0, help="share of the full tries")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the outcomes, which is replaced")
    options = parser.parse_args()
    unknown = set(options.trials) - set(names)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    faults = 0
    records: list[dict[str, Any]] = []
    for name in options.trials or names:
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"ddpo-{name}-") as folder:
            for outcome in importlib.import_module(name).run(
                options.size, options.seed, Path(folder)
            ):
                outcome.measures.setdefault("seconds", time.monotonic() - start)
                print(outcome.line(), *outcome.faults, sep="\n  ", flush=True)
                faults += len(outcome.faults)
                records.append({"trial": name, "size": options.size, **asdict(outcome)})
                if options.json:
                    options.json.parent.mkdir(parents=True, exist_ok=True)
                    options.json.write_text(json.dumps(records, indent=1), encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
