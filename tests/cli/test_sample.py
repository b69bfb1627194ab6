"""`ddpo sample`: its images, their settings, and the files beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ddpo.policies.vocabulary import unknown_words

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
    options = ["--model", tiny_model, "--per-prompt", 2, "--steps", 2, "--out", tmp_path / "s"]
    code, output, errors = ddpo("sample", *texts, *options)
    assert code == 0, errors
    assert f"{2 * len(texts)} images in" in output
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


def test_a_checkpoint_is_sampled_with_the_settings_of_its_run(
    ddpo: Run, tiny_model: Path, tmp_path: Path
) -> None:
    small = (
        "--set sample.samples=4 --set sample.per_prompt=2 --set sample.steps=3 "
        "--set sample.guidance=1.5 --set sample.eta=0.5 --set sample.batch=4 "
        "--set optim.timesteps=1 --set optim.updates=1 --set checkpoint_every=1"
    )
    run = tmp_path / "run"
    options = f"--reward darkness --iterations 1 {small}".split()
    assert ddpo("train", "--model", tiny_model, "--out", run, *options)[0] == 0

    def settings_of(name: str, *arguments: object) -> tuple[int, float, float]:
        code, _, errors = ddpo(
            "sample", "a cat", "--per-prompt", 1, "--out", tmp_path / name, *arguments
        )
        assert code == 0, errors
        settings = rows(tmp_path / name)[0]["settings"]
        return settings["steps"], settings["guidance"], settings["eta"]

    assert settings_of("own", "--checkpoint", run) == (3, 1.5, 0.5)
    last = run / "checkpoints" / "iteration-000001"
    assert settings_of("given", "--checkpoint", last, "--steps", 2) == (2, 1.5, 0.5)
    assert settings_of("base", "--model", tiny_model)[0] == 50  # of its family
    assert ddpo("sample", "--checkpoint", run / "best", "a cat", "--out", tmp_path / "no")[0] == 2


def test_the_contact_sheet_carries_the_mark_by_which_readers_skip_it(
    ddpo: Run, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    options = ["--model", tiny_model, "--per-prompt", 2, "--steps", 2, "--out", folder]
    assert ddpo("sample", "a cat", *options)[0] == 0
    marks = {path.name: mark_of(path) for path in folder.glob("*.png")}
    assert [name for name, mark in marks.items() if mark is not None] == ["sheet.png"]
    assert marks["sheet.png"] == "contact sheet"
    scored = tmp_path / "best_and_worst.png"
    files = folder.glob("*-?.png")
    assert ddpo("rewards", "score", "darkness", *files, "--contact-sheet", scored)[0] == 0
    assert mark_of(scored) == "contact sheet"


def mark_of(path: Path) -> str | None:
    with Image.open(path) as image:
        mark: str | None = image.info.get("ddpo")
    return mark


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


def test_unknown_words_are_noted_before_sampling_and_in_a_dry_run(
    ddpo: Run, tmp_path: Path
) -> None:
    options = ["--per-prompt", 1, "--steps", 1, "--out", tmp_path / "s"]
    code, _, errors = ddpo("sample", "a toaster", "a cat", *options)
    assert code == 0
    assert "the embedded model was never taught 'toaster'" in errors
    prompts = tmp_path / "p.txt"
    prompts.write_text("a cat\na kettle\n")
    small = (
        "--set sample.samples=4 --set sample.per_prompt=2 --set sample.steps=2 "
        "--set optim.timesteps=1 --set optim.updates=1"
    )
    places = ["--prompts", prompts, "--out", tmp_path / "run"]
    code, output, _ = ddpo("train", "--dry-run", *places, *small.split())
    assert code == 0
    assert "never taught 'kettle'" in " ".join(output.split())


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("damage", ["none", "image gone", "image torn", "line of others"])
def test_an_interrupted_sampling_resumes_when_the_command_is_repeated(
    ddpo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    from ddpo.policies.sample_folder import MARK, SampleFolder

    words = ["sample", "a cat", "a dog", "--per-prompt", 17, "--steps", 1, "--out"]
    assert ddpo(*words, tmp_path / "whole")[0] == 0

    class Cut(BaseException):
        """The process is killed before the contact sheet."""

    def cut(self: SampleFolder, columns: int) -> Path:
        raise Cut

    place = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(SampleFolder, "finish", cut)
        with pytest.raises(Cut):
            ddpo(*words, place)
    assert (place / MARK).exists()
    first = place / rows(place)[0]["file_name"]
    if damage == "image gone":
        first.unlink()
    if damage == "image torn":
        first.write_bytes(first.read_bytes()[:60])
    if damage == "line of others":
        lines = (place / "metadata.jsonl").read_text().splitlines(keepends=True)
        (place / "metadata.jsonl").write_text("".join([lines[1], lines[0], *lines[2:33], '{"f']))
    code, _, errors = ddpo(*words, place)
    assert code == 0
    assert ("34 of 34 images are there" in errors) == (damage == "none")
    assert content(place) == content(tmp_path / "whole")


@pytest.mark.parametrize(
    "other",
    [["a cat", "--seed", 1], ["a dog"], ["a cat", "--steps", 2], ["a cat", "--per-prompt", 3]],
)
def test_an_unfinished_sampling_of_something_else_is_refused(
    ddpo: Run, tmp_path: Path, other: list[object]
) -> None:
    from ddpo.policies.sample_folder import MARK

    place = tmp_path / "s"
    small = ["--per-prompt", 2, "--steps", 1, "--out", place]
    assert ddpo("sample", "a cat", *small)[0] == 0
    (place / MARK).write_text("{}")
    before = content(place)
    code, _, errors = ddpo("sample", *small, *other)
    assert code == 2
    assert "unfinished sampling with other prompts, settings or weights" in errors
    assert content(place) == before
    (place / MARK).write_text("[" * 100_000)
    assert ddpo("sample", "a cat", *small)[0] == 2
    (place / MARK).unlink()
    code, _, errors = ddpo("sample", "a cat", *small)
    assert code == 2
    assert "is not an empty folder" in errors
