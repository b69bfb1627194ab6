"""Atomic files, written under a temporary name in the same folder and then renamed."""

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
    """A file name as printable text on one line.

    Control characters and bytes that are not UTF-8 become backslash escapes.
    """
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to, renamed to `path` if the block succeeds and else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns an `OSError` of the block into an error that names `path`, the file it writes.

    Raises:
        StorageFailure: The file cannot be written; the message names `path` and the reason.
    """
    try:
        yield
    except DdpoError:
        raise
    except OSError as error:
        raise StorageFailure(
            f"{path} cannot be written: {error.strerror or one_line(error)}"
        ) from error


def named_path(text: str | Path) -> Path:
    """The path a user names: `~` is the home folder, and a name matches in either Unicode form.

    Typed file names are mostly in the form NFC, and those written by macOS in NFD.
    """
    path = Path(text).expanduser()
    if os.path.exists(path):  # Path.exists raises if the name is too long
        return path
    forms = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((other for other in forms if os.path.exists(other)), path)


def check_writable(path: Path) -> None:
    """Raises unless a file can be written to `path`, whose folder it creates.

    Call it before spending time on the content of the file.

    Raises:
        ConfigError: `path` is a folder or cannot be written.
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
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically, with non-ASCII characters unescaped.

    Raises:
        ValueError: A number is NaN or infinite, which JSON does not allow.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
