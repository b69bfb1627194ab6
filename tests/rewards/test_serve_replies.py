"""Replies of hostile servers to the clients of rewards and of vision-language models."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
from PIL import Image
from test_serve import byte_images

from ddpo.errors import DdpoError, RewardFailure, RewardUnavailable
from ddpo.io.http import ReplyTooLong, build_opener, exchange
from ddpo.rewards.serve import client
from ddpo.rewards.serve.client import RemoteReward
from ddpo.rewards.serve.wire import MOST_VALUES, decode_output
from ddpo.rewards.vlm import UnusableAnswer
from ddpo.rewards.vlm.server import ServerVlm
from ddpo.rewards.zoo import resolve

IMAGE = Image.new("RGB", (8, 8))


@contextmanager
def replying(*sends: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server whose connections are each answered by the next of `sends`."""
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def answer(connection: socket.socket, send: Callable[[socket.socket], None]) -> None:
        with connection, suppress(OSError):
            connection.settimeout(5)
            connection.recv(1 << 20)
            send(connection)

    def serve() -> None:
        place = 0
        while not over.is_set():
            with suppress(OSError):
                connection, _ = listening.accept()
                send = sends[min(place, len(sends) - 1)]
                place += 1
                threading.Thread(target=answer, args=(connection, send), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    over.set()
    listening.close()


def whole(body: bytes, status: str = "200 OK") -> Callable[[socket.socket], None]:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return lambda connection: connection.sendall(head + body)


def repeated(start: bytes, block: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    """Bytes without end."""

    def send(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(block)
            time.sleep(pause)

    return send


ENDLESS = {
    "headers that drip": repeated(b"HTTP/1.1 200 OK\r\nX: ", b"a", 0.05),
    "a body that drips": repeated(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" ", 0.05),
    "leave to continue": repeated(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_reply_without_end_costs_a_bounded_time(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.7)
    with replying(ENDLESS[what]) as address:
        start = time.monotonic()
        with pytest.raises(RewardUnavailable, match=r"no whole reply within 0\.7 s"):
            RemoteReward(f"{address}/x")
        with pytest.raises(RewardUnavailable, match=r"no answer within 0\.7 s"):
            ServerVlm(f"{address}/v1", "m", timeout_s=0.7).answer(IMAGE, "?", 4)
        assert time.monotonic() - start < 5
        deadline = time.monotonic() + 5
        while threads() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert threads() == []  # the cut connection lets the reading thread end


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "ddpo-request"]


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 500 No\r\n\r\n"])
def test_a_body_without_end_is_cut_at_its_limit(start: bytes) -> None:
    with replying(repeated(start, b" " * 65536)) as address:
        with pytest.raises(RewardFailure, match="the reply is longer than 16 MiB"):
            RemoteReward(f"{address}/x")
        with pytest.raises(UnusableAnswer, match="longer than 4 MB"):
            ServerVlm(f"{address}/v1", "m", timeout_s=20).answer(IMAGE, "?", 4)
        with pytest.raises(ReplyTooLong):
            exchange(build_opener(loopback=True), address, None, {}, seconds=20, most_bytes=1 << 20)


CARD = {
    "api": 1,
    "signature": "x|y",
    "identity": "0123456789abcdef",
    "limits": {"body_bytes": 1 << 20, "pixels": 1 << 20, "later": 3},
    "card": json.loads(json.dumps(resolve("compressibility").card.to_dict())),
}


def card(**changes: Any) -> Callable[[socket.socket], None]:
    return whole(json.dumps({**CARD, **changes}).encode())


@pytest.mark.parametrize(
    ("send", "line"),
    [
        (whole(b"[" * 100_000), "nested more than 64 deep"),
        (whole(b"[" + b"[]," * MOST_VALUES + b"1]"), f"more than {MOST_VALUES} values"),
        (whole(b'{"api": ' + b"9" * 5000 + b"}"), "more than 20 digits"),
        (whole(b'{"api": NaN}'), "NaN is not JSON"),
        (card(signature="\x1b[2J"), "its signature is not a line of text"),
        (card(signature="s" * 100_000), "its signature is not a line of text"),
        (card(identity="two\nlines"), "its identity is not a line of text"),
        (card(identity=None), "its identity is not a line of text"),
        (card(limits=[]), "is not a reward"),
        (card(card={**CARD["card"], "flaws": "\x1b]0;title\x07"}), "control characters"),
        (whole(b'{"error": "\\u001b[31mred\\u0007"}', "404 No"), r"answered 404: \\x1b\[31mred"),
        (whole(json.dumps({"error": "e" * 50_000}).encode(), "500 No"), "answered 500: e{1000}…$"),
        (whole(b"", "500 \x1b[31m"), r"answered 500: \\x1b\[31m"),
    ],
)
def test_a_hostile_reply_is_one_printable_line(
    send: Callable[[socket.socket], None], line: str
) -> None:
    with replying(send) as address, pytest.raises(DdpoError, match=line) as raised:
        RemoteReward(f"{address}/x")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1500


def test_a_newer_server_may_name_more_limits() -> None:
    with replying(card()) as address:
        assert RemoteReward(f"{address}/x").card.id == "compressibility"


SCORES = {"values": [1.0, 2.0], "errors": [None, None], "parts": {}}


@pytest.mark.parametrize(
    "changes",
    [
        {"values": "12"},
        {"values": {"0": 1, "1": 2}},
        {"values": [True, 1.0]},
        {"values": ["nan", 1.0]},
        {"values": ["1", 1.0]},
        {"values": ["inf", 1.0]},
        {"values": [1e300, 1.0]},
        {"values": [[1.0], [2.0]]},
        {"values": [None, 1.0]},
        {"errors": "ab"},
        {"errors": [None]},
        {"parts": []},
        {"parts": {"p": [1.0]}},
        {"parts": {"p": "ab"}},
        {"parts": {f"p{number}": [1.0, 2.0] for number in range(300)}},
    ],
)
def test_scores_of_another_form_are_a_failure_of_the_reward(changes: dict[str, Any]) -> None:
    with pytest.raises(RewardFailure):
        decode_output({**SCORES, **changes}, 2)


def test_texts_of_scores_are_short_and_printable() -> None:
    reply = {
        "values": [None, 2.0],
        "errors": ["\x1b[2J" + "e" * 10_000, None],
        "parts": {"\x07bell": [1.0, None]},
    }
    found = decode_output(reply, 2)
    assert found.values[1] == 2.0
    assert torch.isnan(found.values[0])
    reason = found.errors[0]
    assert reason is not None
    assert reason.isprintable()
    assert len(reason) < 600
    assert [name.isprintable() for name in found.parts] == [True]


def test_an_empty_batch_of_another_server_is_refused() -> None:
    sends = (card(), whole(json.dumps({**CARD, **SCORES}).encode()))
    with replying(*sends) as address:
        remote = RemoteReward(f"{address}/x")
        with pytest.raises(RewardFailure, match="sent 2 scores for 3 images"):
            remote(byte_images(3))


@pytest.mark.parametrize("value", ["1e30", "Infinity", "0.5"])
def test_a_probability_above_1_is_no_answer(value: str) -> None:
    body = (
        '{"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [{"top_logprobs": '
        '[{"token": "Yes", "logprob": VALUE}]}]}}]}'.replace("VALUE", value)
    )
    with replying(whole(body.encode())) as address, pytest.raises(UnusableAnswer):
        ServerVlm(f"{address}/v1", "m").first_token_logprobs(IMAGE, "?")


def test_a_probability_of_0_is_an_answer() -> None:
    body = (
        '{"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [{"top_logprobs": '
        '[{"token": "Yes", "logprob": 0.0}, {"token": "No", "logprob": -Infinity}]}]}}]}'
    )
    with replying(whole(body.encode())) as address:
        found = ServerVlm(f"{address}/v1", "m").first_token_logprobs(IMAGE, "?")
    assert found == {"Yes": 0.0, "No": float("-inf")}
