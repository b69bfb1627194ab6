"""Python sources as text, syntax tree and prose, for the rules of `measure_house.py`."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

DIALECT: dict[str, str] = {
    r"pictur(?:es?|ed)": "image",
    r"(?:go|goes|going|gone|went) on(?! (?:the|a|an|its|their|to) )": "resume, continue",
    r"told": "reported, given",
    r"else than": "other than",
    r"begun": "started",
    r"(?<!of )(?<!the )(?<!due )courses?|(?<!over )(?<!in )(?<!during )the courses?": "run history",
    r"asking(?! (?:the|an?|for|its?|about) )": "querying, VLM",
    r"(?:the|in|its) keeping|keeping (?:of|and)": "retention",
    r"(?:draw|draws|drew|drawing) (?!of )(?:[\w-]+ ){0,2}(?:images?|pictures?)": "sample",
    r"(?:images?|pictures?) (?:[\w-]+ ){0,2}drawn": "sampled",
    r"(?:the|and|while|when|before|after) drawing(?! (?:an?|the|its|lines?|text) )": "sampling",
    r"(?:the|and|while|when|before|after) describing(?! (?:an?|the|its|how) )": "probing",
    r"remark(?:s|ed)?": "warning, note",
    r"readings|(?:the|an?|its|each|every|one) reading(?! (?:of|the|room|order))": "assessment",
    r"in pieces|pieces? of (?:a|an|the) (?:batch|rollout|result)": "chunks, results",
    r"steady(?![ -]state)": "stable, outage-aware",
    r"what became of": "results of",
}
"""Pattern of a dialect word → the word of the field; lookarounds allow plain English."""

_DIALECT = re.compile(r"\b(?:" + "|".join(DIALECT) + r")\b", re.IGNORECASE)
_NO_PROSE = re.compile(
    r"`[^`]*`"  # code
    r"|\"[^\"\n]*\"|“[^”\n]*”|(?<!\w)'[^'\n]+'(?!\w)"  # quoted words, titles, values of settings
    r"|</?[a-zA-Z][^>]*>|\{[^{}]*\}"  # markup and its styles, fields of a template
    r"|https?://\S+|--[\w-]+|(?<![\w.])\.{0,2}/[\w./-]+"  # addresses, options, paths
    r"|[.#][A-Za-z][\w-]*"  # selectors of a stylesheet
    r"|[\w/-]+\.\w+(?:\.\w+)*|\b\w*_\w*\b"  # file and module names, identifiers
)
_ARGUMENT = re.compile(r"(?m)^(\s+)\*{0,2}\w+(?: \([^)\n]*\))?:")
_NO_SENTENCES = re.compile(r"(?:PROMPT|QUESTION|INSTRUCTION|CAPTION)S?$|^__all__$")


@dataclass(frozen=True)
class Place:
    """One finding: a file, a 1-based line and the text that was found."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


