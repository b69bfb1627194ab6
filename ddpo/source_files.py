"""The files that a user's Python file depends on in its own folder: modules that it imports, data files that it names.

They are found by reading the code, not by running it, so that they are known before the first call:

- modules of the same folder, or of folders that the code names, however deep they import each other;
- files whose names stand in the code as texts, alone or joined, with `*` or a formatted part; files that a JSON, TOML, YAML or INI
  file among them names. Files that the code only writes do not count.

A name that the code computes in another way is not found.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

__all__ = ["is_installed", "module_files", "source_files"]

SETTINGS: Final = (".json", ".toml", ".yaml", ".yml", ".ini", ".cfg")
"""Suffixes of data files that may name further files."""
LONGEST_NAME: Final = 200  # characters; a longer text is not taken for a file name
LARGEST_SETTINGS: Final = 65_536  # bytes of a settings file that is searched for names
MOST_MATCHES: Final = 200  # files of one pattern
WRITERS: Final = frozenset(
    {
        "write_text",
        "write_bytes",
        "touch",
        "unlink",
        "mkdir",
        "save",
        "save_file",
        "savez",
        "dump",
        "to_csv",
    }
)
"""Names of functions that write the file that they are given."""


def source_files(source: Path, root: Path | None = None) -> dict[str, str]:
    """SHA-256 of a Python file, which comes first, and of the files of its folder that it depends on, by relative path.

    Args:
        source: the Python file.
        root: the folder from which its absolute imports start; None for its own.

    Raises:
        OSError: `source` cannot be read.
    """
    source = source.absolute()
    folder = source.parent if root is None else root.absolute()
    found = {source: _digest(source)}
    waiting = [*_referenced(source, folder)]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        try:
            found[path] = _digest(path)
        except OSError:
            continue  # unreadable now; opening it is the code's own business
        waiting += _referenced(path, folder)
    first, *others = found
    return {os.path.relpath(path, folder): found[path] for path in (first, *sorted(others))}


def module_files(origin: Path, module: str) -> dict[str, str]:
    """As `source_files`, for an imported module by its file and its dotted name; empty for an installed package."""
    if is_installed(origin):
        return {}
    depth = module.count(".") + (origin.name == "__init__.py")
    return source_files(origin, origin.absolute().parents[depth])


def is_installed(path: Path) -> bool:
    """True if a file belongs to an installed package or to Python itself, whose versions are recorded elsewhere."""
    resolved = path.resolve()
    here = Path(__file__).resolve().parent
    library = Path(os.__file__).resolve().parent
    return bool({"site-packages", "dist-packages"} & set(resolved.parts)) or any(
        place in resolved.parents for place in (here, library)
    )


def _digest(path: Path) -> str:
    state = path.stat()
    return _digest_of(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


@lru_cache(maxsize=4096)
def _digest_of(path: Path, *state: int) -> str:
    """The digest of a file in a known state, so that large weights are read once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _referenced(path: Path, folder: Path) -> Iterator[Path]:
    """The files that one file imports or names directly."""
    if path.suffix == ".py":
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            return
        names = _file_names(tree)
        places = _folders((folder, path.parent), names)
        yield from _named(places, names)
        for package, parts in _imports(tree):
            bases = places if package == 0 else [path.parents[package - 1]]
            for base in bases:
                yield from _modules(base, parts)
    elif path.suffix in SETTINGS and path.stat().st_size <= LARGEST_SETTINGS:
        text = path.read_text(encoding="utf-8", errors="replace")
        names = {name.strip() for name in re.findall(r"[^\s\"'=:,\[\]{}]+", text)} | set(
            re.findall(r"[\"']([^\"'\n]+)[\"']", text)
        )
        yield from _named(_folders((folder, path.parent), names), names)


def _imports(tree: ast.AST) -> Iterator[tuple[int, list[str]]]:
    """Level (0: absolute) and dotted parts of every module that the code may import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            yield node.level, parts
            yield from (
                (node.level, [*parts, alias.name]) for alias in node.names if alias.name != "*"
            )
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            yield from (
                (0, text.split("."))
                for text in _texts(node)
                if text.replace(".", "").isidentifier()
            )


def _modules(base: Path, parts: list[str]) -> Iterator[Path]:
    """The files of a dotted module below `base`, those of the packages around it included; nothing if it lies elsewhere."""
    place = base
    for part in parts:
        module, package = place / f"{part}.py", place / part
        if (package / "__init__.py").is_file():
            yield package / "__init__.py"
        elif module.is_file():
            yield module
        if not package.is_dir():
            return
        place = package


def _called(node: ast.Call) -> str:
    function = node.func
    return (
        function.attr
        if isinstance(function, ast.Attribute)
        else function.id
        if isinstance(function, ast.Name)
        else ""
    )


def _texts(node: ast.AST) -> Iterator[str]:
    """The texts below a node; a formatted one with `*` in place of what is filled in."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(
            str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values
        )
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from _texts(child)


def _file_names(tree: ast.AST) -> set[str]:
    """The texts of the code that may name files which it reads."""
    written: set[str] = set()
    targets: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _writes(node):
            written |= set(_texts(node))
            targets |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id in targets for target in node.targets
        ):
            written |= set(_texts(node.value))
    return {text for text in _texts(tree) if _is_name(text)} - written


def _writes(node: ast.Call) -> bool:
    """True if a call writes a file: `open` with such a mode, or a function that is known to write."""
    if _called(node) != "open":
        return _called(node) in WRITERS
    modes = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
    texts = [
        mode.value
        for mode in modes
        if isinstance(mode, ast.Constant) and isinstance(mode.value, str)
    ]
    return any(re.fullmatch(r"[rwaxbt+U]{1,4}", text) and set(text) & set("wax+") for text in texts)


def _is_name(text: str) -> bool:
    return (
        0 < len(text) <= LONGEST_NAME
        and text.strip("./*") != ""
        and "\n" not in text
        and "\0" not in text
    )


def _folders(bases: Iterable[Path], names: set[str]) -> list[Path]:
    """The folders in which named files are looked for: `bases`, and folders below them that are named themselves."""
    found = list(dict.fromkeys(bases))
    plain = [name for name in names if "*" not in name and not name.startswith(("/", "~"))]
    for place in found:  # which grows
        for name in plain:
            below = place / name
            if ".." not in below.parts and _is_dir(below) and below not in found:
                found.append(below)
    return found


def _named(places: Iterable[Path], names: set[str]) -> Iterator[Path]:
    """The files that are there under a name or a pattern."""
    for place in places:
        for name in names:
            if "*" not in name:
                path = place / os.path.expanduser(name)
                if _is_file(path):
                    yield path
            elif "." in name and "**" not in name and len(name.replace("*", "")) > 2:
                yield from [
                    path for path in sorted(place.glob(name.lstrip("/"))) if _is_file(path)
                ][:MOST_MATCHES]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
