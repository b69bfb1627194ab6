"""`ddpo sample`: which images it draws, with which settings, and what it writes beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ddpo.policies.emoji.vocabulary import unknown_words

Run = Callable[..., tuple[int, str, str]]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    ]


@pytest.mark.parametrize(
    "texts",
    [
        ("a cat", "a cat"),
        ("a cat!", "a cat?", "a cat", "A cat"),
        ("a/b", "..", "CON", "?!", "🐱 é", "x" * 900),
        ("a cat", "a dog", "a cat", "a cat"),
    ],
)
def test_every_text_has_files_of_its_own_as_often_as_it_is_named(
    ddpo: Run, tiny_model: Path, tmp_path: Path, texts: tuple[str, ...]
) -> None:
    code, output, errors = ddpo(
        "sample",
        *texts,
        "--model",
        tiny_model,
        "--count",
        "2",
        "--steps",
        "2",
        "--out",
        tmp_path / "s",
    )
    assert code == 0, errors
    assert f"\n{2 * len(texts)} images in" in output
    found = rows(tmp_path / "s")
    assert [row["prompt"] for row in found] == [text for text in texts for _ in range(2)]
    names = [row["file_name"] for row in found]
    assert len(set(names)) == len(names) == 2 * len(texts)
    assert {path.name for path in (tmp_path / "s").iterdir()} == {
        *names,
        "metadata.jsonl",
        "sheet.png",
    }
    for text in set(texts):
        assert [row["index"] for row in found if row["prompt"] == text] == list(
            range(2 * texts.count(text))
        )
    pixels = {Image.open(tmp_path / "s" / name).tobytes() for name in names}
    assert len(pixels) == len(names)


def test_a_checkpoint_is_drawn_with_the_settings_of_its_run(
    ddpo: Run, tiny_model: Path, tmp_path: Path
) -> None:
    small = [
        "sample.samples=4",
        "sample.per_prompt=2",
        "sample.steps=3",
        "sample.guidance=1.5",
        "sample.eta=0.5",
        "sample.batch=4",
    ]
    small += ["optim.timesteps=1", "optim.updates=1", "checkpoint_every=1"]
    told = [part for setting in small for part in ("--set", setting)]
    run = tmp_path / "run"
    assert (
        ddpo(
            "train",
            "--reward",
            "darkness",
            "--model",
            tiny_model,
            "--iterations",
            "1",
            "--out",
            run,
            *told,
        )[0]
        == 0
    )
    assert (
        ddpo("sample", "--checkpoint", run, "a cat", "--count", "1", "--out", tmp_path / "own")[0]
        == 0
    )
    settings = rows(tmp_path / "own")[0]["settings"]
    assert (settings["steps"], settings["guidance"], settings["eta"]) == (3, 1.5, 0.5)
    assert ddpo("sample", "--checkpoint", run / "best", "a cat", "--out", tmp_path / "no")[0] == 2
    last = run / "checkpoints" / "iteration-000001"
    assert (
        ddpo(
            "sample",
            "--checkpoint",
            last,
            "a cat",
            "--count",
            "1",
            "--steps",
            "2",
            "--out",
            tmp_path / "told",
        )[0]
        == 0
    )
    settings = rows(tmp_path / "told")[0]["settings"]
    assert (settings["steps"], settings["guidance"], settings["eta"]) == (2, 1.5, 0.5)
    assert (
        ddpo("sample", "--model", tiny_model, "a cat", "--count", "1", "--out", tmp_path / "base")[
            0
        ]
        == 0
    )
    assert rows(tmp_path / "base")[0]["settings"]["steps"] == 50  # of its family


def test_the_contact_sheet_carries_the_mark_by_which_readers_skip_it(
    ddpo: Run, tiny_model: Path, tmp_path: Path
) -> None:
    assert (
        ddpo(
            "sample",
            "a cat",
            "--model",
            tiny_model,
            "--count",
            "2",
            "--steps",
            "2",
            "--out",
            tmp_path / "s",
        )[0]
        == 0
    )
    marks = {
        path.name: Image.open(path).text.get("ddpo") for path in (tmp_path / "s").glob("*.png")
    }  # type: ignore[attr-defined]
    assert [name for name, mark in marks.items() if mark == "contact sheet"] == ["sheet.png"]
    assert set(marks.values()) == {"contact sheet", None}
    scored = tmp_path / "best_and_worst.png"
    assert (
        ddpo(
            "rewards",
            "score",
            "darkness",
            *(tmp_path / "s").glob("*-?.png"),
            "--contact-sheet",
            scored,
        )[0]
        == 0
    )
    assert Image.open(scored).text == {"ddpo": "contact sheet"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("a toaster", ["toaster"]),
        ("a cat on a red background", []),
        ("a dog riding a bike", []),
        ("two cats and a kitten", ["cats", "kitten"]),
        ("An ELEPHANT, striped", []),
        ("a quick brown fox jumps", ["quick", "jumps"]),
        ("🐱", ["🐱"]),
        ("", []),
    ],
)
def test_words_that_the_embedded_model_was_never_taught(text: str, unknown: list[str]) -> None:
    assert list(unknown_words([text])) == unknown


def test_the_nearest_taught_noun_is_named() -> None:
    assert unknown_words(["elefant cats kitten"]) == {
        "elefant": "elephant",
        "cats": "cat",
        "kitten": "cat",
    }


def test_unknown_words_are_told_before_drawing_and_in_a_dry_run(ddpo: Run, tmp_path: Path) -> None:
    code, _, errors = ddpo(
        "sample", "a toaster", "a cat", "--count", "1", "--steps", "1", "--out", tmp_path / "s"
    )
    assert code == 0
    assert "the embedded model was never taught 'toaster'" in errors
    (tmp_path / "p.txt").write_text("a cat\na kettle\n")
    small = (
        "--set",
        "sample.samples=4",
        "--set",
        "sample.per_prompt=2",
        "--set",
        "sample.steps=2",
        "--set",
        "optim.timesteps=1",
    )
    told = (
        "--prompts",
        tmp_path / "p.txt",
        *small,
        "--set",
        "optim.updates=1",
        "--out",
        tmp_path / "run",
    )
    code, output, _ = ddpo("train", "--dry-run", *told)
    assert code == 0
    assert "never taught 'kettle'" in " ".join(output.split())
