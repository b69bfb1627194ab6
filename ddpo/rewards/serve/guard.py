"""`Guard`: the check of every request before its body is read: token, or host and origin."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers

from ddpo.io.addresses import is_loopback
from ddpo.rewards.serve.wire import Refused
from ddpo.web.connections import ADMITTED
from ddpo.web.hosts import host_of

__all__ = ["Guard", "WrongTokens"]

MOST_WRONG: Final = 20  # wrong tokens per address and period
PERIOD: Final = 60.0  # seconds
MOST_ADDRESSES: Final = 1024  # remembered

HEADERS: Final = {429: {"Retry-After": str(int(PERIOD))}, 400: {"Connection": "close"}}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class WrongTokens:
    """The number of wrong tokens from each address within a minute."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def add(self, address: str) -> None:
        """Counts one wrong token."""
        since, count = self._counts.pop(address, (time.monotonic(), 0))
        self._counts[address] = (since, count + 1)
        if len(self._counts) > MOST_ADDRESSES:
            self._counts.popitem(last=False)

    def too_many(self, address: str) -> bool:
        """True for an address with over 20 wrong tokens since the start of its minute."""
        since, count = self._counts.get(address, (0.0, 0))
        if count and time.monotonic() - since > PERIOD:
            del self._counts[address]
            return False
        return count > MOST_WRONG


class Guard:
    """ASGI middleware that lets through what has the token, or where none is needed, comes here.

    Without a token a web page could reach the server under a name of its own that resolves to
    loopback (DNS rebinding). The headers Host and Origin tell such requests apart.

    Args:
        app: application behind the guard.
        token: secret that every request must carry; None if none is needed.
    """

    def __init__(self, app: Any, token: str | None) -> None:
        self._app = app
        self._token = None if token is None else f"Bearer {token}".encode()
        self._wrong = WrongTokens()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except Refused as error:
                answer = JSONResponse(
                    {"error": str(error)}, error.status, HEADERS.get(error.status)
                )
                await answer(scope, receive, send)
                return
            scope[ADMITTED] = True
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._token is None:
            _check_local(headers)
        else:
            self._check_token(headers, (scope.get("client") or ("",))[0], self._token)
        if "transfer-encoding" in headers and "content-length" in headers:
            raise Refused(400, "a request has Content-Length or Transfer-Encoding, not both")

    def _check_token(self, headers: Headers, address: str, token: bytes) -> None:
        """Compares the token, unless another machine has sent too many wrong ones.

        Tunnels and proxies share the addresses of this machine, whose right token always counts.
        """
        given = headers.get("authorization", "").encode("latin-1")
        tried_often = self._wrong.too_many(address)
        may_compare = not tried_often or is_loopback(address)
        if may_compare and hmac.compare_digest(given, token):
            return
        if given:
            self._wrong.add(address)
        if tried_often:
            raise Refused(429, "too many wrong tokens: try again later")
        raise Refused(401, "this server needs a token, and got none or another")


def _check_local(headers: Headers) -> None:
    """Refuses a request under a name other than one of this machine, or from such a web page."""
    if not is_loopback(host_of(f"//{headers.get('host', '')}")):
        raise Refused(
            403,
            "without a token this server answers only to localhost and loopback addresses in the "
            "Host header; start it with a token for other names",
        )
    origin = headers.get("origin")
    if origin is not None and not is_loopback(host_of(origin)):
        raise Refused(403, "without a token this server answers no page of another origin")
