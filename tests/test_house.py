"""Rules of the house that no linter checks."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ddpo"


def test_no_function_is_longer_than_80_lines() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > 80
    ]
    assert found == []


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
    """The floors are those of the import contract, from top to bottom; the plan may take several lines for one of them."""
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
    assert {"planning", "drawing", "scoring", "analysis", "render"} <= set(named)
    assert [
        name
        for name in named
        if not (PACKAGE / "eval" / f"{name}.py").exists() and not (PACKAGE / "eval" / name).is_dir()
    ] == []


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
