"""The blocking client. It starts no thread; several threads may share one client.

Acks are sent while the application asks for the next message, and by `flush` and `close`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO

from . import push as pushing
from .acks import AckLedger, send_batch
from .blocking_runner import BlockingRunner
from .core import Core
from .credentials import Credentials
from .errors import CLOSED, RelayError, closed, timed_out
from .inbox import Inbox
from .message import Content, Transport, content_fields, is_stream
from .options import Options
from .push import OutgoingMessage, PushResult

CLOSE_TIMEOUT_S = 5.0
EAGER_FLUSH_S = 1.0

logger = logging.getLogger("relay_client")


@dataclass(frozen=True)
class Message(Content):
    """A message that a `Client` hands out."""

    _client: Client = field(repr=False, compare=False)
    _ledger: AckLedger = field(repr=False, compare=False)

    def ack(self) -> None:
        """Says that the application has the message, so that the relay may delete it.

        Returns at once. The ack is sent with others when the next message is asked for, and by
        `Client.flush` and `Client.close`. A message without an ack comes again in another
        `deliveries`.
        """
        self._client._ack(self._ledger, self)


class Client:
    """A client of one relay. Close it, or use it as a context manager.

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
        self._runner = BlockingRunner(self._core)
        self._flush_lock = threading.Lock()
        self._acked = threading.Condition()
        self._unsent: set[AckLedger] = set()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def push(
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
        nothing twice. Pushes one after another arrive in that order.
        """
        message = OutgoingMessage(recipient, payload, kind, ttl, send_secret, message_id)
        steps = pushing.push_bytes(self._core, message, self._credentials)
        return self._runner.run(steps)

    def push_file(
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

        Give `length` in bytes if the file is not seekable.
        """
        message = OutgoingMessage(recipient, b"", kind, ttl, send_secret, message_id)
        steps = pushing.push_file(self._core, message, file, length, self._credentials)
        return self._runner.run(steps)

    def push_all(self, messages: Iterable[OutgoingMessage]) -> list[PushResult | RelayError]:
        """Sends several messages, small ones together in one request.

        Returns the outcome of each. A message that the relay refuses for a while arrives after the
        others.
        """
        return self._runner.run(pushing.push_all(self._core, messages, self._credentials))

    def deliveries(
        self,
        recipient: str,
        credentials: Credentials | None = None,
        *,
        transport: Transport = "wait",
        on_skipped: Callable[[str, str], None] | None = None,
    ) -> Generator[Message, None, None]:
        """Iterates over the messages of a queue, and waits for further ones until `close`.

        It goes on after every error that may pass. It raises `RelayError` if the relay refuses
        the request (400, 401, 403, 404). `on_skipped(message_id, reason)` is called for a message
        that is never handed out: `too_large`, `incomplete` (for too long) or `malformed`.
        With more than `Options.unacked_max` messages without an ack, it waits until another thread
        has acked some.
        """
        ledger = AckLedger(self._core, recipient, credentials or self._credentials)
        inbox = Inbox(self._core, ledger, is_stream=is_stream(transport), on_skipped=on_skipped)
        return self._deliver(inbox)

    def _deliver(self, inbox: Inbox) -> Generator[Message, None, None]:
        ledger = inbox.ledger
        try:
            while not self._runner.is_closed:
                while inbox.ready and not self._runner.is_closed:
                    fields = content_fields(inbox.ready.popleft())
                    yield Message(*fields, self, ledger)
                    if inbox.ready:
                        self._flush_due(ledger)
                self._flush(ledger, None)
                if self._has_room(ledger):
                    self._runner.run(inbox.step())
        except RelayError as error:
            if error.code != CLOSED:
                raise
        finally:
            inbox.close()

    def _has_room(self, ledger: AckLedger) -> bool:
        """Whether more may be pulled. If not, waits for an ack."""
        with self._acked:
            if ledger.is_full and not ledger.has_pending and not self._runner.is_closed:
                logger.warning("too many messages wait for their ack; not pulling more")
                self._acked.wait()
            return not ledger.is_full

    def flush(self) -> None:
        """Sends the acks that wait, and returns when the relay has confirmed them.

        Tries until it succeeds or the client is closed. Raises `RelayError` if the relay refuses.
        """
        for ledger in list(self._unsent):
            self._flush(ledger, None)

    def close(self) -> None:
        """Ends all waits and requests, and sends the acks that wait, for at most five seconds."""
        if self._runner.is_closed:
            return
        self._runner.close()
        with self._acked:
            self._acked.notify_all()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        last = BlockingRunner(self._core)
        for ledger in list(self._unsent):
            try:
                self._flush(ledger, deadline, last)
            except RelayError as error:
                logger.warning("closed with acks that were not sent: %s", error)
        last.close()

    def _ack(self, ledger: AckLedger, message: Message) -> None:
        if self._runner.is_closed:
            raise closed()
        with self._acked:
            ledger.ack(message._key)
            self._unsent.add(ledger)
            self._acked.notify_all()

    def _flush_due(self, ledger: AckLedger) -> None:
        """Sends acks that are due, without much delay for messages that are ready."""
        if ledger.due_in() != 0.0:
            return
        try:
            self._flush(ledger, time.monotonic() + EAGER_FLUSH_S)
        except RelayError as error:
            if not error.worth_retry:
                raise

    def _flush(
        self, ledger: AckLedger, deadline: float | None, runner: BlockingRunner | None = None
    ) -> None:
        # What another thread does may be out of reach for `close`, such as a connection attempt.
        left_s = -1 if deadline is None else max(0.0, deadline - time.monotonic())
        if not self._flush_lock.acquire(timeout=left_s):
            raise timed_out()
        try:
            while ledger.has_pending:
                (runner or self._runner).run(send_batch(self._core, ledger, deadline))
            with self._acked:
                if not ledger.has_pending:
                    self._unsent.discard(ledger)
                self._acked.notify_all()
        finally:
            self._flush_lock.release()
