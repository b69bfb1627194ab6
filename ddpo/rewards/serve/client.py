"""`RemoteReward`: a reward that `ddpo rewards serve` serves elsewhere; needs no extra."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import urllib.error
import urllib.request
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote, urlsplit

from ddpo.errors import ConfigError, NewerApiError, RewardFailure, RewardUnavailable, one_line
from ddpo.io.http import build_opener
from ddpo.rewards.card import Calls, RewardCard
from ddpo.rewards.serve.wire import CALL_SECONDS, WIRE_VERSION, Limits, decode_output, encode_batch
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["TOKEN_VARIABLE", "RemoteReward"]

TOKEN_VARIABLE: Final = "DDPO_REWARD_TOKEN"  # noqa: S105  # the name of the variable
CONNECT_SECONDS: Final = 10.0
LONGEST_REPLY: Final = 64 * 1024 * 1024  # bytes
CALLS: Final = Calls(concurrency=8, timeout_s=CALL_SECONDS, retries=3)


class RemoteReward:
    """The reward at `http://host:port/name`.

    Its card is the server's, except for calls and requirements, which hold here. Scores have no
    gradient. The weights and libraries are in the server's signature, which `origin` holds.

    Args:
        url: address of the reward.
        token: token of the server; None for the environment variable DDPO_REWARD_TOKEN.

    Attributes:
        origin: "server", a hash of everything there that scores depend on, and the server's
            signature; part of the signature here.

    Raises:
        ConfigError: The URL has another form, or the server does not know the reward or the token.
        NewerApiError: The server speaks a newer API.
        RewardUnavailable: The server cannot be reached.
        RewardFailure: Something else answers there.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._base, self._name, loopback = _parse(url)
        self._headers = {"Content-Type": "application/json", **_authorization(token)}
        self._opener = build_opener(loopback=loopback)
        try:
            reply = self._request("card", None, CONNECT_SECONDS)
        except _ClientError as error:
            raise ConfigError(str(error)) from error
        if not isinstance(reply.get("api"), int) or reply["api"] > WIRE_VERSION:
            raise NewerApiError(
                f"{url}: the server speaks API {reply.get('api')!r}, this ddpo {WIRE_VERSION}: "
                "upgrade ddpo"
            )
        try:
            self.signature = str(reply["signature"])
            self._identity = str(reply["identity"])
            self._limits = Limits(**{name: int(value) for name, value in reply["limits"].items()})
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
                f"{self._base} serves another {self._name} than before: {reply.get('signature')}; "
                f"before: {self.signature}"
            )
        return decode_output(reply, len(batch))

    def _request(self, route: str, body: bytes | None, seconds: float) -> dict[str, Any]:
        """The JSON object of the reply to a GET, or with `body` to a POST."""
        address = f"{self._base}/{route}/{quote(self._name)}"
        # http or https, see `_parse`
        request = urllib.request.Request(address, body, self._headers)  # noqa: S310
        try:
            with self._opener.open(request, timeout=seconds) as answer:
                data = answer.read(LONGEST_REPLY + 1)
                # a read of limited length does not notice a cut connection
                if answer.length and len(data) <= LONGEST_REPLY:
                    raise http.client.IncompleteRead(data, answer.length)
        except urllib.error.HTTPError as error:
            raise _failure(self._base, error) from error
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            raise RewardUnavailable(f"{self._base} does not answer: {_reason(cause)}") from error
        if len(data) > LONGEST_REPLY:
            raise RewardFailure(f"{self._base}: the reply is longer than {LONGEST_REPLY} bytes")
        try:
            reply = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RewardFailure(
                f"{self._base}: the reply is not JSON: {one_line(error)}"
            ) from error
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
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return f"{parts.scheme}://{parts.netloc}", name, loopback


def _authorization(token: str | None) -> dict[str, str]:
    found = token or os.environ.get(TOKEN_VARIABLE)
    if not found:
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
    )


def _failure(base: str, error: urllib.error.HTTPError) -> RewardFailure:
    """The error of a status other than 200, with the server's own line."""
    try:
        line = " ".join(str(json.loads(error.read(4096))["error"]).split())
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError):
        line = str(error.reason)
    if error.code == 401:
        line += f"; set {TOKEN_VARIABLE}, or token=… behind the URL"
    text = f"{base} answered {error.code}: {line}"
    if error.code >= 500 or error.code == 429:
        return RewardUnavailable(text)
    return _ClientError(text) if error.code >= 400 else RewardFailure(text)


def _reason(cause: object) -> str:
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return one_line(cause) if isinstance(cause, Exception) else str(cause)
