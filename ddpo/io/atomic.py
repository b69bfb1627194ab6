"""Atomic files and folders, which are whole or absent after a kill and after a power cut.

They are written under a temporary name in the same folder, synced and renamed; then their folder is
synced. Until then the previous file stays. A kill leaves `.NAME.PROCESS-HOST.tmp`, which the next
owner removes (`remove_remains`).
"""

from __future__ import annotations

import errno
import glob
import json
import logging
import os
import re
import shutil
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError, DdpoError, StorageFailure, one_line
from ddpo.io.process import here, is_gone
from ddpo.io.sync import make_folder, sync_file, sync_folder, sync_tree
from ddpo.text import printable

__all__ = [
    "atomic_folder",
    "atomic_path",
    "check_folder_writable",
    "check_not_of_a_run",
    "check_writable",
    "named_path",
    "new_file",
    "printable",
    "remove_remains",
    "storing",
    "temporary_path",
    "write_json",
    "write_text",
]

LOGGER: Final = logging.getLogger("ddpo.io")
REMAINS: Final = re.compile(r"\.(.+)\.([0-9]+)(?:-([0-9a-f]{8}))?\.tmp", re.DOTALL)
"""Temporary names: name, process and host; those of older versions have no host."""
OLDER: Final = ".older.tmp"  # end of the name of a folder that is being replaced
OWN_FILES: Final = {
    ("config.json", "manifest.json"): (
        *("config.json", "manifest.json", "metrics.jsonl", "checkpoints", "state"),
    ),
    ("report.json", "samples.parquet"): (
        *("report.json", "report.md", "report.html", "samples.parquet", "images"),
    ),
}
"""Files by which a run or an evaluation is known, and the parts of its folder that it owns."""
THIS_FOLDER: Final = -100  # AT_FDCWD of Linux
EXCHANGE: Final = 2  # RENAME_EXCHANGE of Linux
PROBE_BYTES: Final = 4096  # one block, which a full disk does not take


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file to write, which durably replaces `path` if the block succeeds.

    The file gets the permissions of a new file, whatever the writer set; safetensors, for example,
    makes files that only their owner can read.

    Args:
        path: Path of the file; missing folders are made.

    Raises:
        OSError: The file cannot be written; an earlier file at `path` stays.
    """
    make_folder(path.parent)
    temporary = temporary_path(path)
    try:
        mode = new_file(temporary)
        yield temporary
        temporary.chmod(mode)
        sync_file(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
        LOGGER.info("wrote %s", path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, which durably replaces `folder` if the block succeeds.

    An earlier folder of that name changes places with the new one, and is removed afterwards.

    Args:
        folder: Path of the folder; missing parents are made.

    Raises:
        OSError: The folder cannot be written; an earlier folder stays.
    """
    make_folder(folder.parent)
    _restore(folder)
    temporary = temporary_path(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        _set_new_file_modes(temporary)
        sync_tree(temporary)
        _put_in_place(temporary, folder)
        sync_folder(folder.parent)
        LOGGER.info("wrote the folder %s", folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # after a failure its room is needed


def temporary_path(path: Path) -> Path:
    """The name beside a file or folder under which this process writes it."""
    return path.with_name(f".{path.name}.{os.getpid()}-{here()}.tmp")


def remove_remains(folder: Path, name: str | None = None) -> None:
    """Removes what processes of this host left half written in a folder when they were killed.

    Args:
        folder: Folder, which may be absent. Nothing is removed from one that cannot be written.
        name: The only file or folder whose remains are removed; None for all.
    """
    pattern = ".*.tmp" if name is None else f".{glob.escape(name)}.*.tmp"
    for left in folder.glob(pattern):
        found = REMAINS.fullmatch(left.name)
        if left.name.endswith(OLDER):
            _restore(left.with_name(left.name.removeprefix(".").removesuffix(OLDER)))
        elif found and _is_of_dead_process(found, name):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                with suppress(OSError):
                    left.unlink()


def _is_of_dead_process(found: re.Match[str], name: str | None) -> bool:
    """True if a match of `REMAINS` is of a process of this host that has ended."""
    written, process, host = found.groups()
    return name in (None, written) and host in (None, here()) and is_gone(int(process))


def new_file(path: Path) -> int:
    """Makes an empty file and returns its permissions, as the umask and the folder set them.

    What was there before is removed, so that a link in its place is not followed.
    """
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _set_new_file_modes(folder: Path) -> None:
    """Sets the permissions of all files in a new folder to those of new files by the umask."""
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for place, _, names in os.walk(folder):
        for name in names:
            Path(place, name).chmod(mode)


def _put_in_place(new: Path, folder: Path) -> None:
    """Renames a folder to its name; an earlier one of that name is moved or removed."""
    try:
        os.replace(new, folder)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if _exchange(new, folder):
        return
    older = folder.with_name(f".{folder.name}{OLDER}")
    shutil.rmtree(older, ignore_errors=True)
    os.replace(folder, older)
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(older, folder)
        raise
    shutil.rmtree(older, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two names in one step; false where the system or the file system cannot.

    Source: rename(2), RENAME_EXCHANGE.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    names = (os.fsencode(one), os.fsencode(other))
    return bool(rename(THIS_FOLDER, names[0], THIS_FOLDER, names[1], EXCHANGE) == 0)


def _restore(folder: Path) -> None:
    """Puts a folder back that a kill left moved aside, or removes it if the new one is there."""
    older = folder.with_name(f".{folder.name}{OLDER}")
    if not older.is_dir():
        return
    if folder.exists():
        shutil.rmtree(older, ignore_errors=True)
    else:
        os.replace(older, folder)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns an error of the disk in the block into one that names `path`, which it writes.

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
    """The path a user names: `~` is the home folder, and a name matches in either Unicode form.

    Typed file names are mostly in the form NFC, and those written by macOS in NFD.
    """
    path = Path(text).expanduser()
    if os.path.exists(path):  # Path.exists raises if the name is too long
        return path
    forms = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((other for other in forms if os.path.exists(other)), path)


def check_writable(path: Path) -> None:
    """Raises unless a file can be written to `path`, whose folder may not exist yet.

    Call it before spending time on the content of the file. It leaves nothing: the folder is made
    when the file is written.

    Raises:
        ConfigError: `path` is a folder, belongs to a run or an evaluation, or cannot be written.
    """
    if os.path.isdir(path):  # Path.is_dir raises if the name is too long
        raise ConfigError(f"{path} is a folder, not a file to write")
    check_not_of_a_run(path)
    check_folder_writable(path.parent)
    try:
        with suppress(FileNotFoundError):
            os.lstat(path.with_name(f".{path.name}.{os.getpid()}.tmp"))  # the name may be too long
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def check_not_of_a_run(path: Path) -> None:
    """Raises for a file or folder that a training run or an evaluation owns.

    Raises:
        ConfigError: the path is one of its own; the message names the folder.
    """
    place = Path(os.path.realpath(path))
    for folder in list(place.parents)[:4]:
        for known, parts in OWN_FILES.items():
            own = place.relative_to(folder).parts[0] in parts
            if own and all((folder / name).is_file() for name in known):
                kind = "run" if "config.json" in known else "evaluation"
                raise ConfigError(
                    f"{path} belongs to the {kind} in {printable(str(folder))}: choose another name"
                )


def check_folder_writable(folder: Path) -> None:
    """Raises unless files can be written into a folder, which may not exist yet; leaves nothing.

    Raises:
        ConfigError: The folder is a file or cannot be written, or its disk is full.
    """
    place = folder.absolute()
    try:
        while not os.path.lexists(place) and place != place.parent:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.lstat(place)  # the name may be too long
            place = place.parent
        if not place.is_dir():
            raise ConfigError(f"{folder} cannot be written: {place} is not a folder")
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically; it survives a power cut.

    Raises:
        StorageFailure: The file cannot be written; an earlier file stays.
    """
    with storing(path), atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically, with non-ASCII characters unescaped.

    Raises:
        StorageFailure: As `write_text`.
        ValueError: A number is NaN or infinite, which JSON does not allow.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
