"""Writes the table of docs/reliability.md from outcomes of `python tools/torture --json FILE`.

python tools/reliability_table.py FILE...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "reliability.md"
TRIALS: Final = ROOT / "tools" / "torture"
START: Final = "<!-- rows of tools/reliability_table.py -->\n"
END: Final = "<!-- end of the rows -->\n"
HEAD: Final = "| tried | tries | lost |\n|---|--:|--:|\n"
PROMISES: Final = {
    "kills": "The same command, or `--resume`, ends with the same bytes",
    "pairs": "Nothing is mixed, and a refusal is one line",
    "power_cuts": "Nothing that was reported as written is lost",
    "disks": "A full disk is one line; with room, the same command gives the same bytes",
    "hostile": "Nothing that only a run folder names is run, called, read or written",
    "images": "An odd image is one unscorable image, within 30 s and 2 GB",
    "inputs": "An odd file of a user is one line, within 30 s and 2 GB",
    "readers": "A damaged file of ddpo is one line, within 30 s and 2 GB",
    "serving": "Requests are answered beside idle and hostile ones; memory is flat, the log short",
}
"""Promise that each trial tests; for others the first line of the module stands."""


def promise(trial: str) -> str:
    """The promise that a trial tests."""
    if trial in PROMISES:
        return PROMISES[trial]
    text = (TRIALS / f"{trial}.py").read_text(encoding="utf-8")
    return text.partition('"""')[2].partition("\n")[0].rstrip('."')


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """One table for each trial, below its promise and its command, in the order of the records."""
    return "\n".join(
        f"**{promise(trial)}** (`python tools/torture {trial}`)\n\n{HEAD}{rows(records, trial)}"
        for trial in dict.fromkeys(one["trial"] for one in records)
    )


def rows(records: Sequence[Mapping[str, Any]], trial: str) -> str:
    """The rows of one trial; those of single readers are summed in one."""
    return "".join(
        f"| {one['what']} | {one['tries']:,} | {len(one['faults']):,} |\n"
        for one in records
        if one["trial"] == trial and not one["what"].startswith("reader ")
    )


def main(files: list[str]) -> None:
    """Replaces the rows of the page."""
    records = [one for file in files for one in json.loads(Path(file).read_text("utf-8"))]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}{table(records)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
