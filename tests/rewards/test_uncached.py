"""A cache that is asked for and cannot be used is reported in one line, with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import ddpo as program
from ddpo.rewards.cache import cacheable, uncached_line
from ddpo.rewards.cards import CARDS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path / "cache"))
    Image.new("RGB", (8, 8), (200, 10, 10)).save("a.png")
    return tmp_path


def notes(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("note: --cache")]


def test_one_line_names_reward_and_reason(folder: Path, ddpo: Run) -> None:
    assert not CARDS["darkness"].cache
    code, _, errors = ddpo("rewards", "score", "darkness", "a.png", "--cache")
    assert code == 0
    assert notes(errors) == [
        "note: --cache: the score cache is not used for darkness (its card has cache=False)"
    ]
    code, _, errors = ddpo("rewards", "score", "darkness", "contrast", "a.png", "--cache")
    (line,) = notes(errors)
    assert "darkness (" in line
    assert "contrast (" in line


def test_parts_of_a_combination_count(folder: Path, ddpo: Run) -> None:
    _, _, errors = ddpo("rewards", "score", "darkness + contrast", "a.png", "--cache", "--json")
    (line,) = notes(errors)
    assert "darkness (its card has cache=False)" in line
    assert "contrast (its card has cache=False)" in line


@pytest.mark.parametrize("words", [["darkness"], ["darkness", "--no-cache"]])
def test_nothing_is_said_unless_the_cache_was_asked_for(
    words: list[str], folder: Path, ddpo: Run
) -> None:
    assert notes(ddpo("rewards", "score", "a.png", *words)[2]) == []


def test_nothing_is_said_of_a_reward_that_is_cached(folder: Path, ddpo: Run) -> None:
    (folder / "mine.py").write_text("def f(images):\n    return [1.0 for _ in images]\n")
    code, _, errors = ddpo("rewards", "score", "./mine.py:f", "a.png", "--cache")
    assert (code, notes(errors)) == (0, [])
    assert ddpo("rewards", "score", "./mine.py:f", "a.png", "--cache", "--json")[1].count(
        '"cached": 1'
    )


def test_the_reason_is_there_exactly_when_scores_are_not_cached() -> None:
    card = replace(CARDS["clip_score"], cache=True)
    for change in (
        {},
        {"cache": False},
        {"deterministic": False},
        {"batch_invariant": False},
        {"inputs": ("image", "group")},
    ):
        changed = replace(card, **change)
        assert cacheable(changed) == (not change) == (uncached_line([changed]) is None)


def test_python_says_it_too(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    program.score(["darkness"], ["a.png"], cache=True)
    assert "cache=True: the score cache is not used for darkness" in caplog.text
