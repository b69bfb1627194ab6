"""Objects of user code, loaded as `./file.py:Object`, `package.module:Object` or a registered name.

Each object comes with its origin, a line that changes with the code: "file.py sha256:…",
"package.module sha256:…", "ddpo", or a distribution and its version. The origin of a file that
depends on others in its folder ends with " files:…", which changes with them (see
`ddpo.source_files`).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

from ddpo.author_errors import author_error_as, author_line, author_place, authored_package
from ddpo.errors import RewardLoadError, UntrustedError
from ddpo.given import MODULE as GIVEN_MODULE
from ddpo.given import given
from ddpo.io.atomic import named_path
from ddpo.registry import Registry, explain_load_failure, nearest
from ddpo.source_files import module_files, source_files
from ddpo.user_modules import modules_beside
from ddpo.word_lists import words_of

__all__ = [
    "find",
    "forget_loaded_words",
    "is_user_code",
    "load_file",
    "load_object",
    "loaded_files",
    "names_code",
    "refuse_unnamed",
    "source_digest",
    "trust_options",
    "unnamed",
]

T = TypeVar("T")

CODE_FILE: Final = re.compile(r"(.+\.py)(?::([\w.]*))?", re.DOTALL)
CODE_MODULE: Final = re.compile(r"\w+(?:\.\w+)*:\w+(?:\.\w+)*")

_loaded: dict[Path, tuple[dict[str, str], ModuleType]] = {}
"""Path of a user's file → the files it depended on when it was run, and its module."""
_loaded_words: set[str] = set()
"""The words by which this process has loaded code, spelled with the real paths of files."""


def find(text: str, registry: Registry[T]) -> tuple[T | Any, str]:
    """The object named by `text`, and its origin.

    Args:
        text: A name of `registry`, `./file.py:Object` or `package.module:Object`. The type of an
            object from user code is not checked.
        registry: The registered names.

    Raises:
        UnknownNameError: There is no such name; the message suggests the nearest one.
        RewardLoadError: The file, module or plug-in is broken, or has no such object.
    """
    if text not in registry.entries():
        if found := CODE_FILE.fullmatch(text):
            return load_file(Path(found[1]), found[2] or "", registry.kind)
        if CODE_MODULE.fullmatch(text):
            module, _, attribute = text.partition(":")
            return load_object(module, attribute, registry.kind)
    return registry.get(text), registry.origin(text)


def names_code(word: str) -> bool:
    """True for `./file.py:Object` and `package.module:Object`, which run code when they are loaded.

    Registered names run code too, but of packages that the user has installed.
    """
    return bool(CODE_FILE.fullmatch(word) or CODE_MODULE.fullmatch(word))


def unnamed(words: Iterable[str], trusted: Iterable[str]) -> list[str]:
    """The words that the user did not name, each once.

    Objects that the running program gave, and code that it loaded before, count as named.

    Args:
        words: Code and addresses of servers, as a file names them.
        trusted: Words that the user named. A file may be spelled with another path.
    """
    known = {_spelled_out(word) for word in words_of("trust", trusted)} | _loaded_words
    return [
        word
        for word in dict.fromkeys(words)
        if _spelled_out(word) not in known and not word.startswith(f"{GIVEN_MODULE}:")
    ]


def forget_loaded_words() -> None:
    """Makes code count as named only when it is named again, as at the start of a program."""
    _loaded_words.clear()


def _spelled_out(word: str) -> str:
    """A word with the real path of its file."""
    found = CODE_FILE.fullmatch(word)
    if not found or "://" in word:
        return word.rstrip("/")
    return f"{os.path.realpath(named_path(found[1]))}:{found[2] or ''}"


def refuse_unnamed(file: Path, words: Iterable[str], trusted: Iterable[str]) -> None:
    """Refuses code and servers that only a file names: it may be somebody else's.

    Args:
        file: The file that names them.
        words: Code and addresses of servers in the file.
        trusted: Words that the user named.

    Raises:
        UntrustedError: The user did not name all of them; the message has the options that do.
    """
    if left := unnamed(words, trusted):
        names = " and ".join(map(repr, left))
        raise UntrustedError(
            f"{file} names {names}, which was neither run nor called; "
            f"if you have read it and trust it, add {trust_options(left)}"
        )


def trust_options(words: Iterable[str]) -> str:
    """The options of the command line that name code and servers of a file."""
    return " ".join(f"--trust {shlex.quote(word)}" for word in words)


def load_file(path: Path, attribute: str, kind: str = "reward") -> tuple[Any, str]:
    """Runs a Python file and returns one of its objects, with the origin "file.py sha256:…".

    The file may import modules of its own folder, whatever the working directory (see
    `ddpo.user_modules`). It runs once per process, and again when it or a file it depends on has
    changed.

    Args:
        path: Path of the Python file.
        attribute: Name of the object.
        kind: Word for the object in error messages.

    Raises:
        RewardLoadError: There is no such file or attribute, or the file raises at a named line.
    """
    path = named_path(path)
    try:
        source = path.read_bytes()
        files = source_files(path)
    except OSError as error:
        raise RewardLoadError(f"{kind} file {path}: {error.strerror or error}") from error
    place = path.resolve()
    known, module = _loaded.get(place, ({}, None))
    if module is None or known != files:
        module = _run_user_file(path, source, files, kind, again=module is not None)
        _loaded[place] = files, module
    if not attribute:
        own = [
            key
            for key, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__
        ]
        public = [key for key in own if not key.startswith("_")]
        example = public[0] if public else f"My{kind.capitalize()}"
        raise RewardLoadError(f"{kind} file {path}: say which object, such as {path}:{example}")
    found = _attribute(module, attribute, str(path))
    _loaded_words.add(_spelled_out(f"{path}:{attribute}"))
    return found, _origin(path.name, files)


