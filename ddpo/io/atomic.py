"""Files that are whole or not there: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import json
import os
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddpo.errors import ConfigError, DdpoError, StorageFailure, one_line

__all__ = [
    "atomic_path",
    "check_writable",
    "named_path",
    "printable",
    "storing",
    "write_json",
    "write_text",
]


def printable(name: str) -> str:
    """A file name on one line, as text that any output can hold.

    Control characters, and bytes of the name that are not UTF-8, become backslash escapes.
    """
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it becomes `path` when the block ends well, and is removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Around what writes `path`, or the files in it.

    Raises:
        StorageFailure: it cannot be written; names `path` and the reason.
    """
    try:
        yield
    except DdpoError:
        raise
    except OSError as error:
        raise StorageFailure(
            f"{path} cannot be written: {error.strerror or one_line(error)}"
        ) from error
    except Exception as error:
        reason = _disk_error_of_safetensors(error)
        if reason is None:
            raise
        raise StorageFailure(f"{path} cannot be written: {reason}") from error


def _disk_error_of_safetensors(error: Exception) -> str | None:
    """The system's words in an error of safetensors, which is no OSError; None for other errors."""
    from safetensors import SafetensorError

    if not isinstance(error, SafetensorError):
        return None
    return one_line(error).rpartition("I/O error: ")[2].partition(" (os error ")[0]


def named_path(text: str | Path) -> Path:
    """The place that a user names: `~` is the home folder, and a name is found in either Unicode form.

    File names typed as text are mostly in the form NFC; those that macOS wrote are in NFD.
    """
    path = Path(text).expanduser()
    if os.path.exists(path):  # of a name that is too long, Path.exists raises
        return path
    forms = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((other for other in forms if os.path.exists(other)), path)


def check_writable(path: Path) -> None:
    """Makes sure that a file can be written to `path`, before time is spent on what goes into it. Makes its folder.

    Raises:
        ConfigError: a folder, or a place that cannot be written.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, not a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, indented, with its non-ASCII characters as they are. NaN and infinity are refused: they are not JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
