"""Weight files by URL or hub id at a pinned revision, verified by their SHA-256 and cached.

The cache is `DDPO_CACHE`, else `~/.cache/ddpo`. With `DDPO_OFFLINE` or `HF_HUB_OFFLINE` set,
nothing is fetched.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from ddpo.errors import ConfigError, MissingResourceError, one_line
from ddpo.io.addresses import is_loopback
from ddpo.io.atomic import new_file
from ddpo.io.lock import turn
from ddpo.io.sync import sync_files
from ddpo.word_lists import words_of

if TYPE_CHECKING:
    from requests import RequestException

__all__ = [
    "COMMIT",
    "cache_dir",
    "check_space",
    "fetch_hub_file",
    "fetch_hub_repository",
    "fetch_url",
    "hub_snapshot",
    "offline",
    "sha256_of",
    "url_target",
    "verified",
    "without_loading_bars",
]

Progress = Callable[[int, int | None], None]
"""Type of the progress callbacks of earlier versions; `fetch_url` takes True or False."""

COMMIT: Final = re.compile(r"[0-9a-f]{40}")
TIMEOUT_SECONDS: Final = 30.0  # without a byte from the server
RETRIES: Final = 2
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
    """The folder of downloaded files.

    Raises:
        ConfigError: the home folder that `DDPO_CACHE` names, or the user's own, does not exist.
    """
    given = os.environ.get("DDPO_CACHE")
    try:
        return Path(given or Path.home() / ".cache" / "ddpo").expanduser()
    except RuntimeError as error:
        cause = str(error).rstrip(".")
        reason = f"DDPO_CACHE={given}: {cause}" if given else "this user has no home folder"
        message = f"{reason}; set {'it' if given else 'DDPO_CACHE'} to a folder that can be written"
        raise ConfigError(message) from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_space(folder: Path, size: int, what: str) -> None:
    """Refuses a download of `size` bytes that the disk of `folder` cannot hold.

    Raises:
        MissingResourceError: the disk has too little space; the message names the free space.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        need = f"{what} takes {size / 1e6:,.1f} MB"
        raise MissingResourceError(f"{need}, but only {free / 1e6:,.1f} MB are free at {folder}")


def offline() -> bool:
    """True if the environment forbids downloads."""
    values = (
        os.environ.get(name, "").strip().lower() for name in ("DDPO_OFFLINE", "HF_HUB_OFFLINE")
    )
    return any(value not in ("", "0", "false", "no", "off") for value in values)


def verified(path: Path, sha256: str, what: str) -> Path:
    """The path itself, once its SHA-256 has been compared.

    Raises:
        MissingResourceError: there is no such file, or its SHA-256 differs.
    """
    if not path.is_file():
        raise MissingResourceError(f"{what} is not at {path}")
    found = sha256_of(path)
    if found != sha256:
        hashes = f"SHA-256 is {found[:12]}… instead of {sha256[:12]}…"
        raise MissingResourceError(f"{what} is not the file {path}, whose {hashes}")
    return path


def url_target(url: str, sha256: str) -> Path:
    """The path in the cache of the file at a URL."""
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    return cache_dir() / "files" / sha256[:16] / name


def fetch_url(url: str, sha256: str, what: str, progress: bool = False) -> Path:
    """The cached file of a URL, downloaded first unless it is cached.

    It enters the cache only complete and verified. A failed download is repeated `RETRIES` times.
    Large files belong on the hub, whose client resumes an interrupted download.

    Args:
        url: https address (http only on this machine).
        sha256: SHA-256 of the file, 64 hexadecimal digits; any other content is discarded.
        what: name of the file with size and licence, for messages, such as
            "LAION aesthetic head (3.7 MB, Apache-2.0)".
        progress: whether a progress bar is shown on standard error.

    Returns:
        The path of the file in the cache.

    Raises:
        MissingResourceError: the file is not cached, and fetching is off, fails, or gives other
            content. The message says how to add the file by hand.
        ConfigError: the address is neither https nor on this machine.
    """
    parts = urlsplit(url)
    loopback = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if parts.scheme != "https" and not loopback:
        raise ConfigError(f"{what}: {url} is not an https address")
    target = url_target(url, sha256)
    if target.is_file() and sha256_of(target) == sha256:
        return target
    by_hand = f"get {url} and put it at {target}"
    if offline():
        state = "is not in the cache and fetching is off (DDPO_OFFLINE or HF_HUB_OFFLINE)"
        raise MissingResourceError(f"{what} {state}: {by_hand}")
    with _storing_weights(target, what), turn(target.parent) as alone:
        if not (target.is_file() and sha256_of(target) == sha256):
            for left in target.parent.glob("tmp*") if alone else ():  # of a killed download
                if left != target:
                    left.unlink()
            _download(url, target, sha256, what, by_hand, progress)
            sync_files([target])
    return target


@contextmanager
def _storing_weights(target: Path, what: str) -> Iterator[None]:
    """Turns an error of the disk in the block into one that names another folder as the remedy."""
    try:
        yield
    except MissingResourceError:
        raise
    except OSError as error:
        cause = f"cannot be written to {target.parent} ({error.strerror or one_line(error)})"
        raise MissingResourceError(f"{what} {cause}; set DDPO_CACHE to another folder") from error


