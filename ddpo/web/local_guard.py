"""`LocalGuard`: the check of every request to a page that one person uses on this machine."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, Response

from ddpo.io.addresses import is_loopback
from ddpo.web.connections import ADMITTED
from ddpo.web.hosts import host_of

__all__ = ["ENTRANCE", "HEADERS", "LocalGuard", "new_token"]

ENTRANCE: Final = "/open/"
"""Start of the path that takes the token and gives the cookie."""
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of each answer that does not set them itself: nothing of another origin is loaded."""
SAFE: Final = ("GET", "HEAD")
OWN_SITE: Final = ("same-origin", "none")  # of Sec-Fetch-Site; none: typed or opened by a program
REOPEN: Final = "open the address that ddpo printed in the terminal"
ENTER: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>ddpo</title>'
    '<meta http-equiv="refresh" content="0;url=/"></head>'
    '<body><p><a href="/">Continue</a></p></body></html>'
)
"""A page that leads on: after a redirect from another site, browsers would hold the cookie back."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def new_token() -> str:
    """A random secret for a URL."""
    return secrets.token_urlsafe(24)


class LocalGuard:
    """ASGI middleware that lets through the browser to which the token was given.

    The token is in the printed address. It is exchanged for a cookie that scripts cannot read and
    that other sites cannot send. The headers Host, Origin and Sec-Fetch-Site keep out pages that
    reach this machine under another name (DNS rebinding) or from another port.

    Args:
        app: application behind the guard.
        token: secret of the address.
    """

    def __init__(self, app: Any, token: str) -> None:
        self._app = app
        self._token = token.encode()
        self._session = secrets.token_urlsafe(24)
        # ports share cookies, so that each server needs a name of its own
        self._cookie = f"ddpo-{hashlib.sha256(self._token).hexdigest()[:12]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it; adds headers to its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._answer(scope)
        if answer is not None:
            await answer(scope, receive, guarded)
            return
        scope[ADMITTED] = True
        await self._app(scope, receive, guarded)

    def _answer(self, scope: Scope) -> Response | None:
        """The guard's own answer; None for a request to pass on."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not is_loopback(host_of(f"//{host}")):
            return _refused(403, "this server answers only to localhost and loopback addresses")
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return _refused(403, "this server answers no page of another origin")
        path: str = scope["path"]
        if path.startswith(ENTRANCE) and scope["method"] in SAFE:
            return self._enter(path.removeprefix(ENTRANCE))
        if headers.get("sec-fetch-site", "none") not in OWN_SITE and path != "/":
            return _refused(403, "this server answers no page of another origin")
        given = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        if not hmac.compare_digest(given.encode(), self._session.encode()):
            return _refused(401, REOPEN)
        if scope["method"] not in SAFE and "origin" not in headers:
            return _refused(403, "a change needs the header Origin")
        return None

    def _enter(self, given: str) -> Response:
        if not hmac.compare_digest(given.encode(), self._token):
            return _refused(401, REOPEN)
        answer = HTMLResponse(ENTER)
        answer.set_cookie(self._cookie, self._session, httponly=True, samesite="strict")
        return answer


def _refused(status: int, line: str) -> Response:
    return JSONResponse({"error": line}, status)
