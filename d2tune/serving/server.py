"""The process of a server: its socket, its log, slow clients, and an end that loses no request."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from d2tune.errors import D2TuneError, MachineError, RunError
from d2tune.serving.middleware import JsonLines
from d2tune.serving.service import Service

logger = logging.getLogger(__name__)

_LINGER_S = 0.5
"""Seconds that idle connections stay open after SIGTERM, for requests that were sent before the client knew."""
_BACKLOG = 2048
_LOGGERS = ("d2tune", "uvicorn.error", "python_multipart")


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Args:
        host: A name or an address of this machine; ``0.0.0.0`` and ``::`` are all of them.
        port: The port; 0 takes a free one.

    Raises:
        MachineError: The port is in use or may not be used, or the address is not one of this machine.
    """
    place = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise MachineError("the host is not known", place="--host", found=host, expected="such as 127.0.0.1") from None
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # on Windows it would let several servers have the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        message, hint = f"cannot listen there: {error.strerror or error}", None
        if error.errno == errno.EADDRINUSE:
            message, hint = "the port is in use", "Stop the other server, or choose another port with --port."
        elif error.errno == errno.EACCES:
            hint = "Choose a port from 1024 with --port."
        elif error.errno == errno.EADDRNOTAVAIL:
            message = "the host is not an address of this machine"
        raise MachineError(message, place=place, hint=hint) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """The address of a listening socket for a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(service: Service, app: FastAPI, listener: socket.socket, *, on_ready: Callable[[], object]) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        service: The models and their state.
        app: The application.
        listener: The socket.
        on_ready: Called when all models are loaded.

    Raises:
        D2TuneError: A model cannot be loaded.
        RunError: The thread of a model ended with an error; all requests in progress were answered.
    """
    server = _Server(service, app, on_ready)
    _allow_open_files()
    with _json_log(), _hang_up(server):
        server.run(sockets=[listener])
    failure = server.failure
    if isinstance(failure, D2TuneError):
        raise failure
    if failure is not None:
        message = f"the thread of a model ended with {type(failure).__name__}; the log has the traceback"
        raise RunError(message, hint="Start the server again.")


def _allow_open_files() -> None:
    """Take as many connections as the system allows; the usual soft limit of 1,024 files is for old programs."""
    try:
        import resource
    except ImportError:  # on Windows
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(OSError, ValueError):  # macOS has a lower limit than it states
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def _hang_up(server: _Server) -> Iterator[None]:
    """End as after SIGTERM when the terminal is closed, but where ``nohup`` was asked for."""
    is_main = threading.current_thread() is threading.main_thread()
    if sys.platform == "win32" or not is_main or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGHUP, server.handle_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def _json_log() -> Iterator[None]:
    """Write the log of the server as lines of JSON to the standard error until the context ends."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    earlier = {}
    for name in _LOGGERS:
        one = logging.getLogger(name)
        earlier[name] = list(one.handlers), one.level, one.propagate
        one.handlers, one.propagate = [handler], False
    logging.getLogger("d2tune").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, (handlers, level, propagate) in earlier.items():
            one = logging.getLogger(name)
            one.handlers, one.propagate = handlers, propagate
            one.setLevel(level)


class _Server(uvicorn.Server):
    """uvicorn's server with an end in three steps: not ready, no new connections, the last answers."""

    def __init__(self, service: Service, app: FastAPI, on_ready: Callable[[], object]) -> None:
        settings = service.settings
        protocol = type("Protocol", (_Protocol,), {"limits": settings.limits})
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        )
        super().__init__(config)
        self._service = service
        self._on_ready = on_ready
        self._is_announced = False
        self.failure: BaseException | None = None
        service.on_failure = self._fail

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end; the second Ctrl-C ends at once."""
        if self._service.is_draining and sig == signal.SIGINT:
            self.should_exit = self.force_exit = True
            return
        self._service.drain()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if not self._is_announced and self._service.is_ready:
            self._is_announced = True
            with suppress(OSError):  # the standard output is closed
                self._on_ready()
        since, delay_s = self._service.draining_since, self._service.settings.drain_delay_s
        if since is not None and (self.failure is not None or time.monotonic() >= since + delay_s):
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept what the system has accepted, close the socket, answer everything, and end the models."""
        logger.info("the server ends: it answers the requests in progress")
        await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    def _fail(self, error: BaseException) -> None:
        """Called in the thread of a model."""
        self.failure = self.failure or error
        self._service.drain()


class _Protocol(H11Protocol):
    """uvicorn's protocol with an end to the patience for slow heads and for clients that do not read."""

    limits: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the head of the first request."""
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a head; the time does not begin anew with each byte."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        for timer in (self._late, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the rest of the next head where it has begun to arrive."""
        super().on_response_complete()
        self._watch_head()

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.limits.body_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def shutdown(self) -> None:
        """Answer what the client may have sent before it knew of the end; then close the connection."""
        if self._has_request():
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(_LINGER_S, self._close_idle)

    def _close_idle(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch_head(self) -> None:
        """Close the connection where the head of a request was begun, or none came, and time is over."""
        is_waiting = not self._has_request() and self.timeout_keep_alive_task is None
        if is_waiting and self._late is None:
            self._late = self.loop.call_later(self.limits.header_s, self.transport.close)
        elif not is_waiting and self._late is not None:
            self._late.cancel()
            self._late = None
