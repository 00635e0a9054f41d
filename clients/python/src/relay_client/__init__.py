"""A client of the store-and-forward relay: push messages, and take deliveries.

`Client` blocks, `AsyncClient` is for asyncio; both behave the same. The README shows how to use
them.
"""

from .aio import AsyncClient, AsyncMessage
from .blocking import Client, Message
from .credentials import (
    Credentials,
    SigningKey,
    generate_secret,
    recipient_of_key,
    recipient_of_secret,
    secret_text,
)
from .errors import RelayError
from .message import Content, Transport
from .options import Options
from .push import OutgoingMessage, PushResult

__all__ = [
    "AsyncClient",
    "AsyncMessage",
    "Client",
    "Content",
    "Credentials",
    "Message",
    "Options",
    "OutgoingMessage",
    "PushResult",
    "RelayError",
    "SigningKey",
    "Transport",
    "generate_secret",
    "recipient_of_key",
    "recipient_of_secret",
    "secret_text",
]
