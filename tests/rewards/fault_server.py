"""A scripted server of OpenAI's protocol on loopback: it answers well, late, never or malformed."""

from __future__ import annotations

import base64
import io
import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["FaultServer", "fault_server"]

CAPTION = "the image contains a cat"


def completion(content: Any) -> bytes:
    top = [
        {"token": "Yes", "logprob": -0.25},
        {"token": "No", "logprob": -1.5},
        {"token": "Yes", "logprob": -3.0},
    ]
    choice = {
        "message": {"role": "assistant", "content": content},
        "logprobs": {"content": [{"token": "Yes", "top_logprobs": top}]},
    }
    return json.dumps({"choices": [choice]}).encode()


@dataclass
class FaultServer:
    """A server whose next requests meet `faults`, one each, and all later ones `then` ("ok").

    "by image" answers with words and log-probabilities that follow from the image alone.
    """

    url: str = ""
    faults: list[str] = field(default_factory=list)
    then: str = "ok"
    requests: list[dict[str, Any]] = field(default_factory=list)  # bodies of the questions
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    elsewhere: str = "http://127.0.0.2:9/"
    good: int | None = None  # number of questions answered "by image" before `then` holds
    bad: set[str] = field(default_factory=set)  # data URLs of images that are answered with 500
    retry_after: str | None = None  # sent with every 429
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self, request: dict[str, Any]) -> str:
        with self.lock:
            if image_url(request) in self.bad:
                return "500"
            if self.good is not None:
                self.good -= 1
                return "by picture" if self.good >= 0 else self.then
            return self.faults.pop(0) if self.faults else self.then

    def image(self, place: int) -> np.ndarray:
        """The image of a question, decoded."""
        return decoded(self.requests[place])


def image_url(request: dict[str, Any]) -> str:
    return str(request["messages"][0]["content"][0]["image_url"]["url"])


def decoded(request: dict[str, Any]) -> np.ndarray:
    with Image.open(
        io.BytesIO(base64.b64decode(image_url(request).removeprefix("data:image/jpeg;base64,")))
    ) as image:
        return np.asarray(image.convert("RGB"))


def by_image(request: dict[str, Any]) -> bytes:
    """A description in three words and P(yes), by the mean of each colour."""
    red, green, blue = (float(value) for value in decoded(request).mean((0, 1)))
    words = [("cat", "dog", "bike", "image")[int(value * 7) % 4] for value in (red, green, blue)]
    top = [
        {"token": "Yes", "logprob": math.log(0.01 + red / 300)},
        {"token": "No", "logprob": -5.0},
    ]
    choice = {
        "message": {"role": "assistant", "content": " ".join(words)},
        "logprobs": {"content": [{"top_logprobs": top}]},
    }
    return json.dumps({"choices": [choice]}).encode()


REPLIES = {
    "ok": (200, completion(CAPTION)),
    "empty": (200, completion(" \n")),
    "null": (200, completion(None)),
    "5000 words": (200, completion("cat " * 5000)),
    "a list": (200, completion([{"type": "text"}])),
    "rubbish": (200, b"\xff\xfe\x00<html>no\r\njson"),
    "nested": (200, b"[" * 100_000),
    "a number": (200, b"7"),
    "no choices": (200, b'{"choices": []}'),
    "huge": (200, b" " * (5 * 1024 * 1024)),
    "400": (400, b'{"error": "the image is too small"}'),
    "401": (401, b'{"error": "who are you"}'),
    "429": (429, b'{"error": "slow down"}'),
    "500": (500, b"Traceback (most recent call last):\n  boom"),
    "503": (503, b""),
    "redirect": (302, b""),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.record.paths.append(self.path)
        self.send(200, json.dumps({"data": [{"id": "tiny-vlm"}, {"id": "other"}]}).encode())

    def do_POST(self) -> None:
        record: FaultServer = self.server.record
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = json.loads(body)
        fault = record.next_fault(request)
        with record.lock:
            record.paths.append(self.path)
            record.requests.append(request)
            record.headers.append({name.lower(): value for name, value in self.headers.items()})
        if fault == "hangs":
            self.server.over.wait(30)
            self.close_connection = True
        elif fault == "drips":
            self.drip()
        elif fault == "drops":
            self.close_connection = True
        elif fault == "cut short":
            self.send(200, completion(CAPTION)[:20], length=len(completion(CAPTION)))
            self.close_connection = True
        elif fault == "by picture":
            self.send(200, by_image(request))
        else:
            self.send(*REPLIES[fault])

    def drip(self) -> None:
        self.send(200, b"", length=10_000)
        self.close_connection = True
        for _ in range(600):
            if self.server.over.wait(0.05):
                return
            try:
                self.wfile.write(b" ")
            except OSError:
                return

    def send(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        if status == 429 and self.server.record.retry_after is not None:
            self.send_header("Retry-After", self.server.record.retry_after)
        if status == 302:
            self.send_header("Location", self.server.record.elsewhere)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


@contextmanager
def fault_server(*faults: str, then: str = "ok") -> Iterator[FaultServer]:
    """A running server that gives the next requests these faults."""
    server: Any = Server(("127.0.0.1", 0), Handler)
    server.over = threading.Event()
    server.record = FaultServer(
        f"http://127.0.0.1:{server.server_address[1]}/v1", list(faults), then
    )
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield server.record
    finally:
        server.over.set()
        time.sleep(0.01)
        server.shutdown()
        server.server_close()
        thread.join(5)
