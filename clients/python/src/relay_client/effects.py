"""What the core asks of the outside: requests, pauses, reads.

The core's procedures are generators (`Steps`). They yield an effect, the client performs it with
its own kind of I/O, and the procedure goes on with the reply. So both clients share every decision,
and neither the core nor its tests need a socket.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from .http1 import Head, Request


class Source(Protocol):
    """Where a payload is read from, such as a file that is open for reading bytes."""

    def read(self, size: int, /) -> bytes:
        """Returns the next bytes, at most `size`, and none at the end."""


class StreamHandle(Protocol):
    """The open response to a stream request. The client knows how to read it."""

    heard_at: float
    """When the last bytes came, by the core's monotonic clock."""

    def close(self) -> None:
        """Closes its connection at once. May be called twice."""


@dataclass(frozen=True)
class Answer:
    """A whole response; or, for a stream, its head and the handle to read on."""

    head: Head
    body: bytes
    stream: StreamHandle | None = None


@dataclass(frozen=True)
class Send:
    """Send this request. The reply is an `Answer`."""

    request: Request


@dataclass(frozen=True)
class AskInfo:
    """Send this request unless somebody else has done so meanwhile. There is no reply."""

    request: Request


@dataclass(frozen=True)
class ReadLine:
    """Read a line of the stream. The reply is the line, or None if the stream has ended.

    Without a line for `timeout_s`, this raises the error `timeout`, and the stream stays usable.
    """

    stream: StreamHandle
    timeout_s: float


@dataclass(frozen=True)
class ReadSource:
    """Read from a payload's source. The reply is bytes."""

    source: Source
    size: int


@dataclass(frozen=True)
class Pause:
    """Do nothing for so long. There is no reply."""

    seconds: float


Effect = Send | AskInfo | ReadLine | ReadSource | Pause
Reply = Answer | bytes | None
T = TypeVar("T")
Steps = Generator[Effect, Reply, T]


def send(request: Request) -> Steps[Answer]:
    """Sends a request."""
    reply = yield Send(request)
    assert isinstance(reply, Answer), "an Answer is the reply to Send"
    return reply


def read_line(stream: StreamHandle, timeout_s: float) -> Steps[bytes | None]:
    """Reads a line of a stream."""
    reply = yield ReadLine(stream, timeout_s)
    assert not isinstance(reply, Answer), "bytes or None are the reply to ReadLine"
    return reply


def read_source(source: Source, size: int) -> Steps[bytes]:
    """Reads up to `size` bytes of a payload."""
    reply = yield ReadSource(source, size)
    assert isinstance(reply, bytes), "bytes are the reply to ReadSource"
    return reply
