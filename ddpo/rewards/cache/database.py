"""The SQLite file of the score cache: opened, made, recognised, and set aside when it is damaged."""

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
    "DamagedCacheError",
    "NewerCacheError",
    "close_database",
    "damaged_files",
    "is_damage",
    "open_database",
    "set_aside",
    "transaction",
    "used_bytes",
]

APPLICATION_ID: Final = (
    0x64647063  # "ddpc": what `file` and SQLite call an application's own format
)
SCHEMA_VERSION: Final = 1
LAST_VERSION: Final = 1000  # beyond it a bit was flipped
BUSY_SECONDS: Final = (
    10.0  # how long one process waits for another's transaction, which takes milliseconds
)
DAMAGE: Final = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_MISMATCH,
)  # the last: a row number beyond all bounds

# In the order of last use: the rows to be evicted share pages, so that removing them frees whole pages.
SCHEMA: Final = (
    "CREATE TABLE identities(id INTEGER PRIMARY KEY, reward BLOB NOT NULL, identity BLOB NOT NULL UNIQUE)",
    "CREATE TABLE scores(sequence INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, identity INTEGER NOT NULL, value BLOB NOT NULL,"
    " parts BLOB NOT NULL, checksum BLOB NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL)",
)


class DamagedCacheError(Exception):
    """The file is no score cache of this schema."""


class NewerCacheError(Exception):
    """The file was written by a newer ddpo, which still needs it."""


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file's content is not to be trusted, rather than that it cannot be reached now."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    without_table = code == sqlite3.SQLITE_ERROR and str(error).startswith(
        ("no such", "malformed", "unsupported")
    )
    # UnicodeDecodeError: an error of SQLite's that quotes a damaged schema
    return (
        isinstance(error, DamagedCacheError | UnicodeDecodeError) or code in DAMAGE or without_table
    )


def open_database(path: Path) -> sqlite3.Connection:
    """A connection to the cache at `path`, which is made if there is none.

    Raises:
        DamagedCacheError: it is something else than a score cache, or one of an older schema.
        NewerCacheError: its schema is a newer one.
        sqlite3.Error: as SQLite; see `is_damage`.
        OSError: the folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _door(path):
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.text_factory = (
                bytes  # a flipped bit in a text must not raise while it is decoded
            )
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def close_database(connection: sqlite3.Connection, path: Path) -> None:
    """Closes a connection; not while another process renames the file, since the last one to close removes the log by its name."""
    with contextlib.suppress(OSError), _door(path):
        connection.close()
    connection.close()


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA cell_size_check=ON")
    application, version = (
        _number(connection, name) for name in ("application_id", "user_version")
    )
    if (
        application == 0
        and version == 0
        and not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    ):
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only while there is no table
        _configure(connection)
        _create(connection)
        return
    if application != APPLICATION_ID:
        raise DamagedCacheError("it is not a score cache")
    if SCHEMA_VERSION < version <= LAST_VERSION:
        raise NewerCacheError(
            f"it has schema {version}, this ddpo knows {SCHEMA_VERSION}: upgrade ddpo"
        )
    if version != SCHEMA_VERSION:
        raise DamagedCacheError(
            f"it has schema {version}, which is {'an old one' if version < SCHEMA_VERSION else 'none'}"
        )
    _configure(connection)
    connection.execute(
        "SELECT sequence, key, identity, value, parts, checksum, created, used FROM scores LIMIT 1"
    ).fetchall()


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA journal_size_limit={16 << 20}").fetchall()


def _create(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        if _number(connection, "application_id") == APPLICATION_ID:
            return  # another process was here since
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def used_bytes(connection: sqlite3.Connection) -> int:
    """The pages that hold something, in bytes."""
    pages, free, size = (
        _number(connection, name) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; takes the write lock at once, since a lock that is taken later cannot be waited for."""
    if connection.in_transaction:  # an interrupt has left one open
        connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def set_aside(path: Path, inode: int | None) -> Path | None:
    """Renames a damaged cache to `….damaged-<time>`, with its log, for whoever wants to look at it.

    Args:
        path: the cache.
        inode: the file that was found damaged; None for the one that is there.

    Returns:
        The new name; None if another process has done it already.

    Raises:
        OSError: it cannot be renamed.
    """
    with _door(path):
        try:
            if inode is not None and path.stat().st_ino != inode:
                return None
        except FileNotFoundError:
            return None
        aside = path.with_name(
            f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        )
        path.rename(aside)
        for suffix in ("-wal", "-shm"):
            companion = path.with_name(path.name + suffix)
            if companion.exists():
                companion.rename(aside.with_name(aside.name + suffix))
    return aside


def damaged_files(path: Path) -> list[Path]:
    """The files that `set_aside` made of the cache at `path`, oldest first."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.damaged-*"))


@contextlib.contextmanager
def _door(path: Path) -> Iterator[None]:
    """Lets one process at a time open the cache or set it aside: a log that belongs to another file would damage both."""
    try:
        import fcntl
    except (
        ImportError
    ):  # Windows does not let an open file be renamed, so there is nothing to guard
        yield
        return
    with path.with_name(path.name + ".lock").open("wb") as lock:
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
            except OSError:  # a file system without locks
                break
        yield
