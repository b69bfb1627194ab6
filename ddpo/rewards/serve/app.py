"""The server: rewards as a FastAPI application with `/health`, `/card/NAME` and `/score/NAME`.

Errors are {"error": one line}.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

import ddpo
from ddpo.errors import ConfigError, ImageError, RewardFailure, RewardUnavailable, one_line
from ddpo.registry import nearest
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.serve.gather import Gatherer
from ddpo.rewards.serve.wire import WIRE_VERSION, Limits, Refused, decode_batch, encode_output

__all__ = ["bind", "check_token", "make_app", "make_server"]

JSON: Final = "application/json"


def check_token(host: str, token: str | None) -> None:
    """Refuses a host that other machines can reach without a token.

    Raises:
        ConfigError: The host is not loopback and there is no token, or the token cannot be sent in
            a header.
    """
    if token is not None and (
        not token or not token.isascii() or not token.isprintable() or token != token.strip()
    ):
        raise ConfigError(
            "the token must be printable ASCII without spaces at its ends, and not empty"
        )
    if token is None and not _loopback(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines: "
            "give a --token, or set DDPO_REWARD_TOKEN"
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: The address is taken, not of this machine, or not allowed.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror or error}"
        ) from error


def make_server(app: FastAPI) -> uvicorn.Server:
    """The HTTP server of `app`; `run(sockets=[…])` serves until interrupted."""
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=5)
    )


def make_app(
    rewards: Mapping[str, ResolvedReward],
    *,
    token: str | None = None,
    batch_size: int = 16,
    limits: Limits | None = None,
) -> FastAPI:
    """The application that serves `rewards`, all loaded.

    Args:
        rewards: rewards by their name in the URL.
        token: secret that every request must carry; None to answer all requests.
        batch_size: greatest number of images per call of a reward.
        limits: greatest size of one request.

    Raises:
        UserError: A reward cannot be made.
    """
    service = _Service(rewards, token, batch_size, limits or Limits())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="ddpo rewards", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )
    app.state.service = service
    app.add_api_route("/health", service.health, methods=["GET"])
    app.add_api_route("/card/{name:path}", service.card, methods=["GET"])
    app.add_api_route("/score/{name:path}", service.score, methods=["POST"])
    return app


class _Service:
    """The handlers of the routes."""

    def __init__(
        self,
        rewards: Mapping[str, ResolvedReward],
        token: str | None,
        batch_size: int,
        limits: Limits,
    ) -> None:
        self._token = token
        self._limits = limits
        self._rewards = dict(rewards)
        self._identities = {
            name: hashlib.sha256(reward.identity.encode()).hexdigest()[:16]
            for name, reward in rewards.items()
        }
        self._signatures = {name: reward.signature for name, reward in rewards.items()}
        self.gatherers = {name: Gatherer(reward, batch_size) for name, reward in rewards.items()}

    def close(self) -> None:
        for gatherer in self.gatherers.values():
            gatherer.close()

    async def health(self, request: Request) -> JSONResponse:
        try:
            self._check(request)
        except Refused as error:
            return _refusal(error.status, error)
        found = {
            name: {"signature": self._signatures[name], "identity": self._identities[name]}
            for name in self._rewards
        }
        return JSONResponse(
            {"status": "ok", "api": WIRE_VERSION, "ddpo": ddpo.__version__, "rewards": found}
        )

    async def card(self, request: Request, name: str) -> JSONResponse:
        try:
            self._check(request, name)
        except Refused as error:
            return _refusal(error.status, error)
        return JSONResponse(
            {
                "api": WIRE_VERSION,
                "signature": self._signatures[name],
                "identity": self._identities[name],
                "card": self._rewards[name].card.to_dict(),
                "limits": asdict(self._limits),
            }
        )

    async def score(self, request: Request, name: str) -> JSONResponse:
        try:
            self._check(request, name)
            body = await self._body(request)
            batch = await asyncio.to_thread(decode_batch, body, self._limits)
            output = await asyncio.wrap_future(self.gatherers[name].submit(batch))
        except Refused as error:
            return _refusal(error.status, error)
        except ImageError as error:
            return _refusal(400, error)
        except RewardUnavailable as error:
            return _refusal(503, error)
        except RewardFailure as error:
            return _refusal(422, error)
        except Exception as error:  # noqa: BLE001  # foreign code; the client gets one line
            return _refusal(500, error)
        return JSONResponse(encode_output(output, self._signatures[name], self._identities[name]))

    def _check(self, request: Request, name: str | None = None) -> None:
        given = request.headers.get("authorization", "").encode("latin-1")
        if self._token is not None and not hmac.compare_digest(
            given, f"Bearer {self._token}".encode()
        ):
            raise Refused(401, "this server needs a token, and got none or another")
        if name is not None and name not in self._rewards:
            near = nearest(name, self._rewards)
            hint = f"did you mean {near!r}?" if near else ", ".join(self._rewards)
            raise Refused(404, f"no reward {name!r} is served here; {hint}")

    async def _body(self, request: Request) -> bytes:
        """The body, of which no more than the limit is ever held.

        A web page cannot send this content type to another origin without a preflight request, so
        no page that the user visits can use the server.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            raise Refused(415, f"the content type must be {JSON}")
        line = f"the body is longer than {self._limits.body_bytes} bytes"
        stated = request.headers.get("content-length", "0")
        if stated.isdecimal() and int(stated) > self._limits.body_bytes:
            raise Refused(413, line)
        body = bytearray()
        async for block in request.stream():
            body += block
            if len(body) > self._limits.body_bytes:
                raise Refused(413, line)
        return bytes(body)


def _refusal(status: int, error: BaseException) -> JSONResponse:
    line: dict[str, Any] = {"error": one_line(error)}
    return JSONResponse(line, status_code=status)
