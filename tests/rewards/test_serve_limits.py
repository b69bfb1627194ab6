"""Limits of the reward server: connections, time, memory, log, tokens, hosts and its own end."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from test_serve import post, request, serving

from ddpo.rewards.serve import guard
from ddpo.rewards.serve.budget import Budget
from ddpo.rewards.serve.guard import Guard
from ddpo.rewards.serve.wire import MOST_IMAGES, MOST_VALUES, Limits, Refused, parse_request
from ddpo.web import connections, logs
from ddpo.web.connections import affordable_connections
from tests.warm_start import Process, start_ddpo

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
POST = (
    b"POST /score/compressibility HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)

SLOW = """
import time
import torch
from pathlib import Path
from ddpo.rewards.card import RewardCard
from ddpo.types import RewardOutput


class Slow:
    card = RewardCard(
        id="slow", version="1", summary="sleeps as its prompt says", load="x:Slow", family="test",
        flaws="-", inputs=("image", "prompt"), dtype="float32", batch_invariant=False,
    )

    def __call__(self, batch):
        text = batch.prompts[0].text
        if text == "boom":
            raise ValueError("\\x1b[2J\\x07 tripped " + "x" * 5000)
        with open(Path(__file__).with_suffix(".calls"), "a") as calls:
            calls.write(text + "\\n")
        time.sleep(float(text))
        return RewardOutput(torch.ones(len(batch)))
