"""The settings of a client, with their defaults."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import invalid_input


@dataclass(frozen=True)
class Options:
    """How a client behaves. Times are in seconds unless the name ends in `_ms`."""

    chunk_bytes: int = 256 * 1024
    """The largest chunk of a message; the client lowers it to the relay's limit."""
    request_timeout: float = 30.0
    """How long one request may take; a waiting pull may also take the time that it waits."""
    push_timeout: float = 60.0
    """How long a push goes on without the relay storing another chunk of it."""
    poll_interval: float = 1.0
    """The pause between two pulls, if the relay cannot wait for messages."""
    wait_ms: int = 25_000
    """How long a pull waits at the relay for a message, in milliseconds."""
    memory_bytes: int = 64 * 1024 * 1024
    """The most payload bytes of unfinished messages, and of messages that wait for their ack."""
    partial_age: float = 3600.0
    """An unfinished message is given up that long after its last chunk."""
    unacked_max: int = 1024
    """With more messages without an ack than this, the client pulls no more of them."""
    ack_max: int = 256
    """Acks of so many chunks are sent at once, and no more of them in one request."""
    ack_delay: float = 0.05
    """How long an ack waits for others that go with it."""
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    """For https: authorities and a client certificate. None: those of the system."""
    wall_clock: Callable[[], float] = field(default=time.time, repr=False)
    """The clock that tokens are signed by, in seconds since 1970."""

    def __post_init__(self) -> None:
        for name in ("chunk_bytes", "memory_bytes", "unacked_max", "ack_max"):
            if getattr(self, name) < 1:
                raise invalid_input(f"{name} must be at least 1")
        for name in ("request_timeout", "push_timeout", "poll_interval", "partial_age"):
            if not getattr(self, name) > 0:
                raise invalid_input(f"{name} must be above 0")
        for name in ("wait_ms", "ack_delay"):
            if not getattr(self, name) >= 0:
                raise invalid_input(f"{name} must not be negative")
