"""A download that is cut, killed, raced or fooled, by a real server on this machine."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ddpo import download as module
from ddpo.errors import MissingResourceError
from ddpo.weights import fetch_url

CONTENT = os.urandom(3 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2
FETCH = "import sys; from ddpo.weights import fetch_url; print(fetch_url(sys.argv[1], sys.argv[2], 'a file'))"


class Server(ThreadingHTTPServer):
    """Serves `content`; what it is told to do wrong is in its fields."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = CONTENT, '"one"'
        self.cuts = 0  # connections that are still to be broken half-way
        self.ranges = True  # whether Range is heeded
        self.pause = 0.0  # seconds before each 64 KiB
        self.told_length: int | None = None
        self.asked: list[tuple[str | None, str | None]] = []  # Range and If-Range of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/weights.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        asked, validator = self.headers.get("Range"), self.headers.get("If-Range")
        server.asked.append((asked, validator))
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0  # type: ignore[index]
        if validator not in (None, server.etag):
            start = 0
        if start and start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            )
        self.send_header("Content-Length", str(server.told_length or len(server.content) - start))
        self.send_header("ETag", server.etag)
        self.end_headers()
        end = len(server.content)
        if server.cuts:
            server.cuts -= 1
            end = start + (end - start) // 2
        for position in range(start, end, 1 << 16):
            time.sleep(server.pause)
            self.wfile.write(server.content[position : min(position + (1 << 16), end)])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path / "cache"))
    for name in (
        "DDPO_OFFLINE",
        "HF_HUB_OFFLINE",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    with Server() as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield http
        http.shutdown()
        thread.join()


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def leave_half(server: Server, tmp_path: Path) -> Path:
    """The state after a first attempt that every connection broke."""
    server.cuts = 99
    with pytest.raises(
        MissingResourceError, match=r"a file was cut short .* MB are kept: run it again to go on"
    ):
        fetch_url(server.url, SHA256, "a file")
    server.cuts = 0
    server.asked.clear()
    assert files(tmp_path) == [".weights.bin.partial", ".weights.bin.partial.mark"]
    partial = next((tmp_path / "cache").rglob("*.partial"))
    os.truncate(partial, HALF)
    assert partial.read_bytes() == CONTENT[:HALF]
    return partial


def test_a_cut_connection_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cuts = 2
    assert fetch_url(server.url, SHA256, "a file").read_bytes() == CONTENT
    three_quarters = HALF + (len(CONTENT) - HALF) // 2
    assert server.asked == [
        (None, None),
        (f"bytes={HALF}-", '"one"'),
        (f"bytes={three_quarters}-", '"one"'),
    ]
    assert files(tmp_path) == ["weights.bin"]


def test_the_next_fetch_goes_on_from_what_the_last_one_left(server: Server, tmp_path: Path) -> None:
    leave_half(server, tmp_path)
    seen: list[tuple[int, int | None]] = []
    path = fetch_url(server.url, SHA256, "a file", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert server.asked == [(f"bytes={HALF}-", '"one"')]
    assert seen[0][0] > HALF
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert files(tmp_path) == ["weights.bin"]


def test_a_server_that_ignores_ranges_sends_it_all_again(server: Server, tmp_path: Path) -> None:
    leave_half(server, tmp_path)
    server.ranges = False
    assert fetch_url(server.url, SHA256, "a file").read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_new_version_on_the_server_is_fetched_from_its_first_byte(
    server: Server, tmp_path: Path
) -> None:
    leave_half(server, tmp_path)
    server.content, server.etag = CONTENT[::-1], '"two"'
    path = fetch_url(server.url, hashlib.sha256(server.content).hexdigest(), "a file")
    assert path.read_bytes() == CONTENT[::-1]


def test_a_damaged_beginning_is_fetched_again(server: Server, tmp_path: Path) -> None:
    partial = leave_half(server, tmp_path)
    partial.write_bytes(bytes(HALF))
    assert fetch_url(server.url, SHA256, "a file").read_bytes() == CONTENT
    assert [asked for asked, _ in server.asked] == [f"bytes={HALF}-", None]


@pytest.mark.parametrize(("kept", "requests"), [(CONTENT, 1), (CONTENT + b"more", 2)])
def test_a_partial_file_that_is_whole_or_too_long(
    server: Server, tmp_path: Path, kept: bytes, requests: int
) -> None:
    partial = leave_half(server, tmp_path)
    partial.write_bytes(kept)
    assert fetch_url(server.url, SHA256, "a file").read_bytes() == CONTENT
    assert len(server.asked) == requests


def test_a_full_disk_is_told_before_the_download(server: Server, tmp_path: Path) -> None:
    server.told_length = 10**18
    with pytest.raises(
        MissingResourceError,
        match=r"a file takes 1,000,000,000,000\.0 MB, but only .* MB are free at",
    ):
        fetch_url(server.url, SHA256, "a file")
    assert files(tmp_path) == []


def test_a_kill_leaves_the_beginning_to_the_next_process(server: Server, tmp_path: Path) -> None:
    server.pause = 0.02
    process = subprocess.Popen([sys.executable, "-c", FETCH, server.url, SHA256])
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not any(
        p.stat().st_size > 1 << 18 for p in (tmp_path / "cache").rglob("*.partial")
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert files(tmp_path) == [".weights.bin.partial", ".weights.bin.partial.mark"]
    server.pause = 0.0
    assert fetch_url(server.url, SHA256, "a file").read_bytes() == CONTENT
    start = int(str(server.asked[-1][0]).removeprefix("bytes=").removesuffix("-"))
    assert (1 << 18) < start < len(CONTENT)


def test_two_processes_fetch_one_file_once(server: Server, tmp_path: Path) -> None:
    server.pause = 0.005
    command = [sys.executable, "-c", FETCH, server.url, SHA256]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert files(tmp_path) == ["weights.bin"]