"""


@pytest.fixture
def slow(tmp_path: Path) -> str:
    path = tmp_path / "slow.py"
    path.write_text(SLOW)
    return f"{path}:Slow"


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def connected(address: str, data: bytes = b"", receive_buffer: int = 0) -> socket.socket:
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", port_of(address)))
    connection.sendall(data)
    return connection


def answer(address: str, data: bytes) -> tuple[int, str]:
    """Status and body of the answer to raw bytes."""
    with connected(address, data) as connection:
        reply = http.client.HTTPResponse(
            connection, method=data.partition(b" ")[0].decode("latin-1")
        )
        reply.begin()
        return reply.status, reply.read().decode()


def ends_within(connection: socket.socket, seconds: float) -> bool:
    """True if the server ends the connection in time."""
    connection.settimeout(seconds)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def cut(connection: socket.socket, data: bytes, pause: float) -> bool:
    """True if the server resets the connection while it receives data again and again."""
    for _ in range(200):
        try:
            connection.sendall(data)
        except ConnectionError:
            return True
        time.sleep(pause)
    return False


def sent(prompt: str) -> bytes:
    """A request with one small image and a prompt."""
    body = json.loads(request())
    body["pictures"] = body["pictures"][:1]
    return json.dumps({**body, "prompts": [{"text": prompt}]}).encode()


# Who may ask


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:9000", "localhost", "LOCALHOST:1", "[::1]:8"]
)
def test_local_names_reach_a_server_without_a_token(address: str, host: str) -> None:
    assert answer(address, f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8712",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "10.0.0.1",
        "0.0.0.0",
        "",
        "[",
        "[::2]",
    ],
)
def test_another_name_is_refused_where_there_is_no_token(address: str, host: str) -> None:
    status, body = answer(address, f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert (status, "start it with a token" in body) == (403, True)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:8712", 200),
        ("http://evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("", 403),
    ],
)
def test_pages_of_another_origin_are_refused(address: str, origin: str, status: int) -> None:
    data = f"GET /health HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n"
    assert answer(address, data.encode())[0] == status


def test_a_token_replaces_the_check_of_the_host_and_covers_every_path() -> None:
    with serving("compressibility", token="right") as (address, _):
        named = "GET /health HTTP/1.1\r\nHost: gpu.example\r\nAuthorization: Bearer {}\r\n\r\n"
        assert answer(address, named.format("right").encode())[0] == 200
        for path in ("/", "/nothing", "/health/", "/card/x", "/../health", "/docs"):
            data = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            assert answer(address, data)[0] == 401


def test_wrong_tokens_are_limited_and_lock_nobody_of_this_machine_out() -> None:
    with serving("compressibility", token="right") as (address, _):
        line = "GET /health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n"
        found = [answer(address, line.format(f"guess {n}").encode())[0] for n in range(30)]
        assert found[: guard.MOST_WRONG] == [401] * guard.MOST_WRONG
        assert found[-9:] == [429] * 9
        assert answer(address, line.format("right").encode())[0] == 200


def test_another_machine_with_too_many_wrong_tokens_has_to_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def served(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    checked = Guard(served, "right")

    def status(client: str, token: str) -> int:
        seen: list[int] = []

        async def send(message: Any) -> None:
            seen.append(message.get("status", 0))

        headers = [(b"authorization", f"Bearer {token}".encode())]
        scope = {"type": "http", "headers": headers, "client": (client, 1), "method": "GET"}
        asyncio.run(checked(scope, lambda: asyncio.sleep(0), send))  # type: ignore[arg-type]
        return seen[0]

    assert status("192.0.2.1", "right") == 200
    for _ in range(guard.MOST_WRONG + 1):
        assert status("192.0.2.1", "wrong") == 401
    assert status("192.0.2.1", "right") == 429  # not even compared
    assert status("192.0.2.2", "right") == 200
    monkeypatch.setattr(guard, "PERIOD", 0.0)
    assert status("192.0.2.1", "right") == 200
    for number in range(3 * guard.MOST_ADDRESSES):
        status(f"2001:db8::{number:x}", "wrong")
    assert len(checked._wrong._counts) <= guard.MOST_ADDRESSES


# What is answered


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving("compressibility", limits=Limits(4_000_000, 1_000_000)) as (found, _):
        yield found


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"OPTIONS /score/x HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"PUT /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 405),
        (b"GET /health/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /card/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /card/%1b%00%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (POST + b"\r\n", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n", 400),
        (POST + b"Content-Length: 4000001\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000, 400),
        (b"\x16\x03\x01 no HTTP at all\r\n\r\n", 400),
    ],
)
def test_odd_requests_are_answered_with_one_line_of_json(
    address: str, data: bytes, status: int
) -> None:
    found, body = answer(address, data)
    assert found in (status, 400)
    if not data.startswith(b"HEAD"):
        line = json.loads(body)["error"]
        assert line.isprintable()
        assert "\n" not in line


def test_pipelined_requests_are_answered_in_order(address: str) -> None:
    one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    two = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connected(address, one + one + two) as connection:
        found = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert [part[:3] for part in found.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"404"]


def test_a_client_that_waits_for_leave_to_send_gets_it_only_if_the_body_is_taken(
    address: str,
) -> None:
    head = POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    body = request()
    with connected(address, head % len(body)) as connection:
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    with connected(address, head % 5_000_000) as connection:
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (request(prompts=[{"text": "a" * 40_000}] * 2), "has more than 32768 characters"),
        (request(prompts=[{"text": ""}] * 5000), f"more than {MOST_IMAGES} images"),
        (request(pictures=[""] * 5000), f"more than {MOST_IMAGES} images"),
        (b"[" + b"[]," * MOST_VALUES + b"[]]", f"more than {MOST_VALUES} values"),
    ],
)
def test_numbers_of_images_characters_and_values_are_bounded(body: bytes, line: str) -> None:
    with pytest.raises(Refused, match=line) as raised:
        parse_request(body, Limits())
    assert raised.value.status == 413


def test_what_a_request_repeats_in_its_error_is_short(address: str) -> None:
    for changes in ({"api": "x" * 100_000}, {"progress": "y" * 100_000}):
        status, reply = post(address, "/score/compressibility", request(**changes))
        assert (status, len(reply["error"]) < 300) == (400, True)


def test_an_error_of_a_reward_is_one_short_printable_line(slow: str) -> None:
    with serving(slow) as (address, _):
        status, reply = post(address, "/score/slow", sent("boom"))
    assert status == 422
    assert "tripped" in reply["error"]
    assert reply["error"].isprintable()
    assert len(reply["error"]) < 1200


# Time


def test_slow_headers_bodies_and_readers_end(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for phase in ("headers", "rest", "answer"):
        monkeypatch.setitem(connections.SECONDS, phase, 0.5)
    with serving("compressibility", slow, seconds=1.0) as (address, _):
        assert ends_within(connected(address), 4)
        assert ends_within(connected(address, b"GET /health HTTP/1.1\r\nHost: l"), 4)
        status, body = answer(address, POST + b"Content-Length: 100\r\n\r\n{")
        assert (status, "did not arrive within 1 s" in body) == (408, True)
        with connected(address, POST + b"Content-Length: 999999999\r\n\r\n{") as refused:
            assert ends_within(refused, 4)  # the rest of a refused body is not read forever
        many = b"GET /card/slow HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3000
        with connected(address, receive_buffer=4096) as deaf:
            deaf.settimeout(1)
            with suppress(OSError):
                deaf.sendall(many)
            time.sleep(3)
            assert cut(deaf, b"x" * 100_000, pause=0.0)


def test_a_header_that_drips_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.SECONDS, "headers", 0.5)
    with serving("compressibility") as (address, _), connected(address) as dripping:
        start = time.monotonic()
        assert cut(dripping, b"G", pause=0.05)
        assert time.monotonic() - start < 5


def test_a_reward_that_hangs_costs_its_client_a_bounded_time(slow: str) -> None:
    with serving(slow, "compressibility", seconds=1.0) as (address, _):
        start = time.monotonic()
        status, reply = post(address, "/score/slow", sent("4"))
        assert (status, reply["error"]) == (503, "the request was not scored within 1 s")
        assert time.monotonic() - start < 3
        assert post(address, "/score/compressibility", request())[0] == 200


def test_requests_whose_clients_left_are_not_scored(slow: str, tmp_path: Path) -> None:
    with serving(slow) as (address, app):
        first = threading.Thread(target=post, args=(address, "/score/slow", sent("1.5")))
        first.start()
        time.sleep(0.5)
        for number in range(10):
            body = sent(f"0.00{number}1")
            head = POST.replace(b"compressibility", b"slow")
            head += f"Content-Length: {len(body)}\r\n\r\n".encode()
            with connected(address, head + body):
                time.sleep(0.02)
        first.join()
        assert post(address, "/score/slow", sent("0.5"))[0] == 200
        assert (tmp_path / "slow.calls").read_text().split() == ["1.5", "0.5"]
        assert app.state.service._pixels.left == 4 * Limits().pixels


# Connections and memory


def test_idle_connections_make_room_and_busy_ones_stay(slow: str) -> None:
    with (
        serving("compressibility", slow, connections=16) as (address, _),
        ThreadPoolExecutor(1) as pool,
    ):
        busy = pool.submit(post, address, "/score/slow", sent("1.5"))
        time.sleep(0.3)
        idle = [connected(address) for _ in range(100)]
        for _ in range(20):
            assert post(address, "/score/compressibility", request())[0] == 200
        assert not busy.done()
        assert busy.result()[0] == 200
        ended = sum(ends_within(each, 0.01) for each in idle)
        assert ended >= 84
        for each in idle:
            each.close()


def test_where_all_connections_are_busy_a_new_one_is_refused(slow: str) -> None:
    with (
        serving(slow, connections=2) as (address, _),
        ThreadPoolExecutor(2) as pool,
    ):
        busy = [pool.submit(post, address, "/score/slow", sent("1")) for _ in range(2)]
        time.sleep(0.4)
        with connected(address) as third:
            assert third.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
        assert [each.result()[0] for each in busy] == [200, 200]


def test_decoded_pixels_of_all_requests_are_bounded_and_no_request_is_lost(slow: str) -> None:
    with serving(slow, limits=Limits(pixels=600)) as (address, app):
        budget = app.state.service._pixels
        least = budget.left
        with ThreadPoolExecutor(12) as pool:
            found = [pool.submit(post, address, "/score/slow", sent("0.05")) for _ in range(12)]
            while not all(each.done() for each in found):
                least = min(least, budget.left)
                time.sleep(0.005)
        assert [each.result()[0] for each in found] == [200] * 12
        assert 0 <= least < 600  # four requests of 24 × 24 at once
        assert budget.left == 4 * 600


def test_bodies_of_all_requests_are_bounded() -> None:
    with serving("compressibility", limits=Limits(body_bytes=20_000)) as (address, app):
        head = POST + b"Content-Length: 20000\r\n\r\n"
        held = [connected(address, head + b" " * 19_000) for _ in range(8)]
        time.sleep(0.5)
        status, body = answer(address, head + b" " * 19_000)
        assert (status, "too many large requests" in body) == (429, True)
        for each in held:
            each.close()
        time.sleep(0.3)
        assert app.state.service._bodies.left == 8 * 20_000
        assert post(address, "/score/compressibility", request())[0] == 200


def test_a_budget_serves_in_order_and_forgets_who_gave_up() -> None:
    async def scenario() -> list[str]:
        budget = Budget(10)
        got: list[str] = []

        async def taker(name: str, amount: int) -> None:
            await budget.take(amount)
            got.append(name)

        await budget.take(8)
        large = asyncio.create_task(taker("large", 9))
        await asyncio.sleep(0)
        small = asyncio.create_task(taker("small", 1))
        await asyncio.sleep(0)
        assert got == []  # the small one does not overtake
        large.cancel()
        await asyncio.sleep(0)
        await small
        assert budget.left == 1
        budget.give(9)
        assert budget.left == 10
        return got

    assert asyncio.run(scenario()) == ["small"]


def test_few_open_files_allow_fewer_connections_or_end_in_one_line() -> None:
    code = (
        "import resource, sys\n"
        "from ddpo.web.connections import affordable_connections\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)\n"
        "print(affordable_connections(256))\n"
    )

    def run(files: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(files)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    assert 64 <= int(run(256).stdout) <= 124  # half of the files, less those in use
    assert int(run(1024).stdout) == 256
    assert "raise it to at least" in run(16).stderr
    assert affordable_connections(4) == 4


# The log


def test_the_log_has_one_line_per_kind_and_period(monkeypatch: pytest.MonkeyPatch) -> None:
    few = logs.FewLines()
    form = logs.OneLine()

    def lines(count: int, message: str, *values: object, error: bool = False) -> list[str]:
        found = []
        for _ in range(count):
            info = (OSError, OSError("\x1b[31mred\nnext"), None) if error else None
            record = logging.LogRecord("x", 30, "p", 1, message, values, info)
            if few.filter(record):
                found.append(form.format(record))
        return found

    assert len(lines(10_000, "got %s", "\x1b[2J\nend")) == 1
    (line,) = lines(5, "other %s", "\x1b[2J\rend" + "y" * 5000)
    assert line.isprintable()
    assert len(line) < 500
    (line,) = lines(9, "failed\nTraceback (most recent call last)", error=True)
    assert line.isprintable()
    assert "Traceback" not in line
    assert sum(len(lines(1, f"kind {number}")) for number in range(1000)) < logs.MOST_LINES
    monkeypatch.setattr(few, "_ends", 0.0)
    (line,) = lines(3, "got %s", "more")
    assert "(9999 more of this kind in the minute before)" in line


# The process


@contextmanager
def process(*arguments: str, files: int = 1024) -> Iterator[tuple[Process, str]]:
    """`ddpo rewards serve` and the address of its first reward."""
    words = ("rewards", "serve", *arguments, "--port", "0")
    with start_ddpo(*words, cwd=ROOT, limits={resource.RLIMIT_NOFILE: files}) as running:
        try:
            assert running.stdout is not None
            yield running, running.stdout.readline().split()[0].rpartition("/")[0]
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_running_request_finish(slow: str, number: signal.Signals) -> None:
    with process(slow) as (running, address), ThreadPoolExecutor(1) as pool:
        idle = [connected(address) for _ in range(5)]
        answered = pool.submit(post, address, "/score/slow", sent("1.5"))
        time.sleep(0.7)
        start = time.monotonic()
        running.send_signal(number)
        assert answered.result()[0] == 200
        _, err = running.communicate(timeout=20)
        assert time.monotonic() - start < 8
        assert (running.returncode, err) in [(-number, ""), (130, "")]
        for each in idle:
            each.close()


def test_a_hanging_reward_does_not_keep_the_server_from_ending(slow: str) -> None:
    with process(slow) as (running, address), ThreadPoolExecutor(1) as pool:
        answered = pool.submit(post, address, "/score/slow", sent("60"))
        time.sleep(0.7)
        start = time.monotonic()
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=30)
        assert time.monotonic() - start < 14
        assert "Traceback" not in err
        assert len(err.splitlines()) <= 3
        assert answered.exception() is not None or answered.result()[0] >= 500


@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("no-such-host.invalid", "cannot listen on no-such-host.invalid port 8712: "),
        ("a" * 300, "cannot listen on aaaa"),
        ("192.0.2.1", "cannot listen on 192.0.2.1 port 8712: "),
        ("a\0b", "cannot listen on a"),
    ],
)
def test_an_unusable_address_is_one_line(ddpo: Run, host: str, line: str) -> None:
    code, _, err = ddpo("rewards", "serve", "compressibility", "--host", host, "--token", "t")
    assert (code, len(err.splitlines())) == (2, 1)
    assert line in err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--port", "1000000"), ("--timeout", "0"), ("--max-connections", "0"), ("--timeout", "-1")],
)
def test_an_unusable_number_is_refused(ddpo: Run, option: str, value: str) -> None:
    code, out, err = ddpo("rewards", "serve", "compressibility", option, value)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert f"{option} must be at least" in err


@pytest.mark.slow
def test_a_small_soak_beside_idle_connections_and_hostile_requests() -> None:
    command = [sys.executable, "tools/torture", "serving", "--size", "0.01", "--seed", "3"]
    found = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "good requests beside idle connections: 160 tries, 0 faults" in found.stdout
