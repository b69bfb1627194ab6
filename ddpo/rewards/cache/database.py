"""The SQLite file of the score cache: creation, opening, locking, and replacement if damaged."""

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
REPLACE_SECONDS: Final = 0.1  # wait for the exclusive lock before another look at the file
DAMAGE: Final = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_MISMATCH,  # a row number out of range
)

# `sequence` is the order of last use, so that rows that are evicted together share pages, which
# become free as a whole. `auto_vacuum` only takes effect before the first table.
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
    """The file belongs to a newer ddpo, which still needs it."""


def is_damage(error: Exception) -> bool:
    """True if an error means damaged content, false if the file cannot be used at present."""
    if isinstance(error, UnicodeDecodeError):  # raised where SQLite quotes a damaged schema
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    bad_schema = str(error).startswith(("no such", "malformed", "unsupported"))
    return code in DAMAGE or (code == sqlite3.SQLITE_ERROR and bad_schema)


@contextlib.contextmanager
def locked(path: Path, exclusive: bool = False) -> Iterator[None]:
    """Holds the lock file beside the cache, so that no process replaces a cache in use.

    SQLite's own locks do not cover renaming: a write-ahead log beside another file damages both.

    Args:
        path: the cache.
        exclusive: whether all other processes are kept out, or only those that want an exclusive
            lock.

    Raises:
        BlockingIOError: the lock is not free within `BUSY_SECONDS` (exclusive: `REPLACE_SECONDS`).
        OSError: the lock file cannot be created.
    """
    try:
        import fcntl
    except ImportError:  # Windows does not rename an open file
        yield
        return
    mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    until = time.monotonic() + (REPLACE_SECONDS if exclusive else BUSY_SECONDS)
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
    """Creates an empty cache at `path` unless it holds a database already.

    The caller holds the exclusive lock.

    Raises:
        sqlite3.Error: an error of SQLite; see `is_damage`.
    """
    _make_file(path)
    with contextlib.closing(sqlite3.connect(path, BUSY_SECONDS, isolation_level=None)) as created:
        marked = _number(created, "application_id") or _number(created, "user_version")
        tables = created.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        if not marked and not tables:
            created.executescript(CREATE)


def open_database(path: Path) -> sqlite3.Connection:
    """A connection to the cache at `path`; the caller holds the lock.

    Raises:
        DamagedCacheError: the file is empty, of an older schema, or not a score cache.
        NewerCacheError: the file has a newer schema.
        sqlite3.Error: an error of SQLite; see `is_damage`.
    """
    _make_file(path)
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


def _make_file(path: Path) -> None:
    """Makes a missing file with the permissions of a new file, where SQLite would take 0644."""
    with contextlib.suppress(OSError):  # which SQLite reports
        path.touch(0o666, exist_ok=False)


def _check_schema(connection: sqlite3.Connection) -> None:
    if _number(connection, "application_id") != APPLICATION_ID:
        raise DamagedCacheError("it is not a score cache")
    version = _number(connection, "user_version")
    if SCHEMA_VERSION < version <= LAST_VERSION:
        known = f"this ddpo knows {SCHEMA_VERSION}: upgrade ddpo"
        raise NewerCacheError(f"it has schema {version}, {known}")
    if version != SCHEMA_VERSION:
        kind = "an old" if version < SCHEMA_VERSION else "an unknown"
        raise DamagedCacheError(f"it has {kind} schema, {version}")
    connection.execute(CHECK).fetchall()


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def used_bytes(connection: sqlite3.Connection) -> int:
    """Size of the pages in use, in bytes."""
    pages = _number(connection, "page_count") - _number(connection, "freelist_count")
    return pages * _number(connection, "page_size")


def set_aside(path: Path) -> Path:
    """Renames a damaged cache to `….damaged-<time>-<process>`, together with its log.

    The caller holds the exclusive lock and has no open connection.

    Returns:
        The new path.

    Raises:
        OSError: the cache cannot be renamed.
    """
    moment = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.damaged-{moment}-{os.getpid()}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def damaged_files(path: Path) -> list[Path]:
    """The damaged caches that `set_aside` renamed, oldest first."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.damaged-*"))
