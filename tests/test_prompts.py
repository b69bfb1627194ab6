"""Prompt lists: the built-in ones are disjoint, files are read strictly, leaks are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpo.errors import PromptError
from ddpo.prompts import find_leaks, load_prompts
from ddpo.types import Prompt


def test_builtin_lists_have_the_promised_sizes_and_do_not_leak() -> None:
    lists = {name: load_prompts(name).prompts for name in ("animals", "unseen_animals", "objects")}
    assert {name: len(prompts) for name, prompts in lists.items()} == {"animals": 45, "unseen_animals": 38, "objects": 50}
    assert find_leaks(lists["animals"], lists["unseen_animals"] + lists["objects"]) == []


def test_a_file_wins_over_a_builtin_list_and_the_source_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_prompts("objects.txt").source == "built-in list 'objects'"
    Path("objects.txt").write_text("a lamp\n\n  a desk \n", encoding="utf-8")
    found = load_prompts("objects.txt")
    assert [prompt.text for prompt in found.prompts] == ["a lamp", "a desk"]
    assert found.source == "file objects.txt"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.txt", b"\n \n", "holds no prompt"),
        ("l.txt", "caf\xe9".encode("latin-1"), "not UTF-8"),
        ("d.txt", b"a cat\na dog\na cat\n", ":3: the prompt 'a cat' stands there twice"),
        ("b.jsonl", b'{"prompt": "x"}\n{nope\n', ":2: not JSON"),
        ("w.jsonl", b'{"text": "x"}\n', 'expected an object with "prompt"'),
    ],
)
def test_bad_files_are_told_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptError, match=message):
        load_prompts(str(tmp_path / name))


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(PromptError, match="did you mean 'unseen_animals'"):
        load_prompts("unseen_animal.txt")


def test_metadata_comes_from_jsonl(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "two cats", "metadata": {"questions": ["How many cats?"], "answers": ["two"]}}\n')
    (prompt,) = load_prompts(str(tmp_path / "p.jsonl")).prompts
    assert prompt.metadata["answers"] == ["two"]


def test_ids_are_stable_and_unicode_normal() -> None:
    assert Prompt("a cat").id == "51e467415607"  # sha256("a cat")[:12]
    assert Prompt("cafe\u0301").id == Prompt("caf\u00e9").id


@pytest.mark.parametrize(
    ("heldout", "leaks"),
    [
        ("A cat", True),
        ("the cats", True),
        ("two foxes", False),
        ("a fox", True),
        ("a panda", False),
        ("a cat on a mat", False),
        ("butterflies", True),
    ],
)
def test_leaks(heldout: str, leaks: bool) -> None:
    train = [Prompt("a cat"), Prompt("a fox"), Prompt("a butterfly")]
    assert bool(find_leaks(train, [Prompt(heldout)])) is leaks


def test_near_duplicates_are_leaks() -> None:
    train = [Prompt("a red cat sitting on a wooden table")]
    (leak,) = find_leaks(train, [Prompt("a red cat sitting on wooden tables outside")])
    assert "86% of the words" in leak.reason
