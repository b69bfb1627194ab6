"""Paths in settings: absolute when a run starts, found after a move, equal in any spelling."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from ddpo.io.atomic import named_path
from ddpo.rewards.setting_paths import at_new_place, located, missing_files, same_but_for_paths
from ddpo.rewards.spec import parse_expression, replace_paths

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with an awkward name, which is the current one."""
    folder = tmp_path / "a + b, c" / "project"
    (folder / "sub").mkdir(parents=True)
    for name in ("r.py", "sub/r.py", "two words.py", "a:b.py", "w.json", "p.txt", "alg.py"):
        (folder / name).write_text("a cat\n")
    (folder / "model").mkdir()
    (folder / "float32").mkdir()
    (folder / "link.py").symlink_to(folder / "r.py")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("spec", "file"),
    [
        ("./r.py:red", "r.py"),
        ("r.py:red", "r.py"),
        ("sub/../r.py:red", "r.py"),
        ("../project/r.py:red", "r.py"),
        ("./sub/r.py:red", "sub/r.py"),
        ("two words.py:red", "two words.py"),
        ("a:b.py:red", "a:b.py"),
        ("link.py:red", "link.py"),
        ("~/r.py:red", "r.py"),
    ],
)
def test_a_rewards_file_gets_its_absolute_path(
    project: Path, monkeypatch: pytest.MonkeyPatch, spec: str, file: str
) -> None:
    monkeypatch.setenv("HOME", str(project))
    expected = f"{project / file}:red"
    assert located({"reward": spec})["reward"] == expected
    assert (
        located({"reward": f"{spec}:0.5 + darkness:0.2"})["reward"]
        == f"{expected}:0.5 + darkness:0.2"
    )
    assert located({"reward": f"min({spec}, darkness)"})["reward"] == f"min({expected}, darkness)"
    _, (term,) = parse_expression(expected)
    assert (term.kind, term.target, term.attribute) == (
        "file",
        str(project / file),
        "red",
    )


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        ("aesthetic:dtype=float32", True),  # though there is a folder of that name
        ("clip_score:clip=openai/clip-vit-base-patch32", True),
        ("http://localhost:8000/red", True),
        ("mylab/redness", True),
        ("package.module:Attribute", True),
        ("darkness:clamp=-1..0", True),
    ],
)
def test_what_is_no_file_stays_as_it_is(project: Path, spec: str, same: bool) -> None:
    assert (located({"reward": spec})["reward"] == spec) is same


def test_files_of_options_lists_and_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("w.json", "p.txt", "alg.py"):
        (tmp_path / name).write_text("a cat\n")
    for name in ("model", "emoji", "animals"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    values = {
        "reward": "aesthetic:z=w.json,device=cuda:1",
        "prompts": "p.txt",
        "held_out_prompts": "animals.txt",
        "model": "model/",
    }
    found = located(values | {"algorithm": "alg.py:Mine", "seed": 3})
    assert found == {
        "reward": f"aesthetic:z={tmp_path}/w.json,device=cuda:1",
        "prompts": f"{tmp_path}/p.txt",
        "held_out_prompts": "animals",
        "model": "model/",
        "algorithm": f"{tmp_path}/alg.py:Mine",
        "seed": 3,
    }


def test_a_moved_project_is_found_again(tmp_path: Path) -> None:
    before = {
        "reward": "/old/project/r.py:red + darkness",
        "prompts": "/old/project/lists/p.txt",
        "model": "/old/project/model",
    }
    (tmp_path / "lists").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "r.py").write_text("")
    (tmp_path / "lists" / "p.txt").write_text("")
    now = at_new_place(before, tmp_path / "runs" / "x", "/old/project/runs/x")
    assert now == {
        "reward": f"{tmp_path}/r.py:red + darkness",
        "prompts": f"{tmp_path}/lists/p.txt",
        "model": "/old/project/model",
    }
    assert missing_files(now) == {}  # the model is found by its own record
    assert (
        at_new_place(before, tmp_path / "elsewhere" / "runs" / "x" / "y", "/old/project/runs/x")
        == before
    )
    assert missing_files(before) == {
        "reward": "/old/project/r.py",
        "prompts": "/old/project/lists/p.txt",
    }
    assert at_new_place(before, tmp_path, None) == before


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("./r.py:red", "/x/r.py:red", True),
        ("./r.py:red:0.5 + darkness", "/x/q.py:red:0.5 + darkness", True),
        ("./r.py:red", "./r.py:blue", False),
        ("./r.py:red", "./r.py:red:0.5", False),
        ("darkness", "compressibility", False),
        ("./r.py:red:k=1", "./r.py:red:k=2", False),
    ],
)
def test_values_that_differ_in_paths_at_most(one: str, other: str, same: bool) -> None:
    assert same_but_for_paths("reward", one, other) is same


def test_replacing_asks_for_each_file_once() -> None:
    asked: list[str] = []
    replace_paths(
        "min(/a, b/r.py:f:x=w.pt, aesthetic:z=c.json:0.5)", lambda path: asked.append(path)
    )  # type: ignore[func-returns-value]
    assert asked == ["/a, b/r.py", "w.pt", "c.json:0.5", "c.json"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_found_in_either_unicode_form(tmp_path: Path, form: str) -> None:
    for name in ("é.txt", "Ü über.py", "한글.jsonl"):
        (tmp_path / unicodedata.normalize(form, name)).write_text("")
        for typed in ("NFC", "NFD"):
            assert named_path(unicodedata.normalize(typed, str(tmp_path / name))).is_file()
