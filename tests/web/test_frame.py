"""The frame of local pages: who may read and change, and what a stranger gets."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from fastapi import Request

from ddpo.errors import ConfigError
from ddpo.web.connections import bind, make_server
from ddpo.web.frame import json_body, new_app
from ddpo.web.local_guard import new_token

TOKEN = "a-token-of-the-test"
JSON = {"Content-Type": "application/json"}


class Client:
    """Raw requests, so that every header is the test's own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.host = f"127.0.0.1:{port}"

    def request(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Host": self.host} | sent)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        data = answer.read()
        connection.close()
        return answer.status, found, data

    def cookie(self) -> str:
        _, headers, _ = self.request(f"/open/{TOKEN}")
        return headers["set-cookie"].partition(";")[0]


@contextmanager
def running(folder: Path) -> Iterator[Client]:
    app = new_app("test", folder, TOKEN)

    async def echo(request: Request) -> dict[str, object]:
        return dict(await json_body(request, 100))

    def refuse() -> None:
        raise ConfigError("no such thing\x1b[31m")

    app.add_api_route("/echo", echo, methods=["POST"])
    app.add_api_route("/refuse", refuse)
    with bind("127.0.0.1", 0) as listening:
        server = make_server(app)
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield Client(listening.getsockname()[1])
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("site")
    (folder.parent / "outside.txt").write_text("secret")
    (folder / "index.html").write_text("<!doctype html><title>here</title>")
    (folder / "page.js").write_text("1;")
    with running(folder) as found:
        yield found


def test_without_the_token_nothing_is_read(client: Client) -> None:
    for path in ("/", "/static/page.js", "/frame/frame.css", "/refuse", "/favicon.ico"):
        status, _, body = client.request(path)
        assert (status, b"open the address" in body) == (401, True), path
    for wrong in ("", "x", TOKEN + "x", TOKEN[:-1], "%C3%A9", f"{TOKEN}/"):
        status, headers, _ = client.request(f"/open/{wrong}")
        assert status == 401
        assert "set-cookie" not in headers


def test_the_address_gives_a_cookie_of_this_site_alone(client: Client) -> None:
    status, headers, body = client.request(f"/open/{TOKEN}")
    assert status == 200
    name, _, flags = headers["set-cookie"].partition(";")
    assert {flag.strip().lower() for flag in flags.split(";")} >= {"httponly", "samesite=strict"}
    assert TOKEN not in name
    assert TOKEN.encode() not in body
    for path, content in (("/", b"here"), ("/static/page.js", b"1;"), ("/frame/frame.js", b"ask")):
        status, headers, body = client.request(path, Cookie=name)
        assert status == 200
        assert content in body
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert not re.search(r"http|\*|unsafe", policy)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Host": "rebound.example"}, "loopback"),  # DNS rebinding
        ({"Host": "127.0.0.1.example:80"}, "loopback"),
        ({"Host": ""}, "loopback"),
        ({"Origin": "http://evil.example"}, "another origin"),
        ({"Origin": "http://127.0.0.1:1"}, "another origin"),  # another port of this machine
        ({"Origin": "null"}, "another origin"),
        ({"Sec_Fetch_Site": "cross-site"}, "another origin"),
        ({"Sec_Fetch_Site": "same-site"}, "another origin"),
    ],
)
def test_other_names_and_origins_are_refused(
    client: Client, headers: dict[str, str], words: str
) -> None:
    status, _, body = client.request("/refuse", Cookie=client.cookie(), **headers)
    assert status == 403
    assert words in json.loads(body)["error"]


def test_a_change_needs_the_own_origin_and_json(client: Client) -> None:
    cookie = client.cookie()
    own = {"Origin": f"http://{client.host}", "Cookie": cookie}

    def post(body: bytes, **headers: str) -> tuple[int, str]:
        status, _, data = client.request("/echo", "POST", body, **headers)
        return status, data.decode()

    assert post(b'{"a": 1}', **own, Content_Type="application/json") == (200, '{"a":1}')
    assert post(b'{"a": 1}', Cookie=cookie, Content_Type="application/json")[0] == 403
    assert post(b'{"a": 1}', Origin=own["Origin"], Content_Type="application/json")[0] == 401
    for body, kind, words in (
        (b'{"a": 1}', "text/plain", "content type"),
        (b"x=1", "application/x-www-form-urlencoded", "content type"),
        (b'{"a": ', "application/json", "not JSON"),
        (b"\xff", "application/json", "not JSON"),
        (b"[1]", "application/json", "object"),
        (b'"' + b"x" * 200 + b'"', "application/json", "longer"),
    ):
        status, answer = post(body, **own, Content_Type=kind)
        assert status == 400
        assert words in answer


def test_other_names_of_this_machine_work(client: Client) -> None:
    cookie = client.cookie()
    for host in ("localhost:9000", "[::1]:80", "127.0.0.1"):  # a tunnel has its own port
        own = {"Host": host, "Origin": f"http://{host}", "Content_Type": "application/json"}
        assert client.request("/echo", "POST", b"{}", Cookie=cookie, **own)[0] == 200


@pytest.mark.parametrize("start", ["/static", "/frame"])
@pytest.mark.parametrize(
    "rest", ["/../outside.txt", "/..%2foutside.txt", "/%2e%2e/outside.txt", "//etc/passwd", "/", ""]
)
def test_no_path_leads_out_of_the_folders(client: Client, start: str, rest: str) -> None:
    status, _, body = client.request(start + rest, Cookie=client.cookie())
    assert status in (404, 405)
    assert b"secret" not in body
    assert b"root:" not in body


def test_errors_are_one_line_without_controls(client: Client) -> None:
    status, _, body = client.request("/refuse", Cookie=client.cookie())
    assert status == 400
    assert "\x1b" not in json.loads(body)["error"]
    assert client.request("/nowhere", Cookie=client.cookie())[0] == 404


def test_the_page_is_reached_from_this_machine_alone(client: Client) -> None:
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", client.port), timeout=5).close()


def test_tokens_are_long_and_new() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 32
