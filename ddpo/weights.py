"""Weight files by address or hub id at a pinned revision, verified by their SHA-256 and cached.

The cache is `DDPO_CACHE`, else `~/.cache/ddpo`. With `DDPO_OFFLINE` or `HF_HUB_OFFLINE` set,
nothing is fetched.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from ddpo.errors import ConfigError, MissingResourceError, one_line

__all__ = [
    "cache_dir",
    "check_space",
    "fetch_hub_file",
    "fetch_hub_repository",
    "fetch_url",
    "offline",
    "sha256_of",
    "url_target",
    "verified",
]

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
OTHER_FRAMEWORKS: Final = (
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.onnx",
    "*.gguf",
    "*.tflite",
    "*.mlmodel",
    "onnx/*",
    "openvino/*",
    "original/*",
)
"""Files of a hub repository that transformers does not read when it loads a torch model."""


def cache_dir() -> Path:
    """The folder of fetched files.

    Raises:
        ConfigError: `DDPO_CACHE` names a home folder that does not exist, or is not set and there
            is none.
    """
    given = os.environ.get("DDPO_CACHE")
    try:
        return Path(given or Path.home() / ".cache" / "ddpo").expanduser()
    except RuntimeError as error:
        cause = str(error).rstrip(".")
        message = f"DDPO_CACHE={given or ''}: {cause}; set it to a folder that can be written"
        raise ConfigError(message) from error


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
        need = f"{what} takes {size / 1e6:,.1f} MB"
        raise MissingResourceError(f"{need}, but only {free / 1e6:,.1f} MB are free at {folder}")


def offline() -> bool:
    """True if the environment forbids fetching."""
    values = (
        os.environ.get(name, "").strip().lower() for name in ("DDPO_OFFLINE", "HF_HUB_OFFLINE")
    )
    return any(value not in ("", "0", "false", "no", "off") for value in values)


def verified(path: Path, sha256: str, what: str) -> Path:
    """`path`, if it is a file with that SHA-256.

    Raises:
        MissingResourceError: there is no such file, or it is another one.
    """
    if not path.is_file():
        raise MissingResourceError(f"{what} is not at {path}")
    found = sha256_of(path)
    if found != sha256:
        hashes = f"SHA-256 is {found[:12]}… instead of {sha256[:12]}…"
        raise MissingResourceError(f"{what} is not the file {path}, whose {hashes}")
    return path


def url_target(url: str, sha256: str) -> Path:
    """The place of the file of `url` in the cache."""
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    return cache_dir() / "files" / sha256[:16] / name


def fetch_url(url: str, sha256: str, what: str, progress: bool = False) -> Path:
    """The file at `url` from the cache, fetched first unless it is there.

    It appears in the cache only whole and verified. Large files belong on the hub, whose client
    resumes an interrupted download.

    Args:
        url: https address (http only on this machine).
        sha256: 64 hexadecimal digits; a file with another hash is thrown away.
        what: name of the file with size and licence, for messages, such as
            "LAION aesthetic head (3.7 MB, Apache-2.0)".
        progress: whether a progress bar is shown on standard error.

    Raises:
        MissingResourceError: offline, not reachable, or not the expected file; says where to put
            it by hand.
        ConfigError: neither https nor on this machine.
    """
    parts = urlsplit(url)
    loopback = parts.scheme == "http" and parts.hostname in LOOPBACK
    if parts.scheme != "https" and not loopback:
        raise ConfigError(f"{what}: {url} is not an https address")
    target = url_target(url, sha256)
    if target.is_file() and sha256_of(target) == sha256:
        return target
    by_hand = f"get {url} and put it at {target}"
    if offline():
        state = "is not in the cache and fetching is off (DDPO_OFFLINE or HF_HUB_OFFLINE)"
        raise MissingResourceError(f"{what} {state}: {by_hand}")
    _download(url, target, sha256, what, by_hand, progress)
    return target


def _download(url: str, target: Path, sha256: str, what: str, by_hand: str, progress: bool) -> None:
    from torch.hub import download_url_to_file

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        place = f"{target.parent} cannot be written ({error.strerror})"
        raise MissingResourceError(f"{what}: {place}; set DDPO_CACHE") from error
    try:
        # writes beside the target, checks the hash, and renames
        download_url_to_file(url, str(target), sha256, bool(progress))
    except RuntimeError as error:
        cause = f"is cut short or another file, by its SHA-256: {one_line(error)}"
        raise MissingResourceError(f"{what} was fetched from {url} but {cause}") from error
    except (OSError, http.client.HTTPException) as error:
        cause = f"could not be fetched ({one_line(error)})"
        raise MissingResourceError(f"{what} {cause}: {by_hand}") from error


def fetch_hub_file(
    repository: str, filename: str, revision: str, sha256: str | None, what: str
) -> Path:
    """A file of a Hugging Face hub repository at a pinned revision, fetched unless it is cached.

    The hub's own cache keeps it, and the hub's client resumes an interrupted download.

    Raises:
        MissingResourceError: offline and not cached, not reachable, no such repository or
            revision, or not the expected file.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = Path(
            hf_hub_download(repository, filename, revision=revision, local_files_only=offline())
        )
    except (OSError, ValueError, RuntimeError) as error:  # the hub's errors are subclasses of these
        raise _not_on_the_hub(
            what, error, f"{repository} {filename} --revision {revision}"
        ) from error
    return verified(path, sha256, what) if sha256 else path


def fetch_hub_repository(
    repository: str, revision: str, what: str, only: Sequence[str] = ()
) -> Path:
    """The folder of a hub repository at a revision in the hub's own cache.

    Files of other frameworks are left out. With `only`, just the files that match one of these
    patterns are fetched; `*` matches slashes too.

    Raises:
        MissingResourceError: as `fetch_hub_file`.
    """
    from huggingface_hub import snapshot_download

    try:
        ignored = list(OTHER_FRAMEWORKS)
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                local_files_only=offline(),
                ignore_patterns=ignored,
                allow_patterns=list(only) or None,
            )
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _not_on_the_hub(what, error, f"{repository} --revision {revision}") from error


def _not_on_the_hub(what: str, error: Exception, arguments: str) -> MissingResourceError:
    state = f"could not be fetched ({type(error).__name__})"
    if offline():
        state = "is not in the hub's cache and fetching is off"
    command = f"run `hf download {arguments}` on a machine with a network, or give a local path"
    return MissingResourceError(f"{what} {state}: {command}")
