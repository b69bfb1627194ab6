"""examples/notebook.ipynb runs in an empty folder, and shows what it promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from run_notebook import NOTEBOOK, run_notebook

from tests.api.notebook_html import Parsed

LARGEST = 200_000
MOST_CELLS = 18
SMALLER = {'"sample.samples": 64': '"sample.samples": 16', "limit=8": "limit=4"}


def cells(notebook: Any) -> dict[str, Any]:
    """First line of each cell of code → the cell."""
    return {cell.source.splitlines()[0]: cell for cell in notebook.cells if is_code(cell)}


def is_code(cell: Any) -> bool:
    return bool(cell.cell_type == "code")


def texts(cell: Any, stream: str = "stdout") -> str:
    """What a cell printed."""
    return "".join(
        output.text
        for output in cell.outputs
        if output.output_type == "stream" and output.name == stream
    )


def shown(cell: Any) -> Parsed:
    """The HTML of a cell's result."""
    (result,) = [output for output in cell.outputs if output.output_type == "execute_result"]
    return Parsed(result.data["text/html"])


def check_outputs(notebook: Any) -> None:
    """Every cell ran without a word on standard error, and shows images, a report and gains."""
    found = cells(notebook)
    counts = [cell.execution_count for cell in found.values()]
    assert counts == list(range(1, len(counts) + 1))
    for cell in found.values():
        assert texts(cell, "stderr") == ""
        assert [output for output in cell.outputs if output.output_type == "error"] == []
        assert cell.outputs
    assert shown(found["import ddpo"]).rows > 10
    assert "known flaws" in shown(found['ddpo.load_reward("compressibility")']).text
    table = shown(found['scores = ddpo.score(["compressibility", "sharpness"], "before")'])
    assert len(table.images) == 8
    assert "a cat" in table.text
    assert len(shown(found["def redness(images):"]).images) == 2
    training = texts(found["run = ddpo.train("]).splitlines()
    assert [line.partition(":")[0] for line in training] == [f"iteration {i}" for i in range(1, 5)]
    run = shown(found["run"])
    assert (len(run.images), "4 of 4" in run.text) == (2, True)
    (evaluation,) = [cell for line, cell in found.items() if line.startswith("report = ")]
    report = shown(evaluation)
    assert len(report.images) == 8
    assert report.links == ["runs/demo/eval/iteration-000004/report.html"]
    assert re.search(r"gain|reward", report.text)
    gains = shown(found["gains = report.gains_df()"])
    assert gains.rows == 4
    assert all(split in gains.text for split in ("animals", "unseen_animals", "objects"))


def test_the_stored_notebook_is_small_and_of_its_cells() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    assert len(notebook.cells) <= MOST_CELLS
    assert max(len(cell.source) for cell in notebook.cells if not is_code(cell)) < 500
    assert not re.search(r"/tmp/|/home/|/root/|/work/|file://|[A-Z]:\\\\", text)
    check_outputs(notebook)


def test_its_links_lead_to_files() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    words = "\n".join(cell.source for cell in notebook.cells if not is_code(cell))
    links = re.findall(r"\]\(([^)]+)\)", words)
    assert len(links) >= 3
    assert [link for link in links if not (NOTEBOOK.parent / link).is_file()] == []


@pytest.mark.slow
def test_the_notebook_runs_in_an_empty_folder_with_an_empty_home(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    home = tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    text = NOTEBOOK.read_text(encoding="utf-8").replace("\\", "")
    assert all(setting in text for setting in SMALLER)
    check_outputs(run_notebook(folder, home, SMALLER))
    assert (folder / "runs/demo/eval/iteration-000004/report.html").is_file()
    assert not (home / ".cache" / "ddpo" / "scores.sqlite").exists()
