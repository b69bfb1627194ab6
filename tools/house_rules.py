"""Rules of lines, statements, functions and docstrings, each as the places that break it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from house_source import Place, Source, dialect

FIRST_WORDS = ("What", "How", "Of", "Whether", "Which", "That")
MOST_COMPLEX = 12

Function = ast.FunctionDef | ast.AsyncFunctionDef


def wide(source: Source, columns: int) -> Iterator[Place]:
    """Lines over a number of columns."""
    for number, line in enumerate(source.lines, 1):
        if len(line) > columns:
            yield source.at(number, f"{len(line)} columns")


def is_order_bound(targets: ast.Tuple | ast.List, values: ast.Tuple) -> bool:
    """True for a swap and its like, where a later value reads an earlier target."""
    for place, value in enumerate(values.elts):
        read = {ast.unparse(node) for node in ast.walk(value) if isinstance(node, ast.expr)}
        if any(ast.unparse(target) in read for target in targets.elts[:place]):
            return True
    return False


def tuple_assignments(source: Source) -> Iterator[Place]:
    """`a, b = x, y`, unless it is a swap or holds a star."""
    for node in source.nodes:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
            continue
        for target in node.targets:
            if not isinstance(target, ast.Tuple | ast.List):
                continue
            parts = [*target.elts, *node.value.elts]
            starred = any(isinstance(part, ast.Starred) for part in parts)
            if not starred and not is_order_bound(target, node.value):
                yield source.at(node.lineno)


def nested_conditionals(source: Source) -> Iterator[Place]:
    """Conditional expressions inside another one, at any depth."""
    outer = (node for node in source.nodes if isinstance(node, ast.IfExp))
    inner = {id(n): n for node in outer for n in ast.walk(node) if n is not node}
    for node in inner.values():
        if isinstance(node, ast.IfExp):
            yield source.at(node.lineno)


def format_skips(source: Source) -> Iterator[Place]:
    """Comments that switch the formatter off."""
    for line, comment in source.comments:
        if re.match(r"#\s*fmt:\s*(skip|off)", comment):
            yield source.at(line)


def _branches(body: list[ast.stmt]) -> int:
    return sum(_branch(statement) for statement in body)


def _branch(node: ast.stmt) -> int:
    """Decision points of one statement, as ruff counts them for C901."""
    total = 0
    if isinstance(node, ast.If | ast.For | ast.AsyncFor | ast.While | Function):
        total += 1
    if isinstance(node, ast.Try | ast.TryStar):
        total += len(node.handlers) + bool(node.orelse)
        total += sum(_branches(handler.body) for handler in node.handlers)
    if isinstance(node, ast.Match):
        for case in node.cases:
            total += 1 + _branches(case.body)
        last = node.cases[-1]
        total -= isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
    if isinstance(node, ast.ClassDef):
        methods = [inner for inner in node.body if isinstance(inner, Function)]
        return sum(complexity(method) for method in methods)
    for name in ("body", "orelse", "finalbody"):
        total += _branches(getattr(node, name, []))
    return total


def complexity(function: Function) -> int:
    """McCabe's number of a function (T. J. McCabe, "A Complexity Measure", IEEE TSE 2(4), 1976)."""
    return 1 + _branches(function.body)


def complex_functions(source: Source) -> Iterator[Place]:
    """Functions whose complexity is over 12."""
    for node in source.functions:
        if (found := complexity(node)) > MOST_COMPLEX:
            yield source.at(node.lineno, f"{node.name}: complexity {found}")


def long_functions(source: Source, most: int) -> Iterator[Place]:
    """Functions over a number of lines, from `def` to the last one."""
    for node in source.functions:
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > most:
            yield source.at(node.lineno, f"{node.name}: {length} lines")


def riddles(source: Source) -> Iterator[Place]:
    """First docstring lines that open with What, How, Of, Whether, Which or That."""
    for node in source.docstrings:
        line = str(node.value).strip().partition("\n")[0]
        if re.match(rf"(?:{'|'.join(FIRST_WORDS)})\b", line):
            yield source.at(node.lineno, line)


def long_summaries(source: Source) -> Iterator[Place]:
    """First docstring lines of more than 100 characters."""
    for node in source.docstrings:
        line = str(node.value).strip().partition("\n")[0].strip()
        if len(line) > 100:
            yield source.at(node.lineno, f"{len(line)} characters")


def long_files(source: Source) -> Iterator[Place]:
    """Files of more than 400 lines."""
    if len(source.lines) > 400:
        yield source.at(1, f"{len(source.lines)} lines")


RULES: dict[str, Callable[[Source], Iterator[Place]]] = {
    "over-100": lambda source: wide(source, 100),
    "over-120": lambda source: wide(source, 120),
    "tuple-assignment": tuple_assignments,
    "nested-conditional": nested_conditionals,
    "fmt-skip": format_skips,
    "complexity": complex_functions,
    "function-over-40": lambda source: long_functions(source, 40),
    "function-over-80": lambda source: long_functions(source, 80),
    "file-over-400": long_files,
    "docstring-opening": riddles,
    "docstring-length": long_summaries,
    "dialect": dialect,
}
