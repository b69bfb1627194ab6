"""Serving under load: good requests beside idle connections and hostile requests.

The server runs in a process that may open 256 files, fewer than there are idle connections. Every
good request has to succeed at its first try with the score that the reward gives locally.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from outcome import Outcome
from PIL import Image

REQUESTS = 16_000
IDLE = 400
PACE = 50  # idle connections that come again within half a second
FILES = 256
WORKERS = 8
HOSTILE_SHARE = 0.05
ANSWER_SECONDS = 60.0
PAUSE = 1.0  # seconds after which a client opens a new connection; the server ends it after 5
MOST_LOG = 1_000_000  # bytes
MOST_GROWTH = 32.0  # MiB of resident memory between a quarter of the requests and the last
KINDS = 16  # images with known scores
MIB = 1 << 20


def run(size: float, seed: int, folder: Path) -> list[Outcome]:
    """Requests of good and hostile clients beside idle connections."""
    good = Outcome("good requests beside idle connections")
    hostile = Outcome("hostile requests")
    bounds = Outcome("bounds of memory, log, open files and shutdown")
    bodies = known_bodies(seed)
    idle = max(20, int(IDLE * min(1, size * 10)))
    count = max(40, int(REQUESTS * size))
    quarter = count // 4
    with server(folder) as running:
        each_attack_once(running.port, hostile)
        with idle_connections(running.port, seed, idle) as opened_so_far:
            memory = []
            for part in (quarter, count - quarter):
                send_all(running.port, bodies, part, random.Random(seed + part), good, hostile)
                memory.append(running.memory())
                bounds.count(running.fault())
                bounds.measures[f"open files after {good.tries}"] = running.open_files()
        bounds.measures["idle connections opened"] = opened_so_far[0]
    bounds.measures.update({"MiB at 25 %": memory[0], "MiB at the end": memory[1]})
    grown = memory[1] - memory[0] > MOST_GROWTH
    bounds.count(f"memory grew from {memory[0]:.0f} to {memory[1]:.0f} MiB" if grown else None)
    bounds.count(running.end_fault)
    bounds.measures["log bytes"] = running.log.stat().st_size
    bounds.count("the log is longer than 1 MB" if running.log.stat().st_size > MOST_LOG else None)
    return [good, hostile, bounds]


@dataclass(slots=True)
class Running:
    """A server process.

    Attributes:
        port: port on loopback.
        log: file with its standard error.
        end_fault: the fault of its end, once it has ended.
    """

    process: subprocess.Popen[str]
    port: int
    log: Path
    end_fault: str | None = None

    def memory(self) -> float:
        """Resident memory, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def open_files(self) -> int:
        """Number of open files."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def fault(self) -> str | None:
        """The early end of the process, in words."""
        return None if self.process.poll() is None else f"ended with {self.process.returncode}"


@contextmanager
def server(folder: Path) -> Iterator[Running]:
    """`ddpo rewards serve` with few open files, which is asked to end with SIGTERM."""
    log = folder / "server.log"
    command = [sys.executable, "-m", "ddpo", "rewards", "serve", "compressibility", "--port", "0"]
    limits = ["--max-body-mb", "4", "--max-pixels", "1000000", "--timeout", "30"]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*command, *limits],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES)),
        ) as process,
    ):
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise RuntimeError(f"the server did not start: {log.read_text()}")
        running = Running(process, int(line.split()[0].split(":")[2].split("/")[0]), log)
        try:
            yield running
            start = time.monotonic()
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            if process.poll() is None or time.monotonic() - start > 15:
                running.end_fault = "it did not end within 15 s of SIGTERM"
        finally:
            process.kill()


@contextmanager
def idle_connections(port: int, seed: int, count: int) -> Iterator[list[int]]:
    """Connections that send nothing, or half a request, or do not read; closed ones come again.

    Yields:
        The number of connections opened so far, in a list.
    """
    total = [0]
    over = threading.Event()
    chance = random.Random(seed)

    def keep() -> None:
        held: list[socket.socket] = []
        while not over.is_set():
            held = [each for each in held if not closed(each)]
            for _ in range(min(count - len(held), PACE if total[0] >= count else count)):
                with suppress(OSError):
                    held.append(opened(port, chance))
                    total[0] += 1
            over.wait(0.5)
        for each in held:
            each.close()

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    time.sleep(1)
    yield total
    over.set()
    thread.join(20)


def opened(port: int, chance: random.Random) -> socket.socket:
    """A connection of one of the idle kinds."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.sendall(
        chance.choice(
            [
                b"",
                b"G",
                b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
                b"POST /score/compressibility HTTP/1.1\r\nHost: evil.example\r\n"
                b"Content-Type: application/json\r\nContent-Length: 4000000\r\n\r\n{",
                b"GET /card/compressibility HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 4,
            ]
        )
    )
    return connection


