"""The files that a Python file depends on in its folder: imported modules and named data files.

The code is read and not run, so that the files are known before the first call. They are:

- modules of the same folder, or of folders named in the code, to any depth of imports;
- files whose names appear in the code as strings, with `*` for a formatted part;
- files named by a JSON, TOML, YAML or INI file among them.

Files that the code only writes do not count. Names computed in any other way are not found.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from itertools import islice
from pathlib import Path
from typing import Final

__all__ = ["is_installed", "module_files", "source_files"]

SETTINGS: Final = (".json", ".toml", ".yaml", ".yml", ".ini", ".cfg")
"""Suffixes of data files that may name further files."""
LONGEST_NAME: Final = 200  # characters; a longer string is no file name
LARGEST_SETTINGS: Final = 65_536  # bytes; a larger settings file is not searched for names
MOST_MATCHES: Final = 200  # files per pattern
WRITERS: Final = frozenset(
    (
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
    )
)
"""Names of functions that write the file in their arguments."""


def source_files(source: Path, root: Path | None = None) -> dict[str, str]:
    """SHA-256 of a Python file, which comes first, and of its dependencies, by relative path.

    Args:
        source: Path of the Python file.
        root: Folder from which its absolute imports start; None for its own folder.

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
            continue  # unreadable; the code itself reports it when it opens the file
        waiting += _referenced(path, folder)
    first, *others = found
    return {os.path.relpath(path, folder): found[path] for path in (first, *sorted(others))}


def module_files(origin: Path, module: str) -> dict[str, str]:
    """As `source_files`, for an imported module; empty for an installed package.

    Args:
        origin: Path of the module's file.
        module: Dotted name of the module.
    """
    if is_installed(origin):
        return {}
    depth = module.count(".") + (origin.name == "__init__.py")
    return source_files(origin, origin.absolute().parents[depth])


def is_installed(path: Path) -> bool:
    """True if a file belongs to Python or an installed package, recorded elsewhere by version."""
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
    """The digest of a file, cached by its state so that large weights are read once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _referenced(path: Path, folder: Path) -> Iterator[Path]:
    """The files that one file imports or names directly."""
    if path.suffix == ".py":
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
            return  # the code itself reports it when it runs
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
    """Level (0: absolute) and dotted parts of every module the code may import."""
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
                for text in map(_below_package, _texts(node))
                if text.replace(".", "").replace("*", "_").isidentifier()
            )


def _below_package(text: str) -> str:
    """The name of a module without dots and a replacement field for its package before it."""
    return re.sub(r"^\*?\.+", "", text)


def _modules(base: Path, parts: list[str]) -> Iterator[Path]:
    """The files of a dotted module below `base` and of its parent packages; none if not there.

    A part may be a pattern, as for `import_module(f"judges.{name}")`.
    """
    place = base
    for part in parts:
        if "*" in part:
            if part.strip("*") or place != base:
                yield from islice(filter(_is_file, sorted(place.glob(f"{part}.py"))), MOST_MATCHES)
            return
        package = place / part
        if (package / "__init__.py").is_file():
            yield package / "__init__.py"
        else:
            names = (f"{part}{suffix}" for suffix in (".py", *EXTENSION_SUFFIXES))
            yield from islice(filter(_is_file, (place / name for name in names)), 1)
        if not package.is_dir():
            return
        place = package


def _called(node: ast.Call) -> str:
    """The name of the called function, without its module or object; "" for an expression."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _texts(node: ast.AST) -> Iterator[str]:
    """The strings below a node, with `*` for each replacement field of an f-string."""
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
    """The strings of the code that may name files it reads."""
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
    """True if a call writes a file: `open` in a writing mode, or a function of `WRITERS`."""
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
    """The folders to search for named files: `bases`, and folders below them that are named too."""
    found = list(dict.fromkeys(bases))
    plain = [name for name in names if "*" not in name and not name.startswith(("/", "~"))]
    for place in found:  # the list grows in the loop
        for name in plain:
            below = place / name
            if ".." not in below.parts and _is_dir(below) and below not in found:
                found.append(below)
    return found


def _named(places: Iterable[Path], names: set[str]) -> Iterator[Path]:
    """The existing files with one of the names or patterns."""
    for place in places:
        for name in names:
            if "*" not in name:
                path = place / os.path.expanduser(name)
                if _is_file(path):
                    yield path
            elif "." in name and "**" not in name and len(name.replace("*", "")) > 2:
                matches = filter(_is_file, sorted(place.glob(name.lstrip("/"))))
                yield from islice(matches, MOST_MATCHES)


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
