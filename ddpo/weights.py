"""Gets a weight file by address or hub id at a pinned revision, verifies its SHA-256 and keeps it in the cache.

The cache is `DDPO_CACHE`, else `~/.cache/ddpo`. With `DDPO_OFFLINE` or `HF_HUB_OFFLINE` set nothing is fetched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from ddpo.download import Progress, check_space, download, sha256_of
from ddpo.errors import ConfigError, MissingResourceError

__all__ = [
    "Progress",
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
    """Where fetched files are kept.

    Raises:
        ConfigError: `DDPO_CACHE` names a home folder that does not exist, or is not set and there is none.
    """
    given = os.environ.get("DDPO_CACHE")
    try:
        return Path(given or Path.home() / ".cache" / "ddpo").expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"DDPO_CACHE={given or ''}: {str(error).rstrip('.')}; set it to a folder that can be written"
        ) from error


def offline() -> bool:
    """Whether fetching is forbidden by the environment."""
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
        raise MissingResourceError(
            f"{what} is not the file {path}, whose SHA-256 is {found[:12]}… instead of {sha256[:12]}…"
        )
    return path


def url_target(url: str, sha256: str) -> Path:
    """Where the cache keeps the file of `url`."""
    return cache_dir() / "files" / sha256[:16] / unquote(urlsplit(url).path.rpartition("/")[2])


def fetch_url(url: str, sha256: str, what: str, progress: Progress | None = None) -> Path:
    """The file at `url` from the cache, fetched first if it is not there. It appears in the cache only whole and verified.

    What a fetch that was cut short has got stays beside it, and the next one goes on from there, in whatever process.

    Args:
        url: https address (http only on this machine).
        sha256: 64 hexadecimal digits; a file with another hash is thrown away.
        what: what the file is, with size and licence, for the message, such as "LAION aesthetic head (3.7 MB, Apache-2.0)".
        progress: called after each block.

    Raises:
        MissingResourceError: offline, not reachable, cut short, no room, or not the expected file; says where to put it by hand.
        ConfigError: neither https nor on this machine.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ConfigError(f"{what}: {url} is not an https address")
    target = url_target(url, sha256)
    if target.is_file() and sha256_of(target) == sha256:
        return target
    by_hand = f"get {url} and put it at {target}"
    if offline():
        raise MissingResourceError(
            f"{what} is not in the cache and fetching is off (DDPO_OFFLINE or HF_HUB_OFFLINE): {by_hand}"
        )
    return download(url, target, sha256, what, by_hand, progress)


def fetch_hub_file(
    repository: str, filename: str, revision: str, sha256: str | None, what: str
) -> Path:
    """A file of a Hugging Face hub repository at a pinned revision, from the hub's own cache or fetched (the hub's client resumes).

    Raises:
        MissingResourceError: offline and not cached, not reachable, no such repository or revision, or not the expected file.
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
    """A whole hub repository at a revision, but for files of other frameworks; its folder in the hub's own cache.

    With `only`, just the files that match one of these patterns, as far as there are any; `*` matches slashes too.

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
    state = (
        "is not in the hub's cache and fetching is off"
        if offline()
        else f"could not be fetched ({type(error).__name__})"
    )
    return MissingResourceError(
        f"{what} {state}: run `hf download {arguments}` on a machine with a network, or give a local path"
    )
