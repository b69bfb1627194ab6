"""Writes the table of models into docs/algorithms.md: `python tools/support_table.py`.

It trains every algorithm on a tiny model of every family, which takes a few minutes. A test checks
each cell of the table.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for `tests`

from ddpo.io.atomic import write_text  # noqa: E402
from tests.tiny_unet_models import write_tiny_sd, write_tiny_xl  # noqa: E402
from tests.trainer.support_matrix import (  # noqa: E402
    ALGORITHMS,
    FAMILIES,
    WITHOUT_NOISE,
    TinyModels,
    markdown,
)

PAGE = ROOT / "docs" / "algorithms.md"
BLOCK = re.compile(r"(<!-- models:begin -->\n).*?(<!-- models:end -->)", re.DOTALL)


def table(place: Path) -> str:
    """The table, from runs in a folder."""
    models = TinyModels(write_tiny_sd(place / "sd"), write_tiny_xl(place / "xl"), place / "flow")
    pairs = [(name, column) for name in ALGORITHMS for column in (*FAMILIES, WITHOUT_NOISE)]
    return markdown(
        {
            (name, column): models.outcome(name, column, place / f"{number}")
            for number, (name, column) in enumerate(pairs)
        }
    )


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        found = table(Path(folder))
    text = PAGE.read_text(encoding="utf-8")
    write_text(PAGE, BLOCK.sub(lambda block: f"{block[1]}{found}{block[2]}", text))
