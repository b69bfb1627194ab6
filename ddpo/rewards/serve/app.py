"""The server: rewards as a FastAPI application with `/health`, `/card/NAME` and `/score/NAME`.

Errors are {"error": one line}.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Final, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import ddpo
from ddpo.devices import processors
from ddpo.errors import ImageError, RewardFailure, RewardUnavailable, one_line
from ddpo.io.atomic import printable
from ddpo.registry import nearest
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.serve import wire
from ddpo.rewards.serve.budget import Budget
from ddpo.rewards.serve.gather import CLOSE_SECONDS, Gatherer
from ddpo.rewards.serve.guard import Guard
from ddpo.rewards.serve.token import check_token
from ddpo.rewards.serve.wire import (
    CALL_SECONDS,
    FLOAT_COST,
    WIRE_VERSION,
    Limits,
    Refused,
    encode_output,
    parse_request,
)
from ddpo.text import shortened
from ddpo.types import RewardOutput
from ddpo.web.connections import CONNECTIONS, bind, make_server
from ddpo.web.logs import LOGGER

__all__ = ["CONNECTIONS", "bind", "check_token", "make_app", "make_server"]

JSON: Final = "application/json"
BODIES: Final = 8  # largest bodies that are held at once
DECODERS: Final = 4  # threads
MOST_LINE: Final = 1000  # characters of an error

T = TypeVar("T")
log = logging.getLogger(LOGGER)


def make_app(
    rewards: Mapping[str, ResolvedReward],
    *,
    token: str | None = None,
    batch_size: int = 16,
    limits: Limits | None = None,
    seconds: float = CALL_SECONDS,
) -> FastAPI:
    """The application that serves `rewards`, all loaded.

    Args:
        rewards: rewards by their name in the URL.
        token: secret that every request must carry; None to answer all requests.
        batch_size: greatest number of images per call of a reward.
        limits: greatest size of one request.
        seconds: longest time for the body of a request, and again for its scores.

    Raises:
        UserError: A reward cannot be made.
    """
    service = _Service(rewards, batch_size, limits or Limits(), seconds)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="ddpo rewards",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # a redirect would repeat the Host header
        lifespan=lifespan,
        exception_handlers={HTTPException: _no_route},
    )
    app.add_middleware(Guard, token=token)
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
        batch_size: int,
        limits: Limits,
        seconds: float,
    ) -> None:
        self._limits = limits
        self._seconds = seconds
        self._bodies = Budget(BODIES * limits.body_bytes)
        self._pixels = Budget(FLOAT_COST * limits.pixels)
        self._decoders = ThreadPoolExecutor(min(DECODERS, processors()), "ddpo-decode")
        self._rewards = dict(rewards)
        self._identities = {
            name: hashlib.sha256(reward.identity.encode()).hexdigest()[:16]
            for name, reward in rewards.items()
        }
        self._signatures = {name: reward.signature for name, reward in rewards.items()}
        self.gatherers = {name: Gatherer(reward, batch_size) for name, reward in rewards.items()}

    def close(self) -> None:
        """Ends all calls; a reward that does not come back is left behind."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        for gatherer in self.gatherers.values():
            gatherer.stop()
        ends = time.monotonic() + CLOSE_SECONDS
        for gatherer in self.gatherers.values():
            gatherer.close(max(0.0, ends - time.monotonic()))

    async def health(self) -> JSONResponse:
        found = {
            name: {"signature": self._signatures[name], "identity": self._identities[name]}
            for name in self._rewards
        }
        return JSONResponse(
            {"status": "ok", "api": WIRE_VERSION, "ddpo": ddpo.__version__, "rewards": found}
        )

    async def card(self, name: str) -> JSONResponse:
        try:
            self._check(name)
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
            self._check(name)
            held = _Held(self._bodies)
            try:
                async with timeout(self._seconds, 408, "the body did not arrive"):
                    body = await self._body(request, held)
                async with timeout(self._seconds, 503, "the request was not scored"):
                    parsed = await self._in_thread(partial(parse_request, body, self._limits))
                    del body
                    output = await self._scores(request, name, parsed, held)
            finally:
                held.release()
        except Refused as error:
            return _refusal(error.status, error)
        except ImageError as error:
            return _refusal(400, error)
        except RewardUnavailable as error:
            return _refusal(503, error)
        except RewardFailure as error:
            return _refusal(422, error)
        except ClientDisconnect as error:
            return _refusal(400, error)  # nobody reads it
        except Exception as error:  # noqa: BLE001  # foreign code; the client gets one line
            log.warning("a request failed: %s", one_line(error))
            return _refusal(500, error)
        return JSONResponse(encode_output(output, self._signatures[name], self._identities[name]))

    def _check(self, name: str) -> None:
        if name not in self._rewards:
            shown = shortened(name)
            near = nearest(shown, self._rewards)
            hint = f"did you mean {near!r}?" if near else ", ".join(self._rewards)
            raise Refused(404, f"no reward {shown!r} is served here; {hint}")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work)

    async def _scores(
        self, request: Request, name: str, parsed: wire.Request, held: _Held
    ) -> RewardOutput:
        """The scores of a request, which is dropped from the queue if its client leaves.

        Its pixels count as taken until the reward has let go of them.
        """
        cost = parsed.cost
        await self._pixels.take(cost)
        try:
            batch = await self._in_thread(parsed.unpack)
            held.release()
            job = self.gatherers[name].submit(batch)
        except BaseException:
            self._pixels.give(cost)
            raise
        job.add_done_callback(partial(_give_later, asyncio.get_running_loop(), self._pixels, cost))
        scores = asyncio.wrap_future(job)
        gone = asyncio.ensure_future(_disconnection(request))
        try:
            waiting: set[asyncio.Future[Any]] = {scores, gone}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not scores.done():
                raise Refused(400, "the client left")
            return scores.result()
        finally:
            gone.cancel()
            scores.cancel()

    async def _body(self, request: Request, held: _Held) -> bytes:
        """The body, of which no more than the limit is ever held.

        A web page cannot send this content type to another origin without a preflight request, so
        no page that the user visits can use the server.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            raise Refused(415, f"the content type must be {JSON}")
        line = f"the body is longer than {self._limits.body_bytes} bytes"
        stated = request.headers.get("content-length", "0")
        if int(stated) > self._limits.body_bytes:  # h11 refuses what is no number
            raise Refused(413, line)
        blocks = []
        async for block in request.stream():
            held.add(len(block))
            if held.bytes > self._limits.body_bytes:
                raise Refused(413, line)
            blocks.append(block)
        return b"".join(blocks)


class _Held:
    """The bytes of one body in memory."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.bytes = 0

    def add(self, count: int) -> None:
        if not self._budget.take_now(count):
            raise Refused(429, "too many large requests at once: try again later")
        self.bytes += count

    def release(self) -> None:
        self._budget.give(self.bytes)
        self.bytes = 0


@asynccontextmanager
async def timeout(seconds: float, status: int, line: str) -> AsyncIterator[None]:
    """Refuses a request whose step takes too long."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Refused(status, f"{line} within {seconds:g} s") from error


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _give_later(loop: asyncio.AbstractEventLoop, budget: Budget, amount: int, _: object) -> None:
    """Gives an amount back from another thread."""
    with suppress(RuntimeError):  # the server has ended
        loop.call_soon_threadsafe(budget.give, amount)


async def _no_route(_: Request, error: Exception) -> JSONResponse:
    status = getattr(error, "status_code", 404)
    detail = f"{getattr(error, 'detail', error)}: there are GET /health, GET /card/NAME and POST "
    headers = getattr(error, "headers", None)
    return JSONResponse({"error": f"{detail}/score/NAME"}, status, headers)


def _refusal(status: int, error: BaseException) -> JSONResponse:
    line: dict[str, Any] = {"error": printable(shortened(one_line(error), MOST_LINE))}
    return JSONResponse(line, status_code=status)
