"""Connections of the asyncio client, over asyncio's streams."""

from __future__ import annotations

import asyncio
import ssl
import time

from .effects import Answer
from .errors import RelayError, closed, unreachable
from .http1 import READ_BYTES, Endpoint, LineSplitter, Request, ResponseParser

IDLE_MAX = 4
IDLE_AGE_S = 50.0


class AsyncConnection:
    """One connection, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.idle_since = 0.0
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, endpoint: Endpoint, context: ssl.SSLContext | None) -> AsyncConnection:
        """Connects to the relay."""
        try:
            reader, writer = await asyncio.open_connection(
                endpoint.host,
                endpoint.port,
                ssl=context,
                server_hostname=endpoint.host if context is not None else None,
                limit=READ_BYTES,
            )
        except (OSError, ValueError) as error:
            raise unreachable(error) from error
        return cls(reader, writer)

    def send(self, data: bytes) -> None:
        """Begins to send. The response may come before the end of it."""
        self._writer.write(data)

    async def receive(self) -> bytes:
        """The next bytes; none if the relay has closed the connection."""
        try:
            return await self._reader.read(READ_BYTES)
        except (OSError, ValueError) as error:
            raise unreachable(error) from error

    @property
    def is_clean(self) -> bool:
        """Whether another request can use it."""
        transport = self._writer.transport
        is_sent = transport.get_write_buffer_size() == 0
        return is_sent and not transport.is_closing() and not self._reader.at_eof()

    def abort(self) -> None:
        """Closes the socket without waiting for anything."""
        self._writer.transport.abort()


class AsyncLineStream:
    """The response to a stream request, read line by line."""

    def __init__(
        self, connection: AsyncConnection, parser: ResponseParser, line_bytes_max: int
    ) -> None:
        self.heard_at = time.monotonic()
        self._connection = connection
        self._parser = parser
        self._lines = LineSplitter(line_bytes_max)
        self._lines.feed(parser.take_body())

    async def read(self) -> bytes | None:
        """The next line; None at the end. Nothing is lost if it is cancelled."""
        while True:
            line = self._lines.next()
            if line is not None:
                return line
            if self._parser.is_complete:
                return None
            self._parser.feed(await self._connection.receive())
            self.heard_at = time.monotonic()
            self._lines.feed(self._parser.take_body())

    def close(self) -> None:
        """Closes the connection."""
        self._connection.abort()


class AsyncPool:
    """Connections to one relay. Each request has its connection alone."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
        if endpoint.is_tls and context is None:
            context = ssl.create_default_context()
        self._endpoint = endpoint
        self._context = context if endpoint.is_tls else None
        self._idle: list[AsyncConnection] = []
        self._is_closed = False

    async def send(self, request: Request) -> Answer:
        """Sends a request and reads its response; for a stream, only its head."""
        while True:
            connection = self._take_idle()
            is_fresh = connection is None
            if connection is None:
                connection = await AsyncConnection.open(self._endpoint, self._context)
            parser = ResponseParser(request.body_bytes_max)
            is_kept = False
            try:
                connection.send(request.encode(self._endpoint))
                while not (parser.is_complete or (request.is_stream and _is_open(parser))):
                    parser.feed(await connection.receive())
                assert parser.head is not None, "a response that has begun has a head"
                if request.is_stream and _is_open(parser):
                    stream = AsyncLineStream(connection, parser, request.body_bytes_max)
                    is_kept = True
                    return Answer(parser.head, b"", stream)
                is_kept = parser.is_reusable and self._give_back(connection)
                return Answer(parser.head, parser.take_body())
            except RelayError:
                # The relay may close an idle connection at any time: then a fresh one decides.
                if is_fresh or parser.is_begun:
                    raise
            finally:
                if not is_kept:
                    connection.abort()

    async def close(self) -> None:
        """Closes the idle connections, and refuses new requests."""
        self._is_closed = True
        for connection in self._idle:
            connection.abort()
        self._idle.clear()
        # An aborted transport closes its socket in the next turns of the event loop.
        for _ in range(3):
            await asyncio.sleep(0)

    def _take_idle(self) -> AsyncConnection | None:
        if self._is_closed:
            raise closed()
        oldest = time.monotonic() - IDLE_AGE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > oldest and connection.is_clean:
                return connection
            connection.abort()
        return None

    def _give_back(self, connection: AsyncConnection) -> bool:
        if self._is_closed or len(self._idle) >= IDLE_MAX or not connection.is_clean:
            return False
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        return True


def _is_open(parser: ResponseParser) -> bool:
    """Whether the response is a stream whose head has come."""
    return parser.head is not None and parser.head.status == 200
