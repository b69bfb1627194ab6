"""Writes the table of docs/reliability.md from outcomes of `python tools/torture --json FILE`.

python tools/reliability_table.py FILE...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "reliability.md"
TRIALS: Final = ROOT / "tools" / "torture"
START: Final = "<!-- rows of tools/reliability_table.py -->\n"
END: Final = "<!-- end of the rows -->\n"
HEAD: Final = "| promise | tried | tries | lost | command |\n|---|---|--:|--:|---|\n"
PROMISES: Final = {
    "kills": "The same command, or `--resume`, ends with the same bytes",
    "pairs": "Nothing is mixed, and a refusal is one line",
    "power_cuts": "Nothing that was reported as written is lost",
}
"""Promise that each trial tests; for others the first line of the module stands."""


def promise(trial: str) -> str:
    """The promise that a trial tests."""
    if trial in PROMISES:
        return PROMISES[trial]
    text = (TRIALS / f"{trial}.py").read_text(encoding="utf-8")
    return text.partition('"""')[2].partition("\n")[0].rstrip('."')


def table(records: Iterable[Mapping[str, Any]]) -> str:
    """The rows as Markdown, in the order of the records."""
    rows = "".join(
        f"| {promise(one['trial'])} | {one['what']} | {one['tries']:,} | {len(one['faults'])} "
        f"| `python tools/torture {one['trial']}` |\n"
        for one in records
    )
    return HEAD + rows


def main(files: list[str]) -> None:
    """Replaces the rows of the page."""
    records = [one for file in files for one in json.loads(Path(file).read_text("utf-8"))]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}{table(records)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
