"""One file over http: resumed from what an earlier attempt left, verified, moved to its place. Safe with several processes.

What has arrived is in `.NAME.partial` beside the target, and the server's mark of the version (ETag) in `.NAME.partial.mark`. The
process that holds a lock on the partial file writes it; a kill frees the lock and leaves the bytes to the next.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from ddpo.errors import MissingResourceError, one_line

__all__ = ["Progress", "check_space", "download", "sha256_of"]

Progress = Callable[[int, int | None], None]
"""Told the bytes so far and the total, None where the server does not say."""

CHUNK: Final = 1 << 20  # bytes
TIMEOUT: Final = 60.0  # seconds without a byte
ATTEMPTS: Final = 5
FIRST_PAUSE: Final = 0.25  # seconds before the second attempt; doubles with each
WAIT: Final = 0.1  # seconds between two looks at what another process has fetched


class _Cut(OSError):
    """The connection ended before the file did."""


class _Response(Protocol):
    """What is used of `http.client.HTTPResponse`."""

    status: int
    headers: http.client.HTTPMessage

    def read1(self, size: int, /) -> bytes: ...


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_space(folder: Path, size: int, what: str) -> None:
    """Refuses a download of `size` bytes that the disk of `folder` cannot hold.

    Raises:
        MissingResourceError: it cannot; says how much is free.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise MissingResourceError(
            f"{what} takes {size / 1e6:,.1f} MB, but only {free / 1e6:,.1f} MB are free at {folder}"
        )


