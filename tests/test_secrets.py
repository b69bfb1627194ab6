"""Secrets in rewards: used where the user named them, and neither stored, shown nor sent on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ddpo.errors import ConfigError, DdpoError, RewardFailure, one_line
from ddpo.rewards.serve.client import RemoteReward
from ddpo.rewards.spec import parse_expression, redacted, words_to_trust
from ddpo.rewards.zoo import resolve
from ddpo.text import is_secret_name, without_secrets

Run = Callable[..., tuple[int, str, str]]
SECRET = "sk-very-secret-1234"
REWARD = """
def keyed(images, api_key="", gain=1.0):
    assert api_key == "sk-very-secret-1234", "the wrong key"
    return [gain * float(image.mean()) for image in images]
"""


class Listener:
    """A server that records headers; it answers a status, or redirects."""

    def __init__(self, host: str, redirect: str = "") -> None:
        self.headers: list[dict[str, str]] = []
        headers = self.headers

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers.append(dict(self.headers))
                self.send_response(302 if redirect else 404)
                if redirect:
                    self.send_header("Location", redirect + self.path)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Writes nothing."""

        self._server = ThreadingHTTPServer((host, 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://{host}:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    opened: list[Listener] = []

    def make(*arguments: str) -> Listener:
        opened.append(Listener(*arguments))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_a_redirect_takes_the_token_to_no_other_host(
    listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPO_REWARD_TOKEN", SECRET)
    other = listen("127.0.0.2")
    named = listen("127.0.0.1", other.address)
    with pytest.raises(DdpoError):
        RemoteReward(f"{named.address}/darkness")
    assert named.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert other.headers == []


def test_a_token_does_not_travel_over_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []

    def record(self: RemoteReward, *_: Any) -> None:
        seen.append(self._headers)
        raise RewardFailure("stop")

    monkeypatch.setattr(RemoteReward, "_request", record)
    with pytest.raises(ConfigError, match="token does not travel over plain http"):
        RemoteReward("http://rewards.example/darkness", token=SECRET)
    monkeypatch.setenv("DDPO_REWARD_TOKEN", SECRET)
    for address in ("http://rewards.example", "https://rewards.example", "http://[::1]:9"):
        with pytest.raises(RewardFailure, match="stop"):
            RemoteReward(f"{address}/darkness")
    assert ["Authorization" in headers for headers in seen] == [False, True, True]


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("https://h/a:token=t:0.5", "https://h/a:token=***:0.5"),
        ("darkness:0.3 + ./x.py:P:api_key=sk-1,k=3:2", "darkness:0.3 + ./x.py:P:api_key=***,k=3:2"),
        ("min(http://h/a:token=x, darkness)", "min(http://h/a:token=***, darkness)"),
        ("./x.py:P:password=a:b", "./x.py:P:password=***"),
        ("vlm_judge:vlm=https://me:pw@h/v1", "vlm_judge:vlm=https://***@h/v1"),
        ("vlm_judge:vlm=https://h/v1?key=abc", "vlm_judge:vlm=https://h/v1?key=***"),
        ("./x.py:P:max_tokens=3,pad_token=x", "./x.py:P:max_tokens=3,pad_token=x"),
        ("darkness:0.5", "darkness:0.5"),
    ],
)
def test_expressions_are_stored_without_secrets(text: str, due: str) -> None:
    assert redacted(text) == due
    before = parse_expression(text)[1]
    after = parse_expression(due)[1]
    assert [(one.target, one.weight) for one in before] == [
        (one.target, one.weight) for one in after
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("darkness:0.5 + colorfulness", []),
        ("./x.py:P:0.5 + pkg.mod:Q:k=1", ["./x.py:P", "pkg.mod:Q"]),
        ("http://h:1/a:token=t", ["http://h:1/a"]),
        ("vlm_judge:vlm=http://h/v1", ["http://h/v1"]),
        ("pareto(./a b.py:P, acme/blueness)", ["./a b.py:P"]),
    ],
)
def test_words_to_trust_are_code_and_servers(text: str, words: list[str]) -> None:
    assert words_to_trust(text) == words


@pytest.mark.parametrize("name", ["DDPO_REWARD_TOKEN", "OPENAI_API_KEY"])
def test_a_server_of_this_machine_is_to_be_named_while_a_token_is_set(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "http://127.0.0.2:1/a + vlm_judge:vlm=http://localhost:2/v1"
    for other in ("DDPO_REWARD_TOKEN", "OPENAI_API_KEY"):
        monkeypatch.delenv(other, raising=False)
    assert words_to_trust(text) == []
    monkeypatch.setenv(name, SECRET)
    assert words_to_trust(text) == ["http://127.0.0.2:1/a", "http://localhost:2/v1"]


def test_errors_are_shown_without_secrets() -> None:
    text = f"reward 'https://u:{SECRET}@h/n:token={SECRET}': Authorization: Bearer {SECRET}"
    assert SECRET not in one_line(ConfigError(text))
    assert SECRET not in one_line(ValueError(text))
    kept = "max_tokens=3, steps=5 and name@host"
    assert without_secrets(kept) == kept
    assert is_secret_name("openai_api_key")
    assert not is_secret_name("max_tokens")


def test_a_secret_option_enters_no_signature(tmp_path: Path) -> None:
    (tmp_path / "keyed.py").write_text(REWARD)
    spec = f"{tmp_path}/keyed.py:keyed:api_key="
    found = resolve(spec + SECRET)
    assert SECRET not in found.signature + found.identity
    assert found.identity == resolve(spec + "another").identity
    assert found.identity != resolve(f"{spec}{SECRET},gain=2").identity
    assert found.options["api_key"] == SECRET


def test_a_run_keeps_no_secret_and_needs_it_again(
    tiny_model: Path, tmp_path: Path, ddpo: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("keyed.py").write_text(REWARD)
    given = ("--reward", f"./keyed.py:keyed:api_key={SECRET}")
    sizes = ("sample.samples=4", "sample.per_prompt=2", "sample.steps=2", "sample.batch=4")
    sizes += ("optim.timesteps=1", "optim.updates=1", "optim.skip_last=0")
    small = tuple(word for size in sizes for word in ("--set", size))
    code, output, error = ddpo("train", *given, "--model", tiny_model, *small, "--iterations", "1")
    assert code == 0, error
    assert SECRET not in output + error
    (run,) = Path("runs").iterdir()
    assert SECRET not in run.name
    for file in run.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file
    assert "api_key=***" in json.loads((run / "config.json").read_text())["reward"]
    named = ("--trust", "./keyed.py:keyed")
    code, output, error = ddpo("train", "--resume", run, "--iterations", "2", *named)
    assert code == 2
    assert "the secret in its option 'api_key' was not stored; give the whole reward again" in error
    code, output, error = ddpo("train", "--resume", run, "--iterations", "2", *given)
    assert code == 0, error
    for file in run.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file