def closed(connection: socket.socket) -> bool:
    """True for a connection that the server has ended; its answers stay unread."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


def known_bodies(seed: int) -> list[tuple[bytes, list[float]]]:
    """Bodies of good requests, and their local scores."""
    from ddpo.rewards.serve.wire import encode_batch
    from ddpo.rewards.zoo import resolve
    from ddpo.types import ImageBatch, Prompt

    reward = resolve("compressibility").make()
    chance = np.random.default_rng(seed)
    found = []
    for count in chance.integers(1, 4, KINDS):
        images = chance.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        batch = ImageBatch.of_uint8(images, [Prompt("a crab")] * int(count))
        found.append((encode_batch(batch, reward.card), reward(batch).values.tolist()))
    return found


def send_all(
    port: int,
    bodies: list[tuple[bytes, list[float]]],
    count: int,
    chance: random.Random,
    good: Outcome,
    hostile: Outcome,
) -> None:
    """Sends good requests from several threads, and hostile ones between them."""
    clients = threading.local()
    attacks = hostile_requests()
    lock = threading.Lock()

    def one(number: int, attack: str | None) -> None:
        if attack is not None:
            data, statuses = attacks[attack]
            # among many connections the server may close this one before it has read everything
            fault = attacked(port, data, (*statuses, 0))
            with lock:
                hostile.count(fault and f"{attack}: {fault}")
        fault = asked(port, clients, *bodies[number % len(bodies)], keep=number % 3 > 0)
        with lock:
            good.count(fault)

    names = list(attacks)
    picked = [
        chance.choice(names) if chance.random() < HOSTILE_SHARE else None for _ in range(count)
    ]
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(one, range(count), picked))


def each_attack_once(port: int, hostile: Outcome) -> None:
    """Sends every hostile request to an idle server, which has to answer each."""
    for name, (data, statuses) in hostile_requests().items():
        fault = attacked(port, data, statuses)
        hostile.count(fault and f"{name}: {fault}")


def asked(
    port: int, clients: threading.local, body: bytes, scores: list[float], keep: bool
) -> str | None:
    """The fault of a good request; None if its scores are right."""
    connection = getattr(clients, "open", None) if keep else None
    again = connection is not None
    if connection is None or time.monotonic() - clients.used > PAUSE:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    clients.open = None
    try:
        connection.request(
            "POST", "/score/compressibility", body, {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}{' on an open connection' * again}: {error}"
    if answer.status != 200:
        return f"status {answer.status}: {content[:200]!r}"
    clients.open = connection
    clients.used = time.monotonic()
    found = json.loads(content)["values"]
    return None if found == scores else f"scores {found}, expected {scores}"


def attacked(port: int, data: bytes, statuses: tuple[int, ...]) -> str | None:
    """The fault of the answer to raw bytes; 0 among the statuses stands for a closed connection."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            with suppress(OSError):
                connection.sendall(data)
            answer = connection.recv(64)
    except TimeoutError:
        return "no answer within 20 s"
    except OSError:
        answer = b""
    status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
    return None if status in statuses else f"answered {answer[:40]!r}, expected {statuses}"


