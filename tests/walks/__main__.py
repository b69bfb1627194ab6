"""Walks of newcomers by hand: `python -m tests.walks [student | reward_author | data_scientist]`.

Each command is printed with its processor time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.installed import ROOT, build_distributions
from tests.walks.walks import WALKS, take


def main() -> None:
    parser = argparse.ArgumentParser(description="Walk through the documentation as newcomers do.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(WALKS)}")
    names = parser.parse_args().names or list(WALKS)
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_distributions(ROOT, Path(folder) / "dist").wheel
        for name in names:
            sys.stdout.write(f"{name}:\n")
            take(name, wheel, Path(folder) / name)


if __name__ == "__main__":
    main()