def _origin(name: str, files: Mapping[str, str]) -> str:
    """The origin of code, from the hashes of its files with its own first."""
    own, *others = files.items()
    rest = f" files:{hashlib.sha256(repr(others).encode()).hexdigest()[:12]}" if others else ""
    return f"{name} sha256:{own[1][:12]}{rest}"


def is_user_code(origin: str) -> bool:
    """True for the origin of a user's file or module, not of a distribution or a server."""
    return " sha256:" in origin and not origin.startswith("server ")


def loaded_files(target: str, kind: str) -> dict[str, str]:
    """SHA-256 of the files that user code depends on, by relative path with its own file first.

    The result is empty for installed code.

    Args:
        target: Path of the file or dotted module name, as given to `load_file` or `load_object`.
        kind: "file" or "object".
    """
    try:
        if kind == "file":
            return source_files(named_path(target))
        found = sys.modules[target].__spec__
        return module_files(Path(found.origin), target) if found and found.origin else {}
    except (OSError, KeyError):
        return {}


def _run_user_file(
    path: Path, source: bytes, files: Mapping[str, str], kind: str, again: bool
) -> ModuleType:
    """The module of a file, run so that it finds its neighbours.

    Args:
        path: Path of the Python file.
        source: Its content.
        files: SHA-256 of the files it depends on, by relative path.
        kind: Word for the object in error messages.
        again: True if it was run before and depended on something else then.
    """
    module = modules_beside(path, files, again).module_for(path)
    name = module.__name__

    def failure(error: BaseException) -> RewardLoadError:
        sys.modules.pop(name, None)
        cause = explain_load_failure(error, name, "install it")
        place = author_place(error) or ""
        line = _line_in(error, str(path))
        if place and cause.startswith(f"{place}: ") and place.endswith(f"{path.name}{line}"):
            cause = cause.removeprefix(f"{place}: ")  # it is the file that is named already
        return RewardLoadError(f"{kind} file {path}{line}: {cause}")

    with author_error_as(failure):
        exec(compile(source, str(path), "exec"), vars(module))  # noqa: S102  # the user's own file
    return module


def _keep_importable(folder: str) -> None:
    """Makes a folder importable, last in `sys.path` so that it hides no package."""
    if folder not in sys.path:
        sys.path.append(folder)


def _line_in(error: BaseException, path: str) -> str:
    if isinstance(error, SyntaxError) and error.filename == path:
        return f":{error.lineno}"
    line = ""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line


def _attribute(module: ModuleType, attribute: str, where: str) -> Any:
    value: Any = module
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            public = [key for key in getattr(value, "__dict__", {}) if not key.startswith("_")]
            near = nearest(part, public)
            hint = f"; did you mean {near!r}?" if near else ""
            raise RewardLoadError(f"{where} has no {attribute!r}{hint}") from None
    return value


def load_object(module: str, attribute: str, kind: str = "reward") -> tuple[Any, str]:
    """The object `module:attribute`, with the origin "module sha256:…".

    Args:
        module: Dotted module name.
        attribute: Name of the object.
        kind: Word for the object in error messages.

    Raises:
        RewardLoadError: There is no such module or attribute, or the module raises.
    """
    if module == GIVEN_MODULE:
        return given(attribute)
    _reach_current_folder(module)
    authored_package(module)
    what = f"{kind} {module}:{attribute}"
    with author_error_as(lambda error: _import_failure(what, module, error)):
        imported = importlib.import_module(module)
    found = _attribute(imported, attribute, module)
    _loaded_words.add(f"{module}:{attribute}")
    if files := loaded_files(module, "object"):
        return found, _origin(module, files)
    digest = source_digest(module)
    origin = f"{module} sha256:{digest}" if digest else module
    return found, origin


def _import_failure(what: str, module: str, error: BaseException) -> RewardLoadError:
    """The error for a module that cannot be imported.

    Args:
        what: The object that is looked for in the module.
        module: Full name of the module.
        error: Exception of the import.
    """
    if not isinstance(error, ModuleNotFoundError):
        return RewardLoadError(f"{what} cannot be imported: {author_line(error)}")
    if error.name and (module == error.name or module.startswith(error.name + ".")):
        hint = "write a file as ./file.py:Attribute"
        return RewardLoadError(f"{what}: no module {error.name!r}; {hint}")
    return RewardLoadError(f"{what}: {explain_load_failure(error, module, 'install it')}")


def _reach_current_folder(module: str) -> None:
    """Lets `python -m ddpo` find a module of the current folder, which `ddpo.__main__` left out.

    The user named the module. The folder comes last in `sys.path`, so that it hides no package.
    """
    program = getattr(sys.modules.get("__main__"), "__spec__", None)
    top = module.partition(".")[0]
    if getattr(program, "name", "") != "ddpo.__main__" or sys.flags.safe_path:
        return
    if any(Path(name).exists() for name in (top, f"{top}.py")):
        _keep_importable(os.getcwd())


def source_digest(module: str) -> str:
    """The first twelve hexadecimal digits of the SHA-256 of a module's source; "" without a file.

    Only the packages around the module are imported. Modules that it imports do not count.
    """
    try:
        loaded = sys.modules.get(module)
        found = importlib.util.find_spec(module) if loaded is None else loaded.__spec__
        if not found or not found.origin:
            return ""
        return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()[:12]
    except (ImportError, AttributeError, ValueError, OSError):
        return ""
