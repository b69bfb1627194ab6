"""Gets a weight file by address or hub id at a pinned revision, verifies its SHA-256 and keeps it in the cache.

The cache is `DDPO_CACHE`, else `~/.cache/ddpo`. With `DDPO_OFFLINE` or `HF_HUB_OFFLINE` set nothing is fetched.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from ddpo.errors import ConfigError, MissingResourceError, one_line

__all__ = ["cache_dir", "fetch_hub_file", "fetch_url", "offline", "sha256_of", "verified"]

Progress = Callable[[int, int | None], None]
"""Told the bytes so far and the total, None where the server does not say."""

CHUNK: Final = 1 << 20  # bytes
TIMEOUT: Final = 60.0  # seconds without a byte
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def cache_dir() -> Path:
    """Where fetched files are kept."""
    return Path(os.environ.get("DDPO_CACHE") or Path.home() / ".cache" / "ddpo").expanduser()


def offline() -> bool:
    """Whether fetching is forbidden by the environment."""
    values = (os.environ.get(name, "").strip().lower() for name in ("DDPO_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value not in ("", "0", "false", "no", "off") for value in values)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verified(path: Path, sha256: str, what: str) -> Path:
    """`path`, if it is a file with that SHA-256.

    Raises:
        MissingResourceError: there is no such file, or it is another one.
    """
    if not path.is_file():
        raise MissingResourceError(f"{what} is not at {path}")
    found = sha256_of(path)
    if found != sha256:
        raise MissingResourceError(f"{what} is not the file {path}, whose SHA-256 is {found[:12]}… instead of {sha256[:12]}…")
    return path


def fetch_url(url: str, sha256: str, what: str, progress: Progress | None = None) -> Path:
    """The file at `url` from the cache, fetched first if it is not there. It appears in the cache only whole and verified.

    Args:
        url: https address (http only on this machine).
        sha256: 64 hexadecimal digits; a file with another hash is thrown away.
        what: what the file is, with size and licence, for the message, such as "LAION aesthetic head (3.7 MB, Apache-2.0)".
        progress: called after each mebibyte.

    Raises:
        MissingResourceError: offline, not reachable, cut short, or not the expected file; says where to put it by hand.
        ConfigError: neither https nor on this machine.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ConfigError(f"{what}: {url} is not an https address")
    target = cache_dir() / "files" / sha256[:16] / unquote(parts.path.rpartition("/")[2])
    if target.is_file() and sha256_of(target) == sha256:
        return target
    by_hand = f"get {url} and put it at {target}"
    if offline():
        raise MissingResourceError(f"{what} is not in the cache and fetching is off (DDPO_OFFLINE or HF_HUB_OFFLINE): {by_hand}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".fetch-", delete=False) as file:
            temporary = Path(file.name)
    except OSError as error:
        raise MissingResourceError(f"{what}: the cache {cache_dir()} cannot be written ({error.strerror}); set DDPO_CACHE") from error
    try:
        _download(url, temporary, progress)
        verified(temporary, sha256, f"{what} was fetched from {url} but")
        os.replace(temporary, target)
    except (OSError, urllib.error.URLError) as error:
        if isinstance(error, MissingResourceError):
            raise
        raise MissingResourceError(f"{what} could not be fetched ({one_line(error)}): {by_hand}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _download(url: str, path: Path, progress: Progress | None) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response, path.open("wb") as file:  # noqa: S310  # the scheme was checked
        if progress is None:
            shutil.copyfileobj(response, file, CHUNK)
            return
        length = response.headers.get("Content-Length")
        total, done = int(length) if length else None, 0
        while block := response.read(CHUNK):
            file.write(block)
            done += len(block)
            progress(done, total)


def fetch_hub_file(repository: str, filename: str, revision: str, sha256: str | None, what: str) -> Path:
    """A file of a Hugging Face hub repository at a pinned revision, from the hub's own cache or fetched.

    Raises:
        MissingResourceError: offline and not cached, not reachable, no such repository or revision, or not the expected file.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(repository, filename, revision=revision, local_files_only=offline()))
    except (OSError, ValueError, RuntimeError) as error:  # the hub's errors are subclasses of these
        state = "is not in the hub's cache and fetching is off" if offline() else f"could not be fetched ({type(error).__name__})"
        command = f"hf download {repository} {filename} --revision {revision}"
        raise MissingResourceError(f"{what} {state}: run `{command}` on a machine with a network, or give a local path") from error
    return verified(path, sha256, what) if sha256 else path
