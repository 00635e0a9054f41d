"""The asyncio client. It belongs to the event loop that uses it first.

Only waiting acks have a task of their own, one for each queue, and it ends with the last of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO

from . import push as pushing
from .acks import AckLedger, send_batch
from .async_runner import AsyncRunner
from .core import Core
from .credentials import Credentials
from .errors import CLOSED, TIMEOUT, RelayError, closed
from .inbox import Inbox
from .message import Content, Transport, content_fields, is_stream
from .options import Options
from .push import OutgoingMessage, PushResult

CLOSE_TIMEOUT_S = 5.0

logger = logging.getLogger("relay_client")


class _Session:
    """The acks of one `deliveries`."""

    def __init__(self, ledger: AckLedger) -> None:
        self.ledger = ledger
        self.due = asyncio.Event()
        self.room = asyncio.Event()


@dataclass(frozen=True)
class AsyncMessage(Content):
    """A message that an `AsyncClient` hands out."""

    _client: AsyncClient = field(repr=False, compare=False)
    _session: _Session = field(repr=False, compare=False)

    def ack(self) -> asyncio.Future[None]:
        """Says that the application has the message, so that the relay may delete it.

        The ack is sent with others within `Options.ack_delay`. Await the result to know that the
        relay has confirmed it; it raises `RelayError` if the relay refuses, or the client is
        closed before. A message without an ack comes again in another `deliveries`.
        """
        return self._client._ack(self._session, self)


class AsyncClient:
    """A client of one relay. Close it, or use it as an asynchronous context manager.

    `credentials` open the queues that are read. A push carries them only if they are a token.
    """

    def __init__(
        self,
        base_url: str,
        options: Options | None = None,
        *,
        credentials: Credentials | None = None,
    ) -> None:
        self._core = Core(base_url, options or Options())
        self._credentials = credentials
        self._runner = AsyncRunner(self._core)
        self._flushers: dict[_Session, asyncio.Task[None]] = {}

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def push(
        self,
        recipient: str,
        payload: bytes,
        *,
        kind: str = "opaque",
        ttl: int | None = None,
        send_secret: bytes | str | None = None,
        message_id: str | None = None,
    ) -> PushResult:
        """Sends a message, and returns when the relay has stored all of it.

        `ttl` is in seconds. Raises `RelayError`; after one that is worth another try, push the
        same payload with the same `message_id`: all of it is sent again, and the relay stores
        nothing twice. Pushes awaited one after another arrive in that order.
        """
        message = OutgoingMessage(recipient, payload, kind, ttl, send_secret, message_id)
        steps = pushing.push_bytes(self._core, message, self._credentials)
        return await self._runner.run(steps)

    async def push_file(
        self,
        recipient: str,
        file: BinaryIO,
        *,
        length: int | None = None,
        kind: str = "opaque",
        ttl: int | None = None,
        send_secret: bytes | str | None = None,
        message_id: str | None = None,
    ) -> PushResult:
        """Sends the rest of a file like `push`, a batch of chunks in memory at a time.

        The file is read in a thread of the event loop's executor. Give `length` in bytes if it is
        not seekable.
        """
        message = OutgoingMessage(recipient, b"", kind, ttl, send_secret, message_id)
        steps = pushing.push_file(self._core, message, file, length, self._credentials)
        return await self._runner.run(steps)

    async def push_all(self, messages: Iterable[OutgoingMessage]) -> list[PushResult | RelayError]:
        """Sends several messages, small ones together in one request.

        Returns the outcome of each. A message that the relay refuses for a while arrives after the
        others.
        """
        return await self._runner.run(pushing.push_all(self._core, messages, self._credentials))

    def deliveries(
        self,
        recipient: str,
        credentials: Credentials | None = None,
        *,
        transport: Transport = "wait",
        on_skipped: Callable[[str, str], None] | None = None,
    ) -> AsyncGenerator[AsyncMessage, None]:
        """Iterates over the messages of a queue, and waits for further ones until `close`.

        It goes on after every error that may pass. It raises `RelayError` if the relay refuses
        the request (400, 401, 403, 404). `on_skipped(message_id, reason)` is called for a message
        that is never handed out: `too_large`, `incomplete` (for too long) or `malformed`.
        With more than `Options.unacked_max` messages without an ack, it waits for acks.
        """
        ledger = AckLedger(self._core, recipient, credentials or self._credentials)
        inbox = Inbox(self._core, ledger, is_stream=is_stream(transport), on_skipped=on_skipped)
        return self._deliver(inbox, _Session(ledger))

    async def _deliver(
        self, inbox: Inbox, session: _Session
    ) -> AsyncGenerator[AsyncMessage, None]:
        try:
            while not self._runner.is_closed:
                while inbox.ready and not self._runner.is_closed:
                    fields = content_fields(inbox.ready.popleft())
                    yield AsyncMessage(*fields, self, session)
                while session.ledger.is_full:
                    session.room.clear()
                    await self._runner.do(session.room.wait(), None)
                await self._runner.run(inbox.step())
                self._start_flusher(session)
        except RelayError as error:
            if error.code != CLOSED:
                raise
        finally:
            inbox.close()

    async def flush(self) -> None:
        """Sends the acks that wait, and returns when the relay has confirmed or refused them."""
        for session in self._flushers:
            session.due.set()
        if self._flushers:
            await asyncio.wait(set(self._flushers.values()))

    async def close(self) -> None:
        """Ends all waits and requests, and sends the acks that wait, for at most five seconds."""
        if self._runner.is_closed:
            return
        sessions = list(self._flushers)
        flushers = set(self._flushers.values())
        await self._runner.close()
        if flushers:
            await asyncio.wait(flushers)
        last = AsyncRunner(self._core)
        deadline = self._core.monotonic() + CLOSE_TIMEOUT_S
        try:
            for session in sessions:
                await self._flush_last(last, session.ledger, deadline)
        finally:
            await last.close()
            for session in sessions:
                session.ledger.fail_all(closed())

    async def _flush_last(self, last: AsyncRunner, ledger: AckLedger, deadline: float) -> None:
        try:
            while ledger.has_pending:
                await last.run(send_batch(self._core, ledger, deadline))
        except RelayError as error:
            logger.warning("closed with acks that were not sent: %s", error)

    def _ack(self, session: _Session, message: AsyncMessage) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._runner.is_closed:
            _settle(future, closed())
            return future
        session.ledger.ack(message._key, lambda error: _settle(future, error))
        self._start_flusher(session)
        return future

    def _start_flusher(self, session: _Session) -> None:
        """Sees to it that waiting acks are sent."""
        due_s = session.ledger.due_in()
        if due_s == 0.0:
            session.due.set()
        if due_s is None or session in self._flushers or self._runner.is_closed:
            return
        task = asyncio.get_running_loop().create_task(self._flush(session))
        self._flushers[session] = task

    async def _flush(self, session: _Session) -> None:
        """Sends the acks of a session until none waits, or the client is closed."""
        while (due_s := session.ledger.due_in()) is not None:
            try:
                await self._wait_until_due(session, due_s)
                await self._runner.run(send_batch(self._core, session.ledger, None))
            except RelayError as error:
                if error.code == CLOSED:
                    break
                logger.warning("the relay refuses acks: %s", error)
            session.room.set()
        del self._flushers[session]

    async def _wait_until_due(self, session: _Session, due_s: float) -> None:
        try:
            await self._runner.do(session.due.wait(), due_s)
        except RelayError as error:
            if error.code != TIMEOUT:
                raise
        session.due.clear()


def _settle(future: asyncio.Future[None], error: RelayError | None) -> None:
    """Resolves the result of an ack that its caller may have dropped or cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        # Nobody has to await an ack, so its error is not to be reported as forgotten.
        future.exception()
