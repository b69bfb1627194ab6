"""`RemoteReward`: a reward that `ddpo rewards serve` serves elsewhere; needs no extra."""

from __future__ import annotations

import http.client
import os
import urllib.error
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote, urlsplit

from ddpo.errors import ConfigError, NewerApiError, RewardFailure, RewardUnavailable, one_line
from ddpo.io.addresses import is_loopback
from ddpo.io.atomic import printable
from ddpo.io.http import Reply, ReplyTooLong, build_opener, exchange
from ddpo.io.json_files import JsonError, parse_json
from ddpo.rewards.card import Calls, RewardCard
from ddpo.rewards.serve.wire import (
    CALL_SECONDS,
    MOST_VALUES,
    WIRE_VERSION,
    Limits,
    decode_output,
    encode_batch,
)
from ddpo.rewards.spec import TOKEN_VARIABLE
from ddpo.text import REDACTED, shortened
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["TOKEN_VARIABLE", "RemoteReward"]

CONNECT_SECONDS: Final = 10.0
LONGEST_REPLY: Final = 16 * 1024 * 1024  # bytes
LONGEST_ERROR: Final = 64 * 1024  # bytes
LONGEST_LINE: Final = 1000  # characters of a text that is shown
LONGEST_SIGNATURE: Final = 64 * 1024  # characters
CALLS: Final = Calls(concurrency=8, timeout_s=CALL_SECONDS, retries=3)