def _download(url: str, target: Path, sha256: str, what: str, by_hand: str, progress: bool) -> None:
    import pooch
    from requests import RequestException

    def download(address: str, file: str, _: pooch.Pooch) -> None:
        new_file(Path(file))  # pooch's own temporary files can be read by their owner only
        pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT_SECONDS)(address, file, None)

    pooch.get_logger().setLevel("WARNING")
    cache = pooch.create(
        path=target.parent,
        base_url="",
        registry={target.name: f"sha256:{sha256}"},
        urls={target.name: url},
        retry_if_failed=RETRIES,
    )
    try:
        cache.fetch(target.name, downloader=download)
    except RequestException as error:
        cause = f"could not be fetched ({_network_failure(error)})"
        raise MissingResourceError(f"{what} {cause}: {by_hand}") from error
    except ValueError as error:
        cause = f"is another file or was cut short: its SHA-256 is not {sha256[:12]}…"
        raise MissingResourceError(f"{what} was fetched from {url} but {cause}") from error


def _network_failure(error: RequestException) -> str:
    """The cause of a failed request, for people who do not know the HTTP library."""
    from requests import HTTPError, Timeout
    from requests.exceptions import ChunkedEncodingError
    from urllib3.exceptions import ReadTimeoutError

    cause = next(iter(error.args), None)
    if isinstance(error, HTTPError) and error.response is not None:
        return f"the server answered with HTTP status {error.response.status_code}"
    if isinstance(error, Timeout) or isinstance(cause, ReadTimeoutError):
        return f"no answer for {TIMEOUT_SECONDS:g} seconds"
    if isinstance(error, ChunkedEncodingError):
        return "the connection was cut"
    reason = str(getattr(cause, "reason", error))
    return reason.partition(": ")[2] or reason  # without the name of the connection


def fetch_hub_file(
    repository: str, filename: str, revision: str, sha256: str | None, what: str
) -> Path:
    """The cached file of a hub repository at a pinned revision, downloaded unless it is cached.

    The file lies in the hub's own cache. The hub's client resumes an interrupted download.

    Args:
        repository: id of the repository, such as "openai/clip-vit-large-patch14".
        filename: path of the file in the repository.
        revision: commit, tag or branch.
        sha256: SHA-256 of the file, 64 hexadecimal digits; None skips the comparison.
        what: name of the file with size and licence, for messages.

    Raises:
        MissingResourceError: offline and not cached, not reachable, no such repository or
            revision, or another SHA-256.
    """
    local = offline()
    command = f"hf download {repository} {filename} --revision {revision}"
    if local and hub_snapshot(repository, revision) is None:
        raise _not_on_the_hub(what, None, command)
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(repository, filename, revision=revision, local_files_only=local)
    except (OSError, ValueError, RuntimeError) as error:  # the hub's errors are subclasses of these
        raise _not_on_the_hub(what, error, command) from error
    return verified(Path(path), sha256, what) if sha256 else Path(path)


def fetch_hub_repository(
    repository: str, revision: str, what: str, only: Sequence[str] = (), command: str = ""
) -> Path:
    """The folder of a hub repository at a revision in the hub's own cache.

    Args:
        repository: id of the repository.
        revision: commit, tag or branch.
        what: name of the model with size and licence, for messages.
        only: patterns of the files to fetch, in which `*` matches slashes too. Empty: all files
            but those of other frameworks.
        command: command that fetches all that is needed, for messages. Empty: the hub's own.

    Raises:
        MissingResourceError: as `fetch_hub_file`.
    """
    command = command or f"hf download {repository} --revision {revision}"
    if offline() and hub_snapshot(repository, revision) is None:
        raise _not_on_the_hub(what, None, command)
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            local_files_only=offline(),
            ignore_patterns=list(OTHER_FRAMEWORKS),
            allow_patterns=list(words_of("only", only)) or None,
        )
        return Path(folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise _not_on_the_hub(what, error, command) from error


def hub_snapshot(repository: str, revision: str) -> Path | None:
    """The folder of a repository's revision in the hub's cache; None if nothing of it is here.

    It is models--owner--name/snapshots/COMMIT, where refs/NAME holds the commit of a branch. Its
    name is always a commit.
    """
    from huggingface_hub import constants

    base = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    reference = base / "refs" / revision
    try:
        commit = reference.read_text("utf-8").strip() if reference.is_file() else revision
    except (OSError, UnicodeDecodeError):
        return None
    folder = base / "snapshots" / commit
    return folder if COMMIT.fullmatch(commit) and folder.is_dir() else None


def _not_on_the_hub(what: str, error: Exception | None, command: str) -> MissingResourceError:
    state = f"could not be fetched ({type(error).__name__})"
    if offline():
        state = "is not in the hub's cache and fetching is off"
    remedy = f"run `{command}` on a machine with a network, or give a local path"
    return MissingResourceError(f"{what} {state}: {remedy}")


@contextmanager
def without_loading_bars() -> Iterator[None]:
    """A block, or a decorated function, in which libraries load weights without progress bars.

    Bars of downloads stay. Settings of the libraries are as before afterwards.
    """
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging as transformers_logging

    downloads_shown = not are_progress_bars_disabled()
    switches = [transformers_logging]
    if "diffusers" in sys.modules:
        from diffusers.utils import logging as diffusers_logging

        switches.append(diffusers_logging)
    shown = [switch for switch in switches if switch.is_progress_bar_enabled()]
    for switch in shown:
        switch.disable_progress_bar()
    if downloads_shown:
        enable_progress_bars()
    try:
        yield
    finally:
        for switch in shown:
            switch.enable_progress_bar()
        if not downloads_shown:
            disable_progress_bars()
