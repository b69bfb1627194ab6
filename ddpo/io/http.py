"""HTTP requests that may carry a secret: no redirect, one deadline, and a bounded reply."""

from __future__ import annotations

import http.client
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from ddpo.io.background import Background

__all__ = ["Reply", "ReplyTooLong", "build_opener", "exchange"]

BLOCK: Final = 64 * 1024  # bytes


class ReplyTooLong(Exception):
    """A reply with more bytes than its reader accepts."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to a request."""

    status: int
    reason: str  # of the status line
    body: bytes
    headers: Mapping[str, str]


class _Request(urllib.request.Request):
    connection: http.client.HTTPConnection | None = None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect unfollowed: it could carry images and the secret to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class _Kept(urllib.request.AbstractHTTPHandler):
    """Keeps the connection of a request at hand, so that it can be cut at the deadline."""

    def do_open(self, http_class: Any, req: urllib.request.Request, **settings: Any) -> Any:
        def connect(host: str, **options: Any) -> http.client.HTTPConnection:
            connection: http.client.HTTPConnection = http_class(host, **options)
            if isinstance(req, _Request):
                req.connection = connection
            return connection

        return super().do_open(connect, req, **settings)


class _Http(_Kept, urllib.request.HTTPHandler):
    pass


class _Https(_Kept, urllib.request.HTTPSHandler):
    pass


def build_opener(*, loopback: bool) -> urllib.request.OpenerDirector:
    """An opener to which a redirect is an error of its status, as any other.

    Args:
        loopback: True if the host is this machine; no proxy is then used.
    """
    proxies = [urllib.request.ProxyHandler({})] if loopback else []
    return urllib.request.build_opener(_NoRedirect, _Http, _Https, *proxies)


def exchange(
    opener: urllib.request.OpenerDirector,
    url: str,
    body: bytes | None,
    headers: Mapping[str, str],
    *,
    seconds: float,
    most_bytes: int,
) -> Reply:
    """The reply of any status to a GET, or with `body` to a POST.

    Args:
        opener: opener from `build_opener`.
        url: address, http or https.
        body: bytes to send; None for a GET.
        headers: headers to send.
        seconds: time from the connection to the last byte.
        most_bytes: greatest length of the reply's body.

    Raises:
        TimeoutError: The reply is not complete in time; the connection is cut.
        ReplyTooLong: The reply is too long.
        OSError, http.client.HTTPException: There is no reply, or it is cut short or malformed.
    """
    request = _Request(url, body, dict(headers))
    ends = time.monotonic() + seconds

    def open_and_read() -> Reply:
        try:
            # one second more than the deadline below, which is to end first
            with opener.open(request, timeout=seconds + 1) as reply:
                return _reply(reply, ends, most_bytes)
        except urllib.error.HTTPError as error:
            with error:
                return _reply(error, ends, most_bytes)

    exchanged = Background(open_and_read, "ddpo-request")
    try:
        return exchanged.result(seconds)
    except TimeoutError:
        _cut(request)
        raise


def _cut(request: _Request) -> None:
    """Ends a connection whose headers do not end; a body ends with its own check of the time."""
    sock = request.connection.sock if request.connection is not None else None
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _reply(reply: Any, ends: float, most_bytes: int) -> Reply:
    return Reply(reply.status, str(reply.reason), _read(reply, ends, most_bytes), reply.headers)


def _read(reply: Any, ends: float, most_bytes: int) -> bytes:
    """The body of a reply; an endless, slow or too large body raises an error."""
    blocks = []
    size = 0
    read: Callable[[int], bytes] = reply.read1
    while block := read(BLOCK):
        blocks.append(block)
        size += len(block)
        if size > most_bytes:
            raise ReplyTooLong(f"longer than {most_bytes >> 20} MiB")
        if time.monotonic() > ends:
            raise TimeoutError
    # a read of limited length does not notice a cut connection
    if getattr(reply, "length", None):
        raise ConnectionError(f"the connection ended {reply.length} bytes too early")
    return b"".join(blocks)
