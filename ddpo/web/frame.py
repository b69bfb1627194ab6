"""The frame of a page that one person uses on this machine: application, body and server.

    app = new_app("ddpo label", STATIC, token)      its index.html is the page at /
    app.add_api_route("/state", state)              answers come as JSON
    serve_page(app, token, port, announce, browser=True)

The page loads `/static/NAME` of its own folder and `/frame/NAME` of this package, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from ddpo.errors import ConfigError, DdpoError, one_line
from ddpo.io.atomic import printable
from ddpo.io.json_files import JsonError, parse_json
from ddpo.text import shortened
from ddpo.web.connections import bind, make_server
from ddpo.web.local_guard import ENTRANCE, HEADERS, LocalGuard, new_token
from ddpo.web.logs import LOGGER

__all__ = ["json_body", "new_app", "new_token", "serve_page"]

HOST: Final = "127.0.0.1"
FRAME: Final = Path(__file__).parent / "static"
JSON: Final = "application/json"
MOST_BODY: Final = 16 * 1024  # bytes
BODY_SECONDS: Final = 10.0
MOST_LINE: Final = 1000  # characters of an error

log = logging.getLogger(LOGGER)


def new_app(
    title: str, static: Path, token: str, close: Callable[[], None] | None = None
) -> FastAPI:
    """An application behind the guard, with its page and files; other routes are yours to add.

    A `DdpoError` of a route becomes {"error": one line} with status 400.

    Args:
        title: name of the application.
        static: folder of `index.html` and of the files that it loads from `/static/`.
        token: secret of the address, from `new_token`.
        close: function called when the server ends.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if close is not None:
            close()

    app = FastAPI(
        title=title,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # a redirect would repeat the Host header
        lifespan=lifespan,
        exception_handlers={
            HTTPException: _no_route,
            DdpoError: _refused,
            Exception: _failed,
        },
    )
    app.add_middleware(LocalGuard, token=token)
    app.mount("/static", StaticFiles(directory=static))
    app.mount("/frame", StaticFiles(directory=FRAME))

    async def page() -> FileResponse:
        return FileResponse(static / "index.html", media_type="text/html")

    async def no_icon() -> Response:
        return Response(status_code=204)

    app.add_api_route("/", page, methods=["GET"])
    app.add_api_route("/favicon.ico", no_icon, methods=["GET"])
    return app


async def json_body(request: Request, most_bytes: int = MOST_BODY) -> Mapping[str, Any]:
    """The JSON object in the body of a request.

    A web page cannot send this content type to another origin without a preflight request.

    Raises:
        ConfigError: the body is too long, too slow, or not an object of JSON.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise ConfigError(f"the content type must be {JSON}")
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for block in request.stream():
                body += block
                if len(body) > most_bytes:
                    raise ConfigError(f"the body is longer than {most_bytes} bytes")
        found = parse_json(body)
    except TimeoutError as error:
        raise ConfigError(f"the body did not arrive within {BODY_SECONDS:g} s") from error
    except JsonError as error:
        raise ConfigError(f"the body is not JSON: {one_line(error)}") from error
    if not isinstance(found, dict):
        raise ConfigError("the body must be an object")
    return found


def serve_page(
    app: FastAPI,
    token: str,
    port: int,
    announce: Callable[[str], None],
    *,
    browser: bool,
) -> None:
    """Serves the page on this machine alone until Ctrl-C.

    Args:
        app: application of `new_app`.
        token: its token.
        port: port to listen on; 0 for a free one.
        announce: receiver of the address, once connections are accepted.
        browser: True to open the address in the user's browser.

    Raises:
        ConfigError: the port cannot be used.
    """
    with bind(HOST, port) as listening:
        address = f"http://{HOST}:{listening.getsockname()[1]}{ENTRANCE}{token}"
        server = make_server(app)
        with suppress(KeyboardInterrupt):  # which uvicorn too raises after it has ended cleanly
            announce(address)
            if browser and _has_display():
                threading.Thread(
                    target=_open_browser, args=(address,), name="ddpo-browser", daemon=True
                ).start()
            server.run(sockets=[listening])


def _has_display() -> bool:
    """False where only a browser of the terminal could open, which would take the terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open_browser(address: str) -> None:
    """Opens the address, whose connection waits until the server has started."""
    with suppress(webbrowser.Error, OSError):
        webbrowser.open(address)


async def _no_route(_: Request, error: Exception) -> JSONResponse:
    status = getattr(error, "status_code", 404)
    headers = getattr(error, "headers", None)
    return JSONResponse({"error": str(getattr(error, "detail", error))}, status, headers)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": _line(error)}, 400)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    log.warning("a request failed: %s", one_line(error))
    return JSONResponse({"error": _line(error)}, 500, HEADERS)  # this one passes no guard


def _line(error: Exception) -> str:
    return printable(shortened(one_line(error), MOST_LINE))
