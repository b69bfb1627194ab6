"""The rows of docs/input-formats.md: every named command reads every format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

Run = Callable[..., tuple[int, str, str]]

PAGE = (Path(__file__).parents[1] / "docs" / "input-formats.md").read_text(encoding="utf-8")
SMALL = [
    "sample.samples=8",
    "sample.per_prompt=8",
    "sample.steps=2",
    "optim.timesteps=1",
    "optim.updates=1",
    "sample.batch=8",
]


def rows(section: str) -> list[str]:
    """The first cells of the table in a section of the page."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| (?!-|list |file |suffix |for )(.+?) \|", text, re.MULTILINE)


def parquet(path: Path) -> None:
    image = {"bytes": b"1", "path": "a.png"}
    pd.DataFrame({"image": [image, image], "text": ["a cat", "a dog"]}).to_parquet(path)


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content, encoding="utf-8")


PROMPT_LISTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "plain text, T2I-CompBench": ("val.txt", text("a cat\r\na dog\r\n")),
    "PartiPrompts": (
        "PartiPrompts.tsv",
        text(
            "Prompt\tCategory\tChallenge\tNote\na cat\tAnimals\tBasic\t\na dog\tAnimals\tBasic\tx\n"
        ),
    ),
    "DrawBench": ("drawbench.csv", text("Prompts,Category\na cat,Colors\na dog,Colors\n")),
    "HPSv2's benchmark": ("anime.json", text('["a cat", "a dog"]')),
    "ImageReward's benchmark": (
        "benchmark-prompts.json",
        text('[{"id": "1", "prompt": "a cat"},\n {"id": "2", "prompt": "a dog"}]'),
    ),
    "GenEval": (
        "evaluation_metadata.jsonl",
        text(
            '{"tag": "single_object", "include": [{"class": "cat", "count": 1}], '
            '"prompt": "a cat"}\n'
            '{"tag": "single_object", "include": [{"class": "dog", "count": 1}], '
            '"prompt": "a dog"}\n'
        ),
    ),
    "Hugging Face datasets, Pick-a-Pic, LAION": ("train-00000-of-00001.parquet", parquet),
    "ddpo's own": (
        "own.jsonl",
        text('{"prompt": "a cat", "metadata": {"n": 1}, "weight": 2}\n{"prompt": "a dog"}\n'),
    ),
}


def test_every_prompt_list_of_the_page_is_tried() -> None:
    assert rows("Prompt lists") == list(PROMPT_LISTS)


@pytest.fixture(params=list(PROMPT_LISTS))
def prompt_list(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name, write = PROMPT_LISTS[request.param]
    write(tmp_path / name)
    return tmp_path / name


def test_train_reads_it(ddpo: Run, prompt_list: Path, tmp_path: Path) -> None:
    options = [option for setting in SMALL for option in ("--set", setting)]
    code, out, err = ddpo(
        "train",
        "--prompts",
        prompt_list,
        "--reward",
        "compressibility",
        "--dry-run",
        *options,
        "--out",
        tmp_path / "run",
    )
    assert (code, err) == (0, "")
    assert re.search(r"\b2 prompts|2 from file", out), out


def test_sample_reads_it(ddpo: Run, prompt_list: Path, tmp_path: Path) -> None:
    code, _, err = ddpo(
        "sample",
        "--prompts",
        prompt_list,
        "--per-prompt",
        1,
        "--steps",
        1,
        "--out",
        tmp_path / "out",
    )
    assert code == 0, err
    lines = (tmp_path / "out" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["prompt"] for line in lines} == {"a cat", "a dog"}


def test_eval_reads_it(ddpo: Run, prompt_list: Path, tmp_path: Path) -> None:
    for folder, level in (("base", 50), ("tuned", 200)):
        (tmp_path / folder).mkdir()
        for name, prompt in (("0", "a cat"), ("1", "a dog")):
            Image.new("L", (16, 16), level).save(tmp_path / folder / f"{name}.png")
            (tmp_path / folder / f"{name}.txt").write_text(prompt)
    images = [f"--images={name}={tmp_path / name}" for name in ("base", "tuned")]
    code, out, err = ddpo(
        "eval",
        *images,
        "--prompts",
        prompt_list,
        "--reward",
        "darkness",
        "--out",
        tmp_path / "report",
    )
    assert code == 0, err
    assert f"{prompt_list.stem}: 2 prompts" in out + err


PREFERENCE_FILES: dict[str, tuple[str, object]] = {
    "pairs": ("p.jsonl", {"prompt": "x", "image_a": "0.png", "image_b": "1.png", "label": "a"}),
    "chosen and rejected": ("p.json", [{"prompt": "x", "chosen": "0.png", "rejected": "1.png"}]),
    "Pick-a-Pic": (
        "p.parquet",
        {"caption": "x", "label_0": 1.0, "label_1": 0.0, "has_label": True},
    ),
    "ImageReward's `test.json`": (
        "test.json",
        [{"id": "1", "prompt": "x", "generations": ["0.png", "1.png"], "ranking": [1, 2]}],
    ),
    "HPDv2's `test.json`": (
        "test.json",
        [{"prompt": "x", "image_path": ["0.png", "1.png"], "rank": [0, 1]}],
    ),
    "HPDv2's `train.json`": (
        "train.json",
        [{"prompt": "x", "file_path": ["0.png", "1.png"], "human_preference": [1, 0]}],
    ),
}


def test_every_preference_file_of_the_page_is_tried() -> None:
    assert rows("Preference files") == list(PREFERENCE_FILES)


@pytest.mark.parametrize("layout", PREFERENCE_FILES)
def test_validate_reads_it(ddpo: Run, tmp_path: Path, layout: str) -> None:
    """The first image is black and preferred, and darkness scores the darker image higher."""
    name, content = PREFERENCE_FILES[layout]
    for number, level in enumerate((0, 250)):
        Image.new("L", (16, 16), level).save(tmp_path / f"{number}.png")
    if isinstance(content, dict) and name.endswith(".parquet"):
        encoded = {f"jpg_{number}": (tmp_path / f"{number}.png").read_bytes() for number in (0, 1)}
        pd.DataFrame([content | encoded]).to_parquet(tmp_path / name)
    else:
        (tmp_path / name).write_text(json.dumps(content))
    code, out, err = ddpo("rewards", "validate", "darkness", "--preferences", tmp_path / name)
    assert code == 0, err
    assert "pairwise accuracy 100.0 %" in out
    assert "1 pairs of 1 prompts" in out
