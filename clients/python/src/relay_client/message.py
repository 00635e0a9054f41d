"""What a client hands out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .acks import MessageKey
from .assembly import Complete
from .errors import invalid_input

Transport = Literal["wait", "stream"]


@dataclass(frozen=True)
class Content:
    """A message that has arrived as a whole.

    `sent_ms` is the sender's clock, `arrival_ms` the relay's when the last chunk came; both in
    milliseconds since 1970. What the sender says is not checked by the relay.
    """

    message_id: str
    kind: str
    payload: bytes = field(repr=False)
    sent_ms: int
    arrival_ms: int
    _key: MessageKey = field(repr=False, compare=False)


def content_fields(complete: Complete) -> tuple[str, str, bytes, int, int, MessageKey]:
    """The fields of a message, in the order of `Content`."""
    key = complete.key
    return (
        key.message_id,
        key.kind,
        complete.payload,
        complete.sent_ms,
        complete.arrival_ms,
        key,
    )


def is_stream(transport: str) -> bool:
    """Checks the name of a transport."""
    if transport not in ("wait", "stream"):
        raise invalid_input('the transport is "wait" or "stream"')
    return transport == "stream"
