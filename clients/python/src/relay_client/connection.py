"""Connections of the blocking client: plain sockets, or TLS over them.

There is no thread and no proxy. `http.client` is not used because it has no limit for a response
and no deadline over a whole one; http1.py has, and the asyncio client needs it anyway.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from .effects import Answer
from .errors import RelayError, closed, unreachable, timed_out
from .http1 import READ_BYTES, Endpoint, LineSplitter, Request, ResponseParser

IDLE_MAX = 4
IDLE_AGE_S = 50.0

_T = TypeVar("_T")


class Connection:
    """One connection, for one request at a time."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None, deadline: float) -> None:
        self._endpoint = endpoint
        self.idle_since = 0.0
        timeout_s = max(0.001, deadline - time.monotonic())
        sock = _guard(
            lambda: socket.create_connection((endpoint.host, endpoint.port), timeout=timeout_s)
        )
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                sock = _guard(lambda: context.wrap_socket(sock, server_hostname=endpoint.host))
        except BaseException:
            sock.close()
            raise
        self._socket = sock

    def send(self, request: Request, deadline: float) -> None:
        """Sends all of a request."""
        data = request.encode(self._endpoint)
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        _guard(lambda: self._socket.sendall(data))

    def receive(self, deadline: float) -> bytes:
        """The next bytes; none if the relay has closed the connection."""
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise timed_out()
        self._socket.settimeout(left_s)
        return _guard(lambda: self._socket.recv(READ_BYTES))

    def interrupt(self) -> None:
        """Ends what another thread does with this connection."""
        with contextlib.suppress(OSError):
            # TLS has its own shutdown, which would wait for the peer; this one is the socket's.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


class LineStream:
    """The response to a stream request, read line by line."""

    def __init__(
        self, pool: Pool, connection: Connection, parser: ResponseParser, line_bytes_max: int
    ) -> None:
        self.heard_at = time.monotonic()
        self._pool = pool
        self._connection = connection
        self._parser = parser
        self._lines = LineSplitter(line_bytes_max)
        self._lines.feed(parser.take_body())

    def read(self, timeout_s: float) -> bytes | None:
        """The next line; None at the end. Raises `timeout` without harm to the stream."""
        deadline = time.monotonic() + timeout_s
        while True:
            line = self._lines.next()
            if line is not None:
                return line
            if self._parser.is_complete:
                return None
            self._parser.feed(self._connection.receive(deadline))
            self.heard_at = time.monotonic()
            self._lines.feed(self._parser.take_body())

    def close(self) -> None:
        """Closes the connection."""
        self._pool.discard(self._connection)


class Pool:
    """Connections to one relay. Threads may share it; each request has its connection alone."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
        if endpoint.is_tls and context is None:
            context = ssl.create_default_context()
        self._endpoint = endpoint
        self._context = context if endpoint.is_tls else None
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._is_closed = False

    def send(self, request: Request) -> Answer:
        """Sends a request and reads its response; for a stream, only its head."""
        deadline = time.monotonic() + request.timeout_s
        while True:
            connection = self._take_idle()
            is_fresh = connection is None
            if connection is None:
                connection = Connection(self._endpoint, self._context, deadline)
                self._register(connection)
            parser = ResponseParser(request.body_bytes_max)
            is_kept = False
            try:
                _exchange(connection, request, parser, deadline)
                assert parser.head is not None, "a response that has begun has a head"
                if request.is_stream and _is_open(parser):
                    stream = LineStream(self, connection, parser, request.body_bytes_max)
                    is_kept = True
                    return Answer(parser.head, b"", stream)
                is_kept = parser.is_reusable and self._give_back(connection)
                return Answer(parser.head, parser.take_body())
            except RelayError:
                # The relay may close an idle connection at any time: then a fresh one decides.
                if is_fresh or parser.is_begun or time.monotonic() >= deadline:
                    raise
            finally:
                if not is_kept:
                    self.discard(connection)

    def discard(self, connection: Connection) -> None:
        """Closes a connection."""
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def close(self) -> None:
        """Ends everything: requests of other threads fail, and new ones are refused."""
        with self._lock:
            self._is_closed = True
            for connection in self._idle:
                connection.close()
            self._idle.clear()
            for connection in self._busy:
                connection.interrupt()

    def _take_idle(self) -> Connection | None:
        oldest = time.monotonic() - IDLE_AGE_S
        with self._lock:
            if self._is_closed:
                raise closed()
            while self._idle:
                connection = self._idle.pop()
                if connection.idle_since > oldest:
                    self._busy.add(connection)
                    return connection
                connection.close()
        return None

    def _register(self, connection: Connection) -> None:
        with self._lock:
            if not self._is_closed:
                self._busy.add(connection)
                return
        connection.close()
        raise closed()

    def _give_back(self, connection: Connection) -> bool:
        with self._lock:
            if self._is_closed or len(self._idle) >= IDLE_MAX:
                return False
            connection.idle_since = time.monotonic()
            self._busy.discard(connection)
            self._idle.append(connection)
        return True


def _exchange(
    connection: Connection, request: Request, parser: ResponseParser, deadline: float
) -> None:
    """Sends a request and reads its response; for a stream, only its head."""
    refused: RelayError | None = None
    try:
        connection.send(request, deadline)
    except RelayError as error:
        # A relay that refuses a request may respond before it has read all of it.
        refused = error
    try:
        while not (parser.is_complete or (request.is_stream and _is_open(parser))):
            parser.feed(connection.receive(deadline))
    except RelayError as error:
        raise refused or error from None


def _is_open(parser: ResponseParser) -> bool:
    """Whether the response is a stream whose head has come."""
    return parser.head is not None and parser.head.status == 200


def _guard(action: Callable[[], _T]) -> _T:
    """Turns the errors of sockets into those of this package."""
    try:
        return action()
    except TimeoutError as error:
        raise timed_out() from error
    except (OSError, ValueError) as error:
        raise unreachable(error) from error