def download(
    url: str, target: Path, sha256: str, what: str, by_hand: str, progress: Progress | None = None
) -> Path:
    """Fetches `url` to `target`, which appears only whole and verified.

    A file that was resumed and does not verify is fetched once more from its first byte: what was there may have been another version.

    Args:
        url: an address that the caller has checked.
        target: where the file shall be.
        sha256: 64 hexadecimal digits.
        what: what the file is, for messages.
        by_hand: what a user can do instead.
        progress: called after each block.

    Raises:
        MissingResourceError: not reachable, cut short, no room, or not the expected file.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _opened(partial, target, sha256, progress) as file:
            if file is None:
                return target
            resumed = os.fstat(file.fileno()).st_size > 0
            _complete(url, file, partial, what, progress)
            if resumed and sha256_of(partial) != sha256:
                _restart(file, partial)
                _complete(url, file, partial, what, progress)
            if (found := sha256_of(partial)) != sha256:
                _remove(partial)
                told = f"{what} was fetched from {url} but is another file: its SHA-256 is {found[:12]}… instead of {sha256[:12]}…"
                raise MissingResourceError(told)
            os.replace(partial, target)
            _mark(partial).unlink(missing_ok=True)
            return target
    except MissingResourceError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise MissingResourceError(_explain(error, what, partial, by_hand)) from error


def _explain(error: Exception, what: str, partial: Path, by_hand: str) -> str:
    if (
        isinstance(error, OSError)
        and error.filename is not None
        and not isinstance(error, urllib.error.HTTPError)
    ):
        return f"{what}: {partial.parent} cannot be written ({error.strerror}); set DDPO_CACHE"
    if partial.exists() and (size := partial.stat().st_size):
        return f"{what} was cut short ({one_line(error)}); {size / 1e6:.1f} MB are kept: run it again to go on, or {by_hand}"
    return f"{what} could not be fetched ({one_line(error)}): {by_hand}"


@contextmanager
def _opened(
    partial: Path, target: Path, sha256: str, progress: Progress | None
) -> Iterator[BinaryIO | None]:
    """The partial file, for this process alone; None if another process has finished the target meanwhile."""
    while True:
        file = partial.open("ab+")
        try:
            if not _locked(file):
                if progress is not None:
                    progress(os.fstat(file.fileno()).st_size, None)
                time.sleep(WAIT)
            elif not _is_still(file, partial):  # who had the lock has moved or removed the file
                if target.is_file() and sha256_of(target) == sha256:
                    yield None
                    return
            else:
                if target.is_file() and sha256_of(target) == sha256:
                    _remove(partial)
                    yield None
                    return
                try:
                    yield file
                finally:
                    if partial.exists() and not partial.stat().st_size:
                        _remove(partial)
                return
        finally:
            file.close()


def _locked(file: BinaryIO) -> bool:
    if (
        sys.platform == "win32"
    ):  # two processes may both fetch there; the hash is what protects the cache
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _mark(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.mark")


def _remove(partial: Path) -> None:
    _mark(partial).unlink(missing_ok=True)
    partial.unlink(missing_ok=True)


def _restart(file: BinaryIO, partial: Path) -> None:
    file.truncate(0)
    _mark(partial).unlink(missing_ok=True)


def _complete(
    url: str, file: BinaryIO, partial: Path, what: str, progress: Progress | None
) -> None:
    """Appends to `file` until it is whole; tries again where the connection breaks, a bounded number of times."""
    for attempt in range(ATTEMPTS):
        try:
            _append(url, file, partial, what, progress)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == ATTEMPTS - 1:
                raise
        except (_Cut, http.client.HTTPException, ConnectionError, TimeoutError):
            if attempt == ATTEMPTS - 1:
                raise
        time.sleep(FIRST_PAUSE * 2**attempt)


def _append(url: str, file: BinaryIO, partial: Path, what: str, progress: Progress | None) -> None:
    """One request: for the rest of the file where there is a beginning, which the server may answer with the whole."""
    here = os.fstat(file.fileno()).st_size
    try:
        with urllib.request.urlopen(_request(url, here, partial), timeout=TIMEOUT) as response:  # noqa: S310  # the scheme was checked
            start, total = _extent(response)
            if start not in (0, here):
                raise _Cut(f"the server sent the bytes from {start} on, not from {here} on")
            if start == 0:
                _restart(file, partial)
                _write_mark(partial, response.headers)
            if total is not None:
                check_space(partial.parent, total - start, what)
            _copy(response, file, start, total, progress)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not here:
            raise
        if (
            _number(r"bytes \*/(\d+)", error.headers.get("Content-Range")) != here
        ):  # not the whole file already: another version
            _restart(file, partial)
            raise _Cut("the file on the server is shorter than what was fetched before") from error


def _request(url: str, here: int, partial: Path) -> urllib.request.Request:
    request = urllib.request.Request(url)  # noqa: S310  # the scheme was checked
    if here:
        request.add_header("Range", f"bytes={here}-")
        mark = _mark(partial)
        if mark.is_file():
            request.add_header("If-Range", mark.read_text("utf-8"))
    return request


def _write_mark(partial: Path, headers: http.client.HTTPMessage) -> None:
    etag = headers.get("ETag", "")
    if (
        etag.startswith('"') and etag.isascii()
    ):  # a weak one, W/"…", is not allowed in If-Range: RFC 9110, section 13.1.5
        _mark(partial).write_text(etag, "utf-8")


def _extent(response: _Response) -> tuple[int, int | None]:
    """The first byte of the answer within the file, and the file's length if the server says it."""
    if response.status == 206:
        content = response.headers.get("Content-Range")
        start = _number(r"bytes (\d+)-\d+/(?:\d+|\*)", content)
        return (-1 if start is None else start), _number(r"bytes \d+-\d+/(\d+)", content)
    length = response.headers.get("Content-Length")
    return 0, int(length) if length and length.isdigit() else None


def _number(pattern: str, text: str | None) -> int | None:
    found = re.fullmatch(pattern, text or "")
    return int(found[1]) if found else None


def _copy(
    response: _Response, file: BinaryIO, done: int, total: int | None, progress: Progress | None
) -> None:
    try:
        while block := response.read1(CHUNK):
            file.write(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
    finally:
        file.flush()
    if total is not None and done != total:
        raise _Cut(f"{done} of {total} bytes arrived")
