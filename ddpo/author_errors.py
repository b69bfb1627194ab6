"""The place in an author's code at which an exception was raised, such as "my_reward.py:12".

Authors are those of user files, notebook cells and plug-in packages. The loaders of such code call
`authored_folder`, `authored_package` and `authored_file`. The traceback of each exception that
becomes one line is logged by the logger "ddpo.author_errors" at the level DEBUG.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

from ddpo.errors import INTERRUPTS, DdpoError, UserCodeFailure, UserError, one_line
from ddpo.text import printable, shortened, without_controls

__all__ = [
    "author_error_as",
    "author_failure",
    "author_line",
    "author_place",
    "authored_file",
    "authored_folder",
    "authored_package",
    "definition_place",
    "plain_module_names",
]

log = logging.getLogger(__name__)

USER_MODULE: Final = "ddpo_user_"
"""Start of the names under which user files are loaded."""
ROOT_NAME: Final = re.compile(rf"\b{USER_MODULE}[0-9a-f]+_[0-9]+\.")
"""The root of such a name, such as "ddpo_user_1f0c_1.", which no author has written."""
OWN_FOLDER: Final = Path(__file__).parent
LIBRARIES: Final = ("site-packages", "dist-packages")
STANDARD_LIBRARY: Final = Path(os.__file__).parent
CELLS: Final = ("<", "ipykernel_")
"""Parts of the file names that interactive Python gives to its input."""

LONGEST_NOTE: Final = 300  # characters
CALL: Final = "__call__"

_folders: set[Path] = set()
_packages: set[str] = set()
_files: set[str] = set()


def authored_folder(folder: Path) -> None:
    """Makes the files in a folder an author's code, except for libraries installed in it."""
    _folders.add(folder.resolve())


def authored_package(module: str) -> None:
    """Makes the top-level package of a module an author's code."""
    top = module.partition(".")[0]
    if top != "ddpo":
        _packages.add(top)


def authored_file(name: str) -> None:
    """Makes a file an author's code.

    Args:
        name: File name of compiled code, `co_filename`.
    """
    if OWN_FOLDER not in Path(name).parents:
        _files.add(name)


def author_place(error: BaseException) -> str | None:
    """File and line of the innermost statement of an author's code; None if there is none."""
    if isinstance(error, SyntaxError) and error.filename and _is_authored(error.filename, ""):
        return f"{_shown(error.filename)}:{error.lineno}"
    found = None
    for frame, line in _frames(error):
        name = frame.f_code.co_filename
        if _is_authored(name, str(frame.f_globals.get("__name__", ""))):
            found = f"{_shown(name, str(frame.f_globals.get('__name__', '')))}:{line}"
    return found


def author_line(error: BaseException) -> str:
    """The message of an exception on one line, preceded by its place in an author's code.

    Messages that are addressed to users, those of `UserError`, have no place. The traceback is
    logged.
    """
    log.debug("%s", type(error).__name__, exc_info=error)
    place = None if isinstance(error, UserError) else author_place(error)
    line = _of_syntax(error) if isinstance(error, SyntaxError) and place else one_line(error)
    notes = [shortened(str(note), LONGEST_NOTE) for note in getattr(error, "__notes__", ())]
    line = plain_module_names("; ".join([line, *notes]))
    return f"{place}: {line}" if place else line


def _of_syntax(error: SyntaxError) -> str:
    """The message of a syntax error with the column and the text of its line."""
    written = error.text or ""
    column = max(1, (error.offset or 0) - len(written) + len(written.lstrip()))
    where = f" (column {column} of {shortened(written)!r})" if written.strip() else ""
    return f"{type(error).__name__}: {without_controls(error.msg)}{where}"


def plain_module_names(text: str) -> str:
    """A text with the modules of user files as their author calls them."""
    return ROOT_NAME.sub("", text)


@contextmanager
def author_error_as(
    make: Callable[[BaseException], Exception],
    passing: tuple[type[BaseException], ...] = (),
) -> Iterator[None]:
    """A block that runs an author's code, which may raise anything.

    Args:
        make: Function from the exception to the error that is raised in its place.
        passing: Exceptions that leave the block as they are, besides interrupts.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, (*passing, *INTERRUPTS)):
            raise
        raise make(error) from error


def author_failure(error: BaseException) -> UserCodeFailure | None:
    """The one-line error for an exception of an author's code; None for any other exception."""
    if isinstance(error, DdpoError) or author_place(error) is None:
        return None
    return UserCodeFailure(author_line(error))


def definition_place(found: Any) -> str | None:
    """File and first line of a function, or of the method by which an object is called.

    None if the function is not an author's.
    """
    code = _code_of(found)
    module = str(getattr(found, "__module__", ""))
    if code is None or not _is_authored(code.co_filename, module):
        return None
    return f"{_shown(code.co_filename, module)}:{code.co_firstlineno}"


def _code_of(found: Any) -> CodeType | None:
    for _ in range(8):  # decorators and partials
        inner = getattr(found, "__wrapped__", None) or getattr(found, "func", None)
        if inner is None:
            break
        found = inner
    if not hasattr(found, "__code__"):
        found = getattr(type(found), CALL, None)
    code = getattr(found, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """The frames of an exception with their lines, the innermost last."""
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _is_authored(file: str, module: str) -> bool:
    """True for an author's code.

    Args:
        file: File name of the code.
        module: Name of its module; "" if it is not known.
    """
    if module.startswith(USER_MODULE) or file in _files:
        return True
    top = module.partition(".")[0]
    if top == "ddpo":
        return False
    if top in _packages:
        return True
    if not _folders or file.startswith("<"):
        return False
    path = Path(os.path.realpath(file))
    if OWN_FOLDER in path.parents or STANDARD_LIBRARY in path.parents:
        return False
    if any(name in path.parts for name in LIBRARIES):
        return False
    return any(folder in path.parents for folder in _folders)


def _shown(file: str, module: str = "") -> str:
    """A file name for people: below the working folder, or as imported; else without its folder."""
    if any(part in file for part in CELLS):
        return "<cell>" if CELLS[1] in file else file
    path = Path(os.path.abspath(file))
    top = module.partition(".")[0]
    if top in _packages and top in path.parts:
        return printable(str(Path(*path.parts[path.parts.index(top) :])))
    if path.is_relative_to(Path.cwd()):
        return printable(str(path.relative_to(Path.cwd())))
    return printable(path.name)  # other folders of a machine are nobody's business