class RemoteReward:
    """The reward at `http://host:port/name`.

    Its card is the server's, except for calls and requirements, which hold here. Scores have no
    gradient. The weights and libraries are in the server's signature, which `origin` holds.

    Args:
        url: address of the reward.
        token: token of the server; None for the environment variable DDPO_REWARD_TOKEN. It is sent
            over https and to this machine only.

    Attributes:
        origin: "server", a hash of everything there that scores depend on, and the server's
            signature; part of the signature here.

    Raises:
        ConfigError: The URL has another form, a token is given for plain http to another machine,
            or the server does not know the reward or the token.
        NewerApiError: The server speaks a newer API.
        RewardUnavailable: The server cannot be reached.
        RewardFailure: Something else answers there.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._base, self._name, loopback = _parse(url)
        safe = loopback or self._base.startswith("https:")
        self._headers = {"Content-Type": "application/json", **_authorization(token, safe)}
        self._opener = build_opener(loopback=loopback)
        try:
            reply = self._request("card", None, CONNECT_SECONDS)
        except _ClientError as error:
            raise ConfigError(str(error)) from error
        if not isinstance(reply.get("api"), int) or reply["api"] > WIRE_VERSION:
            raise NewerApiError(
                f"{url}: the server speaks API {_line(reply.get('api'))}, "
                f"this ddpo {WIRE_VERSION}: upgrade ddpo"
            )
        try:
            self.signature = _plain(reply, "signature")
            self._identity = _plain(reply, "identity")
            limits = reply["limits"]
            self._limits = Limits(int(limits["body_bytes"]), int(limits["pixels"]))
            _check_texts(reply["card"])
            self.card = _local(RewardCard.from_dict(reply["card"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RewardFailure(
                f"{url} is not a reward of `ddpo rewards serve`: {one_line(error)}"
            ) from error
        self.origin = f"server sha256:{self._identity} {self.signature}"

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`.

        Raises:
            RewardUnavailable: The server cannot be reached, or is busy.
            RewardFailure: It refused, sent a malformed reply, or serves another reward than at the
                first request.
        """
        if not len(batch):
            import torch

            return RewardOutput(torch.zeros(0))
        height, width = batch.size
        if len(batch) * height * width > self._limits.pixels:
            raise RewardFailure(
                f"{self._base} takes {self._limits.pixels} pixels per request, "
                f"got {len(batch)} × {height} × {width}"
            )
        body = encode_batch(batch, self.card)
        if len(body) > self._limits.body_bytes:
            raise RewardFailure(
                f"{self._base} takes {self._limits.body_bytes} bytes per request, "
                f"{len(batch)} images make {len(body)}"
            )
        reply = self._request("score", body, CALL_SECONDS)
        if (reply.get("signature"), reply.get("identity")) != (self.signature, self._identity):
            raise RewardFailure(
                f"{self._base} serves another {self._name} than before: "
                f"{_line(reply.get('signature'))}; before: {self.signature}"
            )
        return decode_output(reply, len(batch))

    def _request(self, route: str, body: bytes | None, seconds: float) -> dict[str, Any]:
        """The JSON object of the reply to a GET, or with `body` to a POST."""
        address = f"{self._base}/{route}/{quote(self._name)}"
        try:
            answer = exchange(
                self._opener,
                address,
                body,
                self._headers,
                seconds=seconds,
                most_bytes=LONGEST_REPLY,
            )
        except TimeoutError as error:
            raise RewardUnavailable(
                f"{self._base} does not answer: no whole reply within {seconds:g} s"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            raise RewardUnavailable(f"{self._base} does not answer: {_reason(cause)}") from error
        except ReplyTooLong as error:
            raise RewardFailure(f"{self._base}: the reply is {error}") from error
        if answer.status != 200:
            raise _failure(self._base, answer)
        if sum(answer.body.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
            raise RewardFailure(f"{self._base}: the reply has more than {MOST_VALUES} values")
        try:
            reply = parse_json(answer.body)
        except JsonError as error:
            raise RewardFailure(f"{self._base}: the reply is not JSON: {_line(error)}") from error
        if not isinstance(reply, dict):
            raise RewardFailure(
                f"{self._base}: the reply is a JSON {type(reply).__name__}, not an object"
            )
        return reply


class _ClientError(RewardFailure):
    """A status 4xx, for which a retry is useless."""


def _parse(url: str) -> tuple[str, str, bool]:
    """Scheme with host and port, name of the reward, and True if the host is this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port  # raises for a port that is no number
    except ValueError as error:
        raise ConfigError(f"reward {url!r}: {one_line(error)}") from error
    name = parts.path.strip("/")
    if (
        parts.scheme not in ("http", "https")
        or not host
        or not name
        or parts.query
        or parts.fragment
    ):
        raise ConfigError(f"reward {url!r} is not of the form http://host:port/name")
    if "@" in parts.netloc:
        raise ConfigError(f"a reward's URL holds no user or password; set {TOKEN_VARIABLE}")
    return f"{parts.scheme}://{parts.netloc}", name, is_loopback(host)


def _authorization(token: str | None, safe: bool) -> dict[str, str]:
    """The header with the token, which does not travel as plain text.

    Args:
        token: the token; None for that of the environment.
        safe: True if the connection is https or stays on this machine.

    Raises:
        ConfigError: the token is malformed, or was given for a connection that is not safe.
    """
    given = None if token == REDACTED else token
    if given and not safe:
        raise ConfigError(
            "a token does not travel over plain http:// to another machine: "
            "use https://, or a tunnel to 127.0.0.1"
        )
    found = given or os.environ.get(TOKEN_VARIABLE)
    if not found or not safe:
        return {}
    if not found.isascii() or not found.isprintable():
        raise ConfigError(
            f"the token of the reward server, in {TOKEN_VARIABLE} or token=…, "
            "must be printable ASCII"
        )
    return {"Authorization": f"Bearer {found}"}


def _local(card: RewardCard) -> RewardCard:
    """The server's card as it holds here: no requirements or options, no gradient, more calls."""
    return replace(
        card,
        load="ddpo.rewards.serve.client:RemoteReward",
        thread_safe=True,
        calls=CALLS,
        device="cpu",
        memory_mb=0,
        differentiable=False,
        extra=None,
        libraries=(),
        weights=(),
        options=(),
        for_options=None,
    )


def _failure(base: str, answer: Reply) -> RewardFailure:
    """The error of a status other than 200, with the server's own line."""
    try:
        line = _line(parse_json(answer.body[:LONGEST_ERROR])["error"])
    except (JsonError, KeyError, TypeError):
        line = _line(answer.reason)
    if answer.status == 401:
        line += f"; set {TOKEN_VARIABLE}, which is sent over https:// and to this machine only"
    text = f"{base} answered {answer.status}: {line}"
    if answer.status >= 500 or answer.status == 429:
        return RewardUnavailable(text)
    return _ClientError(text) if answer.status >= 400 else RewardFailure(text)


def _line(text: object) -> str:
    """A text of the server on one printable line of bounded length."""
    return printable(shortened(str(text), LONGEST_LINE))


def _plain(reply: Mapping[str, Any], key: str) -> str:
    """A text of the server that enters signatures, as it is.

    Raises:
        ValueError: It is not one printable line of bounded length.
    """
    text = reply[key]
    if not isinstance(text, str) or not text.isprintable() or len(text) > LONGEST_SIGNATURE:
        raise ValueError(f"its {key} is not a line of text")
    return text


def _check_texts(value: Any) -> None:
    """Refuses control characters in a card, which the terminal and reports would obey.

    Raises:
        ValueError: A text has one.
    """
    if isinstance(value, str) and not "".join(value.split()).isprintable():
        raise ValueError("its card contains control characters")
    if isinstance(value, dict):
        _check_texts([*value.keys(), *value.values()])
    if isinstance(value, list):
        for each in value:
            _check_texts(each)


def _reason(cause: object) -> str:
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return _line(one_line(cause) if isinstance(cause, Exception) else cause)
