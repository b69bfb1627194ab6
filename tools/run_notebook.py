"""Runs examples/notebook.ipynb in an empty folder: `python tools/run_notebook.py --out FILE`.

The notebook with its outputs goes into FILE; examples/notebook.ipynb itself stores them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"
STEERING = re.compile(r"\x1b\[[\d;?]*[A-Za-z]|\r")
"""Colours and movements of a terminal, in which `!` runs a command."""
TIMEOUT = 600  # seconds of one cell, which takes a tenth of them on an idle machine


def run_notebook(folder: Path, home: Path, sizes: Mapping[str, str] = MappingProxyType({})) -> Any:
    """The notebook with its outputs.

    Args:
        folder: working folder of the notebook.
        home: home folder of the user.
        sizes: setting in a cell → a smaller one.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        for setting, smaller in sizes.items():
            cell.source = cell.source.replace(setting, smaller)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "HOME": str(home), "PATH": path}
    environment.pop("XDG_CACHE_HOME", None)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=environment)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = STEERING.sub("", output.text)
    return notebook


def main() -> None:
    """Runs the notebook and writes it."""
    parser = argparse.ArgumentParser(description="Run examples/notebook.ipynb.")
    parser.add_argument("--out", type=Path, required=True, help="file of the executed notebook")
    out = parser.parse_args().out
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as home:
        try:
            notebook = run_notebook(Path(folder), Path(home))
        except CellExecutionError as error:
            sys.exit(f"error: {error}")
    out.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, out)
    size = out.stat().st_size / 1000
    print(f"{out}: {size:.0f} kB, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