def hostile_requests() -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """Raw requests and the statuses that may answer them."""
    host = b"Host: 127.0.0.1\r\n"
    post = (
        b"POST /score/compressibility HTTP/1.1\r\n" + host + b"Content-Type: application/json\r\n"
    )
    found: dict[str, tuple[bytes, tuple[int, ...]]] = {
        "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400,)),
        "no end of the line": (b"A" * 100_000, (400,)),
        "long headers": (b"GET /health HTTP/1.1\r\n" + host + b"X: " + b"a" * 70_000, (400,)),
        "no host": (b"GET /health HTTP/1.1\r\n\r\n", (400,)),
        "old HTTP": (b"GET /health HTTP/1.0\r\n\r\n", (403,)),
        "another host": (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", (403,)),
        "two hosts": (b"GET /health HTTP/1.1\r\n" + host + host + b"\r\n", (400,)),
        "another origin": (
            b"GET /health HTTP/1.1\r\n" + host + b"Origin: http://evil.example\r\n\r\n",
            (403,),
        ),
        "path upwards": (b"GET /card/../../etc/passwd HTTP/1.1\r\n" + host + b"\r\n", (404,)),
        "control characters": (b"GET /card/%1b%5b2J%00 HTTP/1.1\r\n" + host + b"\r\n", (404,)),
        "negative length": (post + b"Content-Length: -1\r\n\r\n", (400,)),
        "long length": (post + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", (400, 413)),
        "two lengths": (post + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", (400,)),
        "length and chunks": (
            post + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            (400,),
        ),
        "bad chunks": (post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", (400,)),
        "OPTIONS": (b"OPTIONS /score/compressibility HTTP/1.1\r\n" + host + b"\r\n", (405,)),
        "upgrade": (
            b"GET /health HTTP/1.1\r\n"
            + host
            + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            (200,),
        ),
    }
    for name, body, status in hostile_bodies():
        length = f"Content-Length: {len(body)}\r\n\r\n".encode()
        found[name] = (post + length + body, (status,))
    return found


def hostile_bodies() -> Iterator[tuple[str, bytes, int]]:
    """Bodies that are malformed or unpack to much, and their statuses."""
    yield "empty body", b"", 400
    yield "deep JSON", b"[" * 1_000_000, 400
    yield "many values", b"[" + b"{}," * 600_000 + b"{}]", 413
    yield "long number", b'{"api": ' + b"9" * 100_000 + b"}", 400
    yield "half a character", b'{"api": 1, "prompts": [{"text": "\\ud800"}]}', 400
    yield "long prompt", request(picture(png()), text="a" * 100_000), 413
    yield "image bomb", request(picture(png_header(40_000, 40_000))), 413
    yield "compressed comment", request(picture(png_with_comment())), 400
    for kind in ("GIF", "WEBP", "TIFF"):
        file = io.BytesIO()
        Image.new("RGB", (2000, 2000)).save(file, kind)
        yield f"{kind} bomb", request(picture(file.getvalue())[:2_000_000]), 400


def request(image: str, text: str = "a crab") -> bytes:
    return json.dumps({"api": 1, "prompts": [{"text": text}], "pictures": [image]}).encode()


def picture(data: bytes) -> str:
    return base64.b64encode(data).decode()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file. Source: PNG specification, section 5.3."""
    checksum = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + checksum


def png_header(width: int, height: int) -> bytes:
    """A PNG file that ends behind its header."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + b"\x08\x02\x00\x00\x00") + chunk(b"IDAT", b"")
    )


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def png_with_comment() -> bytes:
    """A small PNG file whose compressed comment unpacks to 256 MB."""
    bomb = zlib.compress(b"\0" * (256 * MIB), 9)
    return png()[:33] + chunk(b"zTXt", b"Comment\0\0" + bomb) + png()[33:]
