"""Connections within bounds of number, time and header size, on top of uvicorn's protocol.

uvicorn's own `limit_concurrency` counts idle connections and then refuses everybody. It also has
no time limit for headers that never come, and none for a client that does not read its answer.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from functools import partial
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ddpo.errors import ConfigError, one_line
from ddpo.web.logs import LOG_CONFIG, LOGGER

__all__ = [
    "ADMITTED",
    "CONNECTIONS",
    "BoundedServer",
    "affordable_connections",
    "bind",
    "make_config",
    "make_server",
]

ADMITTED: Final = "ddpo.admitted"
"""Key of an ASGI scope, set once a request has shown its token, or needs none."""
HEADER_BYTES: Final = 16 * 1024
CONNECTIONS: Final = 256  # greatest number at a time
BATCH: Final = 8  # connections accepted at once; a few batches come before a request is read
QUEUE: Final = 512  # connections that the system holds back until they are accepted
PATIENCE: Final = 2.0  # seconds in which a connection is new, checked, or between two requests
FEWEST: Final = 8  # connections
KEEP_ALIVE_SECONDS: Final = 5  # between two requests of one connection
DRAIN_SECONDS: Final = 5  # for running requests when the server ends
SWEEP_TICKS: Final = 5  # tenths of a second between two looks at all connections
SECONDS: Final = {
    "headers": 10.0,  # from the connection or the last answer to the end of the headers
    "rest": 5.0,  # of a refused body, which is read and thrown away so that the answer arrives
    "answer": 30.0,  # until the client has read it
}
"""Time limits of the phases of a connection; bodies have theirs where they are read."""

log = logging.getLogger(LOGGER)


class BoundedProtocol(H11Protocol):  # type: ignore[misc]  # uvicorn has no types
    """A connection that makes room for newer ones and ends if it is slow.

    Args:
        most: greatest number of connections.
        arguments: arguments of uvicorn's protocol.
    """

    def __init__(self, *, most: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._most = most
        self._phase: tuple[Any, str] = (None, "headers")  # with the request's cycle
        self._since = time.monotonic()
        self._welcome = False  # True once a request was admitted

    @property
    def busy(self) -> bool:
        """True while an admitted request, or one still to be checked, is unanswered."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or self.transport.is_closing():
            return False
        lasted = time.monotonic() - self._since
        if self._phase == (cycle, "answer") and lasted > PATIENCE:
            return False  # its client does not read
        return ADMITTED in cycle.scope or lasted < PATIENCE

    def connection_made(self, transport: Any) -> None:
        """Takes the connection in, if need be in place of one that sends nothing."""
        super().connection_made(transport)
        if len(self.connections) <= self._most:
            return
        idle = [one for one in self.connections if not one.busy and one is not self]
        if idle:
            log.warning("over %d connections: the idlest are closed", self._most)
            now = time.monotonic()
            min(idle, key=lambda one: one._worth(now)).drop()
        else:
            log.warning("over %d connections, all of them busy: new ones are refused", self._most)
            self._write_refusal("503 Service Unavailable", "all connections are in use")
            self.drop(wait=True)

    def _worth(self, now: float) -> tuple[bool, bool, float]:
        """Sorting key, lowest for the connection to close first: new ones are the last."""
        self._remember()
        return now - self._since < PATIENCE, self._welcome, self._since

    def _remember(self) -> None:
        if self.cycle is not None and ADMITTED in self.cycle.scope:
            self._welcome = True

    def on_response_complete(self) -> None:
        """Counts the pause between two requests from now on."""
        self._since = time.monotonic()
        self._phase = (self.cycle, "headers")
        super().on_response_complete()

    def drop(self, wait: bool = False) -> None:
        """Closes the connection, at once or after the bytes already written."""
        self.connections.discard(self)
        if wait:
            self.transport.close()
        else:
            self.transport.abort()

    def check_time(self, now: float) -> None:
        """Closes the connection if its phase has lasted too long.

        Args:
            now: monotonic time, in seconds.
        """
        phase = (self.cycle, self._phase_name())
        if phase != self._phase:
            self._phase = phase
            self._since = now
            self._remember()
        elif now - self._since > SECONDS.get(phase[1], float("inf")):
            log.warning("connections were closed that were too slow with their %s", phase[1])
            self.transport.abort()

    def _phase_name(self) -> str:
        cycle = self.cycle
        if self.transport.is_closing() or self.flow.write_paused:
            return "answer"
        if cycle is None:
            return "headers"
        if cycle.response_complete:
            return "rest" if self.conn.their_state is h11.SEND_BODY else "headers"
        return "answer" if cycle.response_started else "application"

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP with one line of JSON, and closes the connection."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self._write_refusal("400 Bad Request", msg)
        self.transport.close()

    def _write_refusal(self, status: str, line: str) -> None:
        body = json.dumps({"error": line})
        self.transport.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )

    def shutdown(self) -> None:
        """Ends the connection, after its running request if there is one."""
        try:
            super().shutdown()
        except h11.LocalProtocolError:
            self.transport.abort()


class BoundedServer(uvicorn.Server):  # type: ignore[misc]  # uvicorn has no types
    """uvicorn's server, which looks for slow connections twice a second."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to accept; asyncio accepts at once as many as the system may hold back."""
        await super().startup(sockets=sockets)
        for each in sockets or []:
            each.listen(QUEUE)

    async def on_tick(self, counter: int) -> bool:
        """Runs ten times per second; True if the server is to end."""
        if counter % SWEEP_TICKS == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                connection.check_time(now)
        return bool(await super().on_tick(counter))


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: The address is taken, not of this machine, or not allowed.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}") from error


def make_server(app: Any, connections: int = CONNECTIONS) -> BoundedServer:
    """The HTTP server of `app`; `run(sockets=[…])` serves until interrupted.

    Args:
        app: ASGI application.
        connections: greatest number of connections, as far as the limit of open files allows.

    Raises:
        ConfigError: The limit of open files leaves no room for connections.
    """
    return BoundedServer(make_config(app, affordable_connections(connections)))


def make_config(app: Any, connections: int) -> uvicorn.Config:
    """The settings of uvicorn.

    Args:
        app: ASGI application.
        connections: greatest number of connections.
    """
    return uvicorn.Config(
        app,
        http=partial(BoundedProtocol, most=connections),
        loop="asyncio",
        ws="none",
        backlog=BATCH,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        log_config=LOG_CONFIG,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # X-Forwarded-For would let clients choose their address
    )


def affordable_connections(wanted: int) -> int:
    """The number of connections that the limit of open files allows, at most `wanted`.

    The limit is raised as far as the system lets it. Half of the files stay free for rewards.

    Raises:
        ConfigError: Fewer than 8 connections are possible.
    """
    try:
        import resource
    except ModuleNotFoundError:  # a system without such a limit
        return wanted
    used = len(os.listdir("/dev/fd"))
    needed = used + BATCH + 2 * wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    found = min(wanted, (soft - used - BATCH) // 2)
    if found < min(FEWEST, wanted):
        fewest = used + BATCH + 2 * FEWEST
        raise ConfigError(
            f"the limit of {soft} open files leaves no room for connections: "
            f"raise it to at least {fewest} (ulimit -n {fewest})"
        )
    return found
