"""Both clients behind one interface, so that a test is written once."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
from collections.abc import Callable, Iterable
from typing import Any

from relay_client import (
    AsyncClient,
    Client,
    Content,
    Credentials,
    Options,
    OutgoingMessage,
    PushResult,
    RelayError,
)
from relay_client.message import Transport

LIMIT_S = 30.0
QUICK = Options(poll_interval=0.05, wait_ms=500, ack_delay=0.01, request_timeout=5, push_timeout=5)


class Kind:
    """One of the clients, for one relay."""

    def __init__(
        self, url: str, options: Options = QUICK, credentials: Credentials | None = None
    ) -> None:
        self.url = url
        self.options = options
        self.credentials = credentials

    def push(self, recipient: str, payload: bytes, **extra: Any) -> PushResult:
        """Pushes one message."""
        raise NotImplementedError

    def push_file(self, recipient: str, payload: bytes) -> PushResult:
        """Pushes a file."""
        raise NotImplementedError

    def push_all(self, messages: Iterable[OutgoingMessage]) -> list[PushResult | RelayError]:
        """Pushes several messages."""
        raise NotImplementedError

    def take(
        self,
        recipient: str,
        count: int,
        *,
        transport: Transport = "wait",
        ack: bool = True,
        on_skipped: Callable[[str, str], None] | None = None,
        until: Callable[[], bool] = lambda: True,
        limit_s: float = LIMIT_S,
    ) -> list[Content]:
        """Takes `count` messages, and more until `until`; fewer after `limit_s`."""
        raise NotImplementedError


class Blocking(Kind):
    """The blocking client."""

    def _client(self) -> Client:
        return Client(self.url, self.options, credentials=self.credentials)

    def push(self, recipient: str, payload: bytes, **extra: Any) -> PushResult:
        with self._client() as client:
            return client.push(recipient, payload, **extra)

    def push_file(self, recipient: str, payload: bytes) -> PushResult:
        with self._client() as client:
            return client.push_file(recipient, io.BufferedReader(io.BytesIO(payload)))

    def push_all(self, messages: Iterable[OutgoingMessage]) -> list[PushResult | RelayError]:
        with self._client() as client:
            return client.push_all(messages)

    def take(
        self,
        recipient: str,
        count: int,
        *,
        transport: Transport = "wait",
        ack: bool = True,
        on_skipped: Callable[[str, str], None] | None = None,
        until: Callable[[], bool] = lambda: True,
        limit_s: float = LIMIT_S,
    ) -> list[Content]:
        taken: list[Content] = []
        with self._client() as client:
            messages = client.deliveries(recipient, transport=transport, on_skipped=on_skipped)
            watchdog = threading.Timer(limit_s, client.close)
            watchdog.start()
            try:
                for message in messages:
                    taken.append(message)
                    if ack:
                        message.ack()
                    if len(taken) >= count and until():
                        break
            finally:
                messages.close()
                watchdog.cancel()
                watchdog.join()
        return taken


class Asyncio(Kind):
    """The asyncio client."""

    def _client(self) -> AsyncClient:
        return AsyncClient(self.url, self.options, credentials=self.credentials)

    def push(self, recipient: str, payload: bytes, **extra: Any) -> PushResult:
        async def push() -> PushResult:
            async with self._client() as client:
                return await client.push(recipient, payload, **extra)

        return asyncio.run(push())

    def push_file(self, recipient: str, payload: bytes) -> PushResult:
        async def push() -> PushResult:
            async with self._client() as client:
                return await client.push_file(recipient, io.BufferedReader(io.BytesIO(payload)))

        return asyncio.run(push())

    def push_all(self, messages: Iterable[OutgoingMessage]) -> list[PushResult | RelayError]:
        async def push() -> list[PushResult | RelayError]:
            async with self._client() as client:
                return await client.push_all(messages)

        return asyncio.run(push())

    def take(
        self,
        recipient: str,
        count: int,
        *,
        transport: Transport = "wait",
        ack: bool = True,
        on_skipped: Callable[[str, str], None] | None = None,
        until: Callable[[], bool] = lambda: True,
        limit_s: float = LIMIT_S,
    ) -> list[Content]:
        taken: list[Content] = []

        async def take(client: AsyncClient) -> None:
            messages = client.deliveries(recipient, transport=transport, on_skipped=on_skipped)
            async with contextlib.aclosing(messages):
                async for message in messages:
                    taken.append(message)
                    if ack:
                        message.ack()
                    if len(taken) >= count and until():
                        break

        async def run() -> None:
            async with self._client() as client:
                watchdog = asyncio.get_running_loop().call_later(
                    limit_s, lambda: asyncio.ensure_future(client.close())
                )
                try:
                    await take(client)
                finally:
                    watchdog.cancel()

        asyncio.run(run())
        return taken


KINDS: tuple[type[Kind], ...] = (Blocking, Asyncio)
