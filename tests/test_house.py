"""Rules of the house that no linter checks."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from house_imports import circles
from house_source import dialect_of_text
from measure_house import house_at, listed

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ddpo"


@pytest.mark.parametrize("folder", ["ddpo", "tools", "examples"])
@pytest.mark.parametrize(
    "rule",
    [
        "over-100",
        "tuple-assignment",
        "nested-conditional",
        "fmt-skip",
        "complexity",
        "function-over-80",
        "file-over-400",
        "docstring-opening",
        "docstring-length",
        "dialect",
        "circle",
        "imports-over-20",
    ],
)
def test_every_file_keeps_the_rule(rule: str, folder: str) -> None:
    """`python tools/measure_house.py --list RULE FOLDER` prints the same places."""
    assert [str(place) for place in listed(rule, ROOT / folder)] == []


@pytest.mark.parametrize("rule", ["over-100", "tuple-assignment", "nested-conditional", "fmt-skip"])
def test_the_tests_keep_the_rules_of_the_lines(rule: str) -> None:
    assert [str(place) for place in listed(rule, ROOT / "tests")] == []


def test_the_documents_speak_the_language_of_the_field() -> None:
    texts = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    assert [str(place) for text in texts for place in dialect_of_text(text)] == []


def test_the_training_loop_is_short() -> None:
    """At most 15 imports of the project's modules, and no function over 40 lines."""
    loop = PACKAGE / "trainer" / "loop.py"
    assert len(house_at(PACKAGE).graph["ddpo.trainer.loop"]) <= 15
    assert list(listed("function-over-40", loop)) == []


def test_at_most_14_classes_stand_for_a_reward_in_some_state() -> None:
    assert len(list(house_at(PACKAGE).places("reward-class"))) <= 14


@pytest.mark.slow
def test_at_most_7_frames_lie_between_the_rollout_and_the_users_function() -> None:
    frames = list(house_at(ROOT).places("frame"))
    assert 1 <= len(frames) <= 7, frames


@pytest.mark.parametrize("room", ["ddpo.rewards", "ddpo.trainer", "ddpo.eval"])
def test_no_modules_of_a_room_import_each_other_in_a_ring(room: str) -> None:
    assert circles(house_at(PACKAGE).graph, room) == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def rooms(text: str) -> list[set[str]]:
    """The rooms that each line of a text names."""
    return [found for line in text.splitlines() if (found := set(re.findall(r"ddpo\.\w+", line)))]


def test_the_plan_of_the_rooms_names_each_one_on_its_floor() -> None:
    """The floors are those of the import contract; the plan may take several lines for one."""
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    plan = rooms(contributing.partition("## The rooms\n\n```")[2].partition("```")[0])
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    floors = [
        set(re.findall(r"ddpo\.\w+", floor))
        for floor in settings["tool"]["importlinter"]["contracts"][0]["layers"]
    ]
    modules = {
        f"ddpo.{path.stem}"
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set().union(*plan) == modules - {"ddpo.__init__", "ddpo.__main__"}
    places = [next(place for place, floor in enumerate(floors) if line & floor) for line in plan]
    assert places == sorted(places)
    assert all(line <= floors[place] for line, place in zip(plan, places, strict=True))


def test_the_files_at_which_to_begin_are_there() -> None:
    text = (
        (ROOT / "CONTRIBUTING.md")
        .read_text(encoding="utf-8")
        .partition("An evaluation begins at")[2]
        .partition("\nData go")[0]
    )
    named = re.findall(r"`(\w+)`", text)
    assert {"plan", "generate", "analysis", "report"} <= set(named)
    assert [
        name
        for name in named
        if not (PACKAGE / "eval" / f"{name}.py").exists() and not (PACKAGE / "eval" / name).is_dir()
    ] == []


def test_contributing_opens_with_where_to_go_and_is_short() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert text.startswith("# Contributing\n\n| to change | go to |\n")
    assert len(text.split()) <= 900


def test_each_walk_names_each_file_once() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    walks = [
        section
        for section in text.split("\n## ")
        if section.startswith(("One image", "One reward"))
    ]
    assert len(walks) == 2
    for walk in walks:
        named = re.findall(r"`(ddpo/[\w/]+\.py)`", walk)
        assert len(named) > 10
        assert len(named) == len(set(named))
        assert all((ROOT / name).is_file() for name in named)


def calls_of(source: str, name: str) -> list[ast.Call]:
    """The calls of a function, named as in the source, such as "torch.load"."""
    return [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name
    ]


def reads_pickles(source: str) -> bool:
    """Whether a module unpickles by itself, or loads with torch what may run code."""
    loads = calls_of(source, "torch.load")
    safe = [
        {word.arg: ast.unparse(word.value) for word in call.keywords}.get("weights_only") == "True"
        for call in loads
    ]
    names = ("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "dill.load")
    return not all(safe) or any(calls_of(source, name) for name in names)


def test_no_pickle_is_read_but_weights_alone() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert [str(path) for path, source in sources.items() if reads_pickles(source)] == []
    assert any(calls_of(source, "torch.load") for source in sources.values())
    assert reads_pickles("import torch\ntorch.load('x')")
    assert reads_pickles("import torch\ntorch.load('x', weights_only=False)")
    assert reads_pickles("import pickle\npickle.loads(b'x')")
    assert not reads_pickles("import torch\ntorch.load('x', weights_only=True)")
