"""The Python and the commands of docs/python.md and docs/bring-your-reward.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddpo
from tests.conftest import Run

DOCS = Path(__file__).parents[2] / "docs"
QUICK_RUN = '"sample.samples": 4, "sample.per_prompt": 2, "sample.batch": 4, "sample.steps": 2, '
QUICK_RUN += '"optim.updates": 1, "optim.timesteps": 1'
QUICK_REPORT = 'prompts="two.txt", best_of=0, held_out=False, seeds=2, history=0'


def blocks(page: str, language: str) -> list[str]:
    """The code of a page in one language."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the files that the pages name."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for place, name in enumerate(["cat", "dog"]):
        image = Image.fromarray(np.full((16, 16, 3), 100 * (place + 1), np.uint8))
        for path in (f"{name}.png", f"images/{name}.png"):
            image.save(path)
        Path(f"images/{name}.txt").write_text(f"a {name}")
    Path("two.txt").write_text("a cat\na dog\n")
    torch.save(torch.tensor(2.0), "head.pt")
    return tmp_path


@pytest.mark.slow
def test_the_page_on_python_runs(folder: Path) -> None:
    code = "\n".join(blocks("python.md", "python"))
    assert code.count('"sample.samples": 16') == code.count("seeds=2, history=0") == 1
    code = code.replace('"sample.samples": 16', QUICK_RUN)
    code = code.replace("seeds=2, history=0", QUICK_REPORT)
    names: dict[str, Any] = {"__name__": "page"}
    exec(code, names)
    assert names["many"].tolist() == pytest.approx([names["one"], 0.0])
    assert len(names["scores"]) == 2
    assert names["run"].metrics.index.tolist() == [1, 2]
    assert (folder / "runs/red").is_dir()
    assert set(names["report"].gains_df().reward) >= {"redness", "colorfulness"}
    assert (names["report"].folder / "report.html").is_file()


def test_the_forms_of_the_page_on_your_reward_score(folder: Path, ddpo: Run) -> None:
    (code,) = blocks("bring-your-reward.md", "python")
    Path("mine.py").write_text(code)
    (commands,) = blocks("bring-your-reward.md", "sh")
    lines = [line.split()[1:] for line in commands.splitlines()]
    assert len(lines) == 4
    for line in lines[:3]:
        code, *texts = ddpo(*line)
        assert code == 0, texts
    code, *texts = ddpo(*lines[3])
    assert code == 0, texts


def test_the_factory_of_ddpo_pytorch_is_named_by_its_result(folder: Path) -> None:
    Path("rewards.py").write_text(
        "def my_reward():\n"
        "    def _fn(images, prompts, metadata):\n"
        "        return images.mean((1, 2, 3)), {}\n"
        "    return _fn\n"
        "my = my_reward()\n"
    )
    table = ddpo.score("./rewards.py:my", "images")
    assert table.iloc[:, 2].tolist() == [100.0, 200.0]
