"""The SQLite file of the score cache: created, opened, locked, and set aside when damaged."""

from __future__ import annotations

import contextlib
import glob
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = [
    "create_database",
    "damaged_files",
    "is_damage",
    "locked",
    "open_database",
    "set_aside",
    "used_bytes",
]

APPLICATION_ID: Final = 0x64647063  # "ddpc": marks the file as ours for `file` and SQLite
SCHEMA_VERSION: Final = 1
LAST_VERSION: Final = 1000  # a higher number is a flipped bit
BUSY_SECONDS: Final = 10.0  # longest wait for another process, whose transactions take milliseconds
DAMAGE: Final = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_MISMATCH,  # a row number out of range
)

# `sequence` is the order of last use. Rows that are evicted together then share pages, and whole
# pages become free. `auto_vacuum` only takes effect before the first table.
CREATE: Final = f"""
    PRAGMA auto_vacuum=INCREMENTAL;
    PRAGMA journal_mode=WAL;
    BEGIN IMMEDIATE;
    CREATE TABLE identities(
        id INTEGER PRIMARY KEY, reward BLOB NOT NULL, identity BLOB NOT NULL UNIQUE
    );
    CREATE TABLE scores(
        sequence INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, identity INTEGER NOT NULL,
        value BLOB NOT NULL, parts BLOB NOT NULL, checksum BLOB NOT NULL,
        created INTEGER NOT NULL, used INTEGER NOT NULL
    );
    PRAGMA application_id={APPLICATION_ID};
    PRAGMA user_version={SCHEMA_VERSION};
    COMMIT;
"""
CHECK: Final = """
    SELECT sequence, key, identity, value, parts, checksum, created, used FROM scores LIMIT 1
"""


class DamagedCacheError(sqlite3.DatabaseError):
    """The file is not a score cache of this schema."""

    sqlite_errorcode = sqlite3.SQLITE_NOTADB


class NewerCacheError(sqlite3.DatabaseError):
    """The file was written by a newer ddpo, which still needs it."""


def is_damage(error: Exception) -> bool:
    """True if an error says that the content is damaged, false if the file is out of reach now."""
    if isinstance(error, UnicodeDecodeError):  # raised where SQLite quotes a damaged schema
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    bad_schema = str(error).startswith(("no such", "malformed", "unsupported"))
    return code in DAMAGE or (code == sqlite3.SQLITE_ERROR and bad_schema)


@contextlib.contextmanager
def locked(path: Path, alone: bool = False) -> Iterator[None]:
    """Holds the lock beside the cache, so that no file is replaced while a process uses it.

    SQLite's own locks do not cover renaming: a write-ahead log beside another file damages both.

    Args:
        path: the cache.
        alone: true to exclude all other processes, false to exclude only those that ask for it.

    Raises:
        OSError: the lock cannot be made, or is not free within `BUSY_SECONDS`.
    """
    try:
        import fcntl
    except ImportError:  # Windows does not rename an open file
        yield
        return
    mode = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    until = time.monotonic() + BUSY_SECONDS
    with path.with_name(path.name + ".lock").open("wb") as lock:
        while True:
            try:
                fcntl.flock(lock, mode | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
            except OSError:  # a file system without locks
                break
        yield


def create_database(path: Path) -> None:
    """Makes an empty cache at `path` unless something is there. The caller holds the lock alone.

    Raises:
        sqlite3.Error: from SQLite; see `is_damage`.
    """
    with contextlib.closing(sqlite3.connect(path, BUSY_SECONDS, isolation_level=None)) as new:
        marked = _number(new, "application_id") or _number(new, "user_version")
        if not marked and not new.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall():
            new.executescript(CREATE)


def open_database(path: Path) -> sqlite3.Connection:
    """A connection to the cache at `path`. The caller holds the lock.

    Raises:
        DamagedCacheError: it is empty, of an older schema, or not a score cache.
        NewerCacheError: it has a newer schema.
        sqlite3.Error: from SQLite; see `is_damage`.
    """
    connection = sqlite3.connect(path, BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.text_factory = bytes  # a flipped bit in a text must not fail to decode
        connection.execute("PRAGMA cell_size_check=ON")
        _check_schema(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA journal_size_limit={16 << 20}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _check_schema(connection: sqlite3.Connection) -> None:
    if _number(connection, "application_id") != APPLICATION_ID:
        raise DamagedCacheError("it is not a score cache")
    version = _number(connection, "user_version")
    if SCHEMA_VERSION < version <= LAST_VERSION:
        known = f"this ddpo knows {SCHEMA_VERSION}: upgrade ddpo"
        raise NewerCacheError(f"it has schema {version}, {known}")
    if version != SCHEMA_VERSION:
        kind = "an old one" if version < SCHEMA_VERSION else "none"
        raise DamagedCacheError(f"it has schema {version}, which is {kind}")
    connection.execute(CHECK).fetchall()


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def used_bytes(connection: sqlite3.Connection) -> int:
    """Size in bytes of the pages that hold something."""
    pages = _number(connection, "page_count") - _number(connection, "freelist_count")
    return pages * _number(connection, "page_size")


def set_aside(path: Path) -> Path:
    """Renames a damaged cache to `….damaged-<time>-<process>`, together with its log.

    The caller holds the lock alone and has no connection open.

    Returns:
        The new path.

    Raises:
        OSError: it cannot be renamed.
    """
    moment = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.damaged-{moment}-{os.getpid()}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def damaged_files(path: Path) -> list[Path]:
    """The files that `set_aside` made of the cache at `path`, oldest first."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.damaged-*"))
