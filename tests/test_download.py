"""A download that is cut, killed or raced, by a real server on this machine: whole or not there."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

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
    """Serves `CONTENT`; its fields say what goes wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts = 0  # connections that are still to be broken half-way
        self.pause = 0.0  # seconds before each 64 KiB
        self.requests = 0

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
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        end = len(CONTENT)
        if server.cuts:
            server.cuts -= 1
            end //= 2
        for position in range(0, end, 1 << 16):
            time.sleep(server.pause)
            self.wfile.write(CONTENT[position : min(position + (1 << 16), end)])


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
        http.shutdown()
        thread.join()


def files(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_a_cut_connection_is_named_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.cuts = 1
    half = hashlib.sha256(CONTENT[: len(CONTENT) // 2]).hexdigest()
    with pytest.raises(MissingResourceError, match=f"cut short or another file.*SHA-256.*{half}"):
        fetch_url(server.url, SHA256, "a file")
    assert files(tmp_path) == []
    assert fetch_url(server.url, SHA256, "a file").read_bytes() == CONTENT


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


def test_processes_may_fetch_one_file_at_once(server: Server, tmp_path: Path) -> None:
    server.pause = 0.005
    command = [sys.executable, "-c", FETCH, server.url, SHA256]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert [str(path) for path in files(tmp_path)] == list(paths)
    assert Path(paths.pop()).read_bytes() == CONTENT


def test_what_an_older_version_left_is_never_used(server: Server) -> None:
    path = fetch_url(server.url, SHA256, "a file")
    path.rename(path.with_name(".weights.bin.partial"))
    assert fetch_url(server.url, SHA256, "a file").read_bytes() == CONTENT
    assert server.requests == 2
