"""Downloads from a real server on this machine that are cut, stalled, killed or raced."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ddpo import weights
from ddpo.errors import MissingResourceError
from ddpo.weights import fetch_url

CONTENT = os.urandom(3 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FETCH = """
import sys
from ddpo.weights import fetch_url
print(fetch_url(sys.argv[1], sys.argv[2], "a file"))
"""


class Server(ThreadingHTTPServer):
    """Serves `CONTENT`; its fields select the faults."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts = 0  # number of further connections that are cut half-way
        self.stall_after: int | None = None  # bytes after which nothing more is sent
        self.pause = 0.0  # seconds before each 64 KiB
        self.announce = True  # whether Content-Length is sent
        self.requests = 0
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/weights.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.requests += 1
        if server.stall_after == 0:
            server.over.wait(30)
            return
        self.send_response(200)
        if server.announce:
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        end = len(CONTENT) if server.stall_after is None else server.stall_after
        if server.cuts:
            server.cuts -= 1
            end //= 2
        for position in range(0, end, 1 << 16):
            time.sleep(server.pause)
            self.wfile.write(CONTENT[position : min(position + (1 << 16), end)])
        if server.stall_after is not None:
            server.over.wait(30)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path / "cache"))
    proxies = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    for name in ("DDPO_OFFLINE", "HF_HUB_OFFLINE", *proxies):
        monkeypatch.delenv(name, raising=False)
    with Server() as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield http
        http.over.set()
        http.shutdown()
        thread.join()


def files(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


@pytest.mark.parametrize("announce", [True, False], ids=["length", "no length"])
def test_a_cut_connection_is_tried_again(server: Server, tmp_path: Path, announce: bool) -> None:
    server.cuts = 1
    server.announce = announce
    path = fetch_url(server.url, SHA256, "a file")
    assert path.read_bytes() == CONTENT
    assert files(tmp_path) == [path]
    assert server.requests == 2


@pytest.mark.parametrize(
    ("announce", "cause"),
    [(True, r"could not be fetched \(the connection was cut\): get http"), (False, "cut short")],
)
def test_a_connection_that_is_always_cut_is_named_and_leaves_nothing(
    server: Server, tmp_path: Path, announce: bool, cause: str
) -> None:
    server.cuts = 99
    server.announce = announce
    with pytest.raises(MissingResourceError, match=cause) as failure:
        fetch_url(server.url, SHA256, "a file")
    assert "\n" not in str(failure.value)
    assert files(tmp_path) == []
    assert server.requests == 1 + weights.RETRIES


@pytest.mark.parametrize("after", [0, 1 << 20], ids=["at once", "half-way"])
def test_a_silent_server_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(weights, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(weights, "RETRIES", 0)
    server.stall_after = after
    started = time.monotonic()
    with pytest.raises(MissingResourceError, match=r"\(no answer for 0.2 seconds\): get .*put it"):
        fetch_url(server.url, SHA256, "a file")
    assert time.monotonic() - started < 10
    assert files(tmp_path) == []


def test_a_full_disk_is_named_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    """A limit of the process on the size of a file makes `write` fail as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(MissingResourceError) as failure:
            fetch_url(server.url, SHA256, "a file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    folder = tmp_path / "cache" / "files" / SHA256[:16]
    expected = f"a file cannot be written to {folder} (File too large)"
    assert str(failure.value) == f"{expected}; set DDPO_CACHE to another folder"
    assert files(tmp_path) == []
    assert server.requests == 1


def test_a_kill_leaves_no_file_under_its_name(server: Server, tmp_path: Path) -> None:
    server.pause = 0.02
    process = subprocess.Popen([sys.executable, "-c", FETCH, server.url, SHA256])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(p.stat().st_size for p in files(tmp_path)):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = files(tmp_path)
    assert 0 < left.stat().st_size < len(CONTENT)
    assert left.name != "weights.bin"
    server.pause = 0.0
    path = fetch_url(server.url, SHA256, "a file")
    assert (path.name, path.read_bytes()) == ("weights.bin", CONTENT)
    assert files(tmp_path) == [path], "what the killed process left is removed"


def test_processes_may_fetch_one_file_at_once(server: Server, tmp_path: Path) -> None:
    server.pause = 0.005
    command = [sys.executable, "-c", FETCH, server.url, SHA256]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert [str(path) for path in files(tmp_path)] == list(paths)
    assert Path(paths.pop()).read_bytes() == CONTENT


def test_other_users_may_read_a_shared_cache(server: Server) -> None:
    assert fetch_url(server.url, SHA256, "a file").stat().st_mode & 0o777 == 0o644


def test_the_leftovers_of_an_older_version_are_never_used(server: Server) -> None:
    path = fetch_url(server.url, SHA256, "a file")
    path.rename(path.with_name(".weights.bin.partial"))
    assert fetch_url(server.url, SHA256, "a file").read_bytes() == CONTENT
    assert server.requests == 2