class Source:
    """One Python file, parsed once."""

    def __init__(self, path: Path, text: str | None = None) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8") if text is None else text
        self.lines = self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def comments(self) -> list[tuple[int, str]]:
        """Line number and text of each comment."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return [(t.start[0], t.string) for t in tokens if t.type == tokenize.COMMENT]

    @cached_property
    def docstrings(self) -> list[ast.Constant]:
        """The docstrings of the module, its classes, its functions and its constants."""
        found = []
        for node in self.nodes:
            value = node.value if isinstance(node, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.append(value)
        return found

    @property
    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """The functions and methods, nested ones too."""
        for node in self.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def at(self, line: int, text: str = "") -> Place:
        """The place of a finding; its source line if no text is given."""
        return Place(self.path, line, text or self.lines[line - 1].strip())


def sentences(source: Source) -> Iterator[ast.Constant]:
    """String literals that a person reads: they hold a space or open with a capital.

    Docstrings, the names in `__all__` and raw strings, which are patterns, are left out. So is text
    for a model: constants such as QUESTION, and those that hold "{prompt}".
    """
    skipped = {id(node) for node in source.docstrings}
    for node in source.nodes:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        literal = getattr(getattr(node, "value", None), "value", "")
        for_model = bool(names) and isinstance(literal, str) and "{prompt}" in literal
        if for_model or any(_NO_SENTENCES.search(name) for name in names):
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in source.nodes:
        if id(node) in skipped or not isinstance(node, ast.Constant):
            continue
        text = node.value
        if isinstance(text, str) and re.search(r"^\s*[A-Z]|\w\s|\s\w", text):
            start = source.lines[node.lineno - 1].encode()[node.col_offset :]
            if not re.match(rb"[fF]?[rR]", start):
                yield node


def prose_of(text: str) -> str:
    """The text with code, quotations, markup, paths and identifiers blanked, line by line."""
    return _NO_PROSE.sub(lambda found: re.sub(r"[^\n]", "·", found[0]), text)


def dialect_words(text: str) -> list[tuple[int, str]]:
    """Words of the dialect in a text: 0-based line and word."""
    prose = prose_of(text)
    return [(prose.count("\n", 0, m.start()), m[0]) for m in _DIALECT.finditer(prose)]


def dialect(source: Source) -> Iterator[Place]:
    """Words of the dialect in docstrings, comments and sentences."""
    for line, comment in source.comments:
        yield from (source.at(line, f"{word!r} in a comment") for _, word in dialect_words(comment))
    for node in source.docstrings:
        text = _ARGUMENT.sub(r"\1", str(node.value))
        for offset, word in dialect_words(text):
            yield source.at(node.lineno + offset, f"{word!r} in a docstring")
    for node in sentences(source):
        for _, word in dialect_words(str(node.value)):
            yield source.at(_line_of(word, node, source), f"{word!r} in a string")


def _line_of(word: str, node: ast.Constant, source: Source) -> int:
    """The first line of a string over several lines that holds a word outside of a field."""
    for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
        if word in re.sub(r"\{[^{}]*\}", "", source.lines[line - 1]):
            return line
    return node.lineno


def dialect_of_text(path: Path) -> Iterator[Place]:
    """Words of the dialect in a Markdown file, a template or a stylesheet; fenced code is code."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"(?ms)^\s*```.*?^\s*```", lambda found: "\n" * found[0].count("\n"), text)
    for offset, word in dialect_words(text):
        yield Place(path, offset + 1, f"{word!r}")


def excluded_paths(folder: Path) -> list[Path]:
    """The paths in ruff's `extend-exclude`, of the nearest pyproject.toml at or above a folder."""
    for parent in (folder, *folder.parents):
        settings = parent / "pyproject.toml"
        if settings.is_file():
            tools = tomllib.loads(settings.read_text(encoding="utf-8")).get("tool", {})
            return [parent / name for name in tools.get("ruff", {}).get("extend-exclude", [])]
    return []


def files_at(root: Path) -> list[Path]:
    """The files at or below a path, in order; files that ruff leaves out below it are left out."""
    if root.is_file():
        return [root]
    whole = root.resolve()
    excluded = {
        root / path.relative_to(whole) for path in excluded_paths(whole) if whole in path.parents
    }
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and excluded.isdisjoint((path, *path.parents))
    )


def python_files(root: Path) -> list[Path]:
    """The Python files at or below a path, in order."""
    return [path for path in files_at(root) if path.suffix == ".py"]


def package_of(path: Path) -> Path:
    """The package of a checkout; the path itself if it is a package or holds none."""
    if path.is_file() or (path / "__init__.py").exists():
        return path
    others = {"tests", "docs", "examples", "tools", "test", "benchmarks"}
    for folder in (path, path / "src"):
        found = [file.parent for file in sorted(folder.glob("*/__init__.py"))]
        found = [package for package in found if package.name not in others]
        if found:
            return found[0]
    return path
