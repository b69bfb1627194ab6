"""Imports between the modules of a package, their circles, and the classes of a reward's states."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from house_source import Place, Source

Graph = Mapping[str, set[str]]

REWARD_SEEDS = frozenset({"RewardSpec", "RewardCard", "Reward", "RewardOutput"})
BEYOND_A_REWARD = frozenset({"Policy", "TrainablePolicy", "Trajectory", "Rollout", "RunFolder"})
REWARD_MODELS = ("ddpo.rewards.models", "ddpo.rewards.vlm")
LOOP = "ddpo.trainer.loop"
RUNNERS = ("ddpo.eval.runner", "ddpo.eval.runner")


def module_name(file: Path, root: Path) -> str:
    """The dotted name of a file of the package at `root`."""
    inner = file.relative_to(root.parent) if root.is_dir() else Path(file.name)
    parts = inner.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _type_checking(source: Source) -> set[int]:
    """Ids of the nodes that only a type checker sees."""
    found = set()
    for node in source.nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            found |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
    return found


def imported(source: Source, name: str, known: set[str]) -> set[str]:
    """The modules among `known` that a module imports, within functions too, not for types alone.

    Args:
        source: The module.
        name: Its dotted name.
        known: All modules of the project.
    """
    found = set()
    skipped = _type_checking(source)
    is_package = source.path.name == "__init__.py"
    for node in source.nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".")
            base = base[: len(base) - node.level + is_package] if node.level else []
            target = ".".join([*base, node.module] if node.module else base)
            for alias in node.names:
                inner = f"{target}.{alias.name}"
                found.add(inner if inner in known else target)
    return (found & known) - {name}


def import_graph(sources: Mapping[str, Source]) -> dict[str, set[str]]:
    """Module → the modules of the project that it imports."""
    known = set(sources)
    return {name: imported(source, name, known) for name, source in sources.items()}


def circles(graph: Graph, within: str = "") -> list[list[str]]:
    """Groups of modules that import each other in a ring: strongly connected, more than one.

    Args:
        graph: Imports of all modules.
        within: Only modules at or below this one are looked at; all if empty.
    """
    names = [n for n in sorted(graph) if not within or f"{n}.".startswith(f"{within}.")]
    allowed = set(names)
    reach = {name: _reachable(graph, name, allowed) for name in names}
    found = []
    seen: set[str] = set()
    for name in names:
        ring = sorted(other for other in reach[name] if name in reach[other])
        if name in ring and name not in seen and len(ring) > 1:
            found.append(ring)
            seen |= set(ring)
    return found


def _reachable(graph: Graph, start: str, allowed: set[str]) -> set[str]:
    """The modules that can be reached from one by one import or more."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = (graph[waiting.pop()] & allowed) - found
        found |= new
        waiting += new
    return found


def fan_out(graph: Graph, *names: str) -> int:
    """The number of project modules that the first known of `names` imports; 0 without one."""
    return next((len(graph[name]) for name in names if name in graph), 0)


def wide_imports(sources: Mapping[str, Source], graph: Graph, most: int) -> Iterator[Place]:
    """Modules that import more than a number of others."""
    for name, targets in graph.items():
        if len(targets) > most:
            yield sources[name].at(1, f"{name} imports {len(targets)} modules")


def _annotations(node: ast.ClassDef) -> Iterator[ast.expr]:
    """The annotations of a class's fields and of its constructor's parameters."""
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign):
            yield statement.annotation
        elif isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            arguments = statement.args
            for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
                if argument.annotation is not None:
                    yield argument.annotation
            for inner in ast.walk(statement):
                if isinstance(inner, ast.AnnAssign):
                    yield inner.annotation


def _held(node: ast.ClassDef) -> set[str]:
    """Names of the classes in a class's fields and constructor parameters."""
    texts = [ast.unparse(annotation) for annotation in _annotations(node)]
    return {name for text in texts for name in re.findall(r"\b[A-Z]\w+", text)}


def _loaded(source: Source, known: set[str]) -> set[str]:
    """The modules that a module names in strings like "package.module:Class"."""
    constants = [node.value for node in source.nodes if isinstance(node, ast.Constant)]
    texts = [value for value in constants if isinstance(value, str)]
    return {text.partition(":")[0] for text in texts if re.fullmatch(r"[\w.]+:\w+", text)} & known


def _is_reward(node: ast.ClassDef) -> bool:
    """True for a class with `__call__(…) -> RewardOutput`."""
    return any(
        isinstance(method, ast.FunctionDef)
        and method.name == "__call__"
        and method.returns is not None
        and ast.unparse(method.returns).strip("'\"") == "RewardOutput"
        for method in node.body
    )


def reward_classes(sources: Mapping[str, Source], graph: Graph) -> list[Place]:
    """Public classes that stand for a reward in some state between `--reward SPEC` and its scores.

    The rule looks at `ddpo.types` and the modules of `ddpo.rewards` and `ddpo.trainer`.
    Of them it takes those that the training loop reaches by imports and "module:Class" strings.
    The reward models themselves are left out. A class counts if

    - it is RewardSpec, RewardCard, Reward or RewardOutput, or the class of one of a card's fields;
    - it is called with images and returns a RewardOutput;
    - or a field or constructor parameter of it is annotated with a class that counts, and none with
      a denoiser, a trajectory or a run folder.
    """
    nodes: dict[str, ast.ClassDef] = {}
    where: dict[str, Source] = {}
    allowed = {name for name in graph if not name.startswith(REWARD_MODELS)}
    loaded = {name: graph[name] | _loaded(sources[name], allowed) for name in allowed}
    for name in sorted(_reachable(loaded, LOOP, allowed)):
        if name.startswith(("ddpo.rewards", "ddpo.trainer")) or name == "ddpo.types":
            for node in sources[name].nodes:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    nodes[node.name] = node
                    where[node.name] = sources[name]
    counted = {n for n, node in nodes.items() if n in REWARD_SEEDS or _is_reward(node)}
    if "RewardCard" in nodes:
        counted |= _held(nodes["RewardCard"]) & set(nodes)
    while True:
        new = {name for name, node in nodes.items() if _holds_a_reward(node, counted)} - counted
        if not new:
            return [where[name].at(nodes[name].lineno, name) for name in sorted(counted)]
        counted |= new


def _holds_a_reward(node: ast.ClassDef, counted: set[str]) -> bool:
    held = _held(node)
    return bool(held & counted) and not held & BEYOND_A_REWARD
