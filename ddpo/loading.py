"""Objects that a user names by their place: `./file.py:Object` or `package.module:Object`; beside them the names of a registry.

Each comes with its origin, a line that changes when the code does: "file.py sha256:…", "package.module sha256:…", "ddpo", or a
distribution and its version.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ddpo.errors import RewardLoadError, one_line
from ddpo.registry import Registry, explain_load_failure, nearest

__all__ = ["find", "load_file", "load_object", "source_digest"]

T = TypeVar("T")


def find(text: str, registry: Registry[T]) -> tuple[T | Any, str]:
    """What `text` names, and its origin: a name of `registry`, `./file.py:Object`, or `package.module:Object` (not checked any further).

    Raises:
        UnknownNameError: no such name; says the nearest.
        RewardLoadError: the file, the module or the plug-in is broken, or has no such object.
    """
    if text not in registry.entries():
        if found := re.fullmatch(r"(.+\.py)(?::([\w.]+))?", text):
            return load_file(Path(found[1]), found[2] or "", registry.kind)
        if found := re.fullmatch(r"(\w+(?:\.\w+)*):(\w+(?:\.\w+)*)", text):
            return load_object(found[1], found[2], registry.kind)
    return registry.get(text), registry.origin(text)


def load_file(path: Path, attribute: str, kind: str = "reward") -> tuple[Any, str]:
    """Runs a Python file and returns one of its objects, and "file.py sha256:…" as its origin.

    Args:
        path: the file.
        attribute: name of the object.
        kind: the word for it in error messages.

    Raises:
        RewardLoadError: no such file or attribute, or the file raises; names the line.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise RewardLoadError(f"{kind} file {path}: {error.strerror or error}") from error
    digest = hashlib.sha256(source).hexdigest()
    name = f"ddpo_user_{path.stem}_{digest[:16]}"
    module = sys.modules.get(name) or _execute(name, path, source, kind)
    if not attribute:
        found = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == name and not key.startswith("_")]
        raise RewardLoadError(f"{kind} file {path}: say which object, such as {path}:{found[0] if found else f'My{kind.capitalize()}'}")
    return _attribute(module, attribute, str(path)), f"{path.name} sha256:{digest[:12]}"


def _execute(name: str, path: Path, source: bytes, kind: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and pickle look the module of a class up by its name
    try:
        exec(compile(source, str(path), "exec"), vars(module))  # noqa: S102  # the user asks for this file to be run
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = _line_in(error, str(path))
        raise RewardLoadError(f"{kind} file {path}{line}: {explain_load_failure(error, name, 'install it')}") from error
    return module


def _line_in(error: BaseException, path: str) -> str:
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    line, trace = "", error.__traceback__
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
            near = nearest(part, [key for key in vars(value) if not key.startswith("_")]) if hasattr(value, "__dict__") else None
            raise RewardLoadError(f"{where} has no {attribute!r}" + (f"; did you mean {near!r}?" if near else "")) from None
    return value


def load_object(module: str, attribute: str, kind: str = "reward") -> tuple[Any, str]:
    """The object `module:attribute`, and "module sha256:…" as its origin; `kind` is the word for it in error messages.

    Raises:
        RewardLoadError: no such module or attribute, or the module raises.
    """
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            hint = "a file is named as ./file.py:Attribute"
            raise RewardLoadError(f"{kind} {module}:{attribute}: no module {error.name!r}; {hint}") from error
        raise RewardLoadError(f"{kind} {module}:{attribute}: {explain_load_failure(error, module, 'install it')}") from error
    except (Exception, SystemExit) as error:
        raise RewardLoadError(f"{kind} {module}:{attribute} cannot be imported: {one_line(error)}") from error
    digest = source_digest(module)
    return _attribute(imported, attribute, module), f"{module} sha256:{digest}" if digest else module


def source_digest(module: str) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a module's source file; "" if it has none.

    The module itself is not imported, only the packages that it lies in. Modules that it imports do not count.
    """
    try:
        loaded = sys.modules.get(module)
        found = importlib.util.find_spec(module) if loaded is None else loaded.__spec__
        return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()[:12] if found and found.origin else ""
    except (ImportError, AttributeError, ValueError, OSError):
        return ""
