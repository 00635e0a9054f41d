"""What has become of the messages of one queue: handed out, acked, confirmed.

It collects acks into batches, and knows which messages must not be handed out again. Its methods
may be called from several threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from . import wire
from .core import Call, Core, call
from .credentials import Credentials
from .effects import Steps
from .errors import CLOSED, RelayError

CONFIRMED_MAX = 4096

Waiter = Callable[[RelayError | None], None]


@dataclass(frozen=True)
class MessageKey:
    """What the chunks of one message have in common."""

    message_id: str
    chunk_count: int
    total_len: int
    kind: str


@dataclass
class _HandedOut:
    """A message that the application has or may take, until its ack is confirmed."""

    payload_bytes: int
    is_acked: bool = False
    waiters: list[Waiter] = field(default_factory=list)


@dataclass(frozen=True)
class PendingAck:
    """Chunks to be acked, from `first` on up to and without `end`."""

    key: MessageKey
    since: float
    first: int
    end: int

    @property
    def entries(self) -> int:
        """How many chunks these are."""
        return self.end - self.first


class AckLedger:
    """The messages of one `deliveries`, from completion until their ack is confirmed."""

    def __init__(self, core: Core, recipient: str, credentials: Credentials | None) -> None:
        self.recipient = recipient
        self.credentials = credentials
        self._core = core
        self._lock = threading.Lock()
        self._handed_out: dict[MessageKey, _HandedOut] = {}
        self._handed_out_bytes = 0
        self._confirmed: OrderedDict[MessageKey, None] = OrderedDict()
        self._pending: deque[PendingAck] = deque()
        self._pending_entries = 0

    def hand_out(self, key: MessageKey, payload_bytes: int) -> None:
        """Notes a complete message."""
        with self._lock:
            self._handed_out[key] = _HandedOut(payload_bytes)
            self._handed_out_bytes += payload_bytes

    def knows(self, key: MessageKey) -> bool:
        """Whether the message was handed out, and is not to be again."""
        with self._lock:
            return key in self._handed_out or key in self._confirmed

    def ack_again(self, key: MessageKey, chunk_index: int) -> None:
        """Acks a chunk that has come again although the ack of its message was confirmed."""
        with self._lock:
            if key in self._confirmed and len(self._pending) < CONFIRMED_MAX:
                self._enqueue(PendingAck(key, self._now(), chunk_index, chunk_index + 1))

    def ack(self, key: MessageKey, waiter: Waiter | None = None) -> None:
        """Queues the ack of a message; twice is once.

        `waiter` is called when the relay has confirmed it, with None, or when it has refused it.
        """
        with self._lock:
            message = self._handed_out.get(key)
            if message is not None:
                if waiter is not None:
                    message.waiters.append(waiter)
                if not message.is_acked:
                    message.is_acked = True
                    self._enqueue(PendingAck(key, self._now(), 0, key.chunk_count))
                return
        if waiter is not None:
            waiter(None)

    def _enqueue(self, ack: PendingAck) -> None:
        self._pending.append(ack)
        self._pending_entries += ack.entries

    def _now(self) -> float:
        return self._core.monotonic()

    @property
    def is_full(self) -> bool:
        """Whether so much waits for its ack that no more is to be pulled."""
        options = self._core.options
        with self._lock:
            return (
                len(self._handed_out) > options.unacked_max
                or self._handed_out_bytes > options.memory_bytes
            )

    @property
    def has_pending(self) -> bool:
        """Whether acks wait to be sent."""
        with self._lock:
            return bool(self._pending)

    def due_in(self) -> float | None:
        """Seconds until the waiting acks are to be sent; None: there are none."""
        options = self._core.options
        with self._lock:
            if not self._pending:
                return None
            if self._pending_entries >= options.ack_max:
                return 0.0
            return max(0.0, self._pending[0].since + options.ack_delay - self._now())

    def take(self) -> list[PendingAck]:
        """Removes the acks that fit into one request."""
        info = self._core.info or wire.OLD_RELAY
        room = min(info.ack_items, self._core.options.ack_max)
        batch: list[PendingAck] = []
        with self._lock:
            while self._pending and room > 0:
                ack = self._pending.popleft()
                part = replace(ack, end=min(ack.end, ack.first + room))
                if part.end < ack.end:
                    self._pending.appendleft(replace(ack, first=part.end))
                batch.append(part)
                room -= part.entries
                self._pending_entries -= part.entries
        return batch

    def put_back(self, batch: list[PendingAck]) -> None:
        """Queues acks again whose request was given up."""
        with self._lock:
            self._pending.extendleft(reversed(batch))
            self._pending_entries += sum(ack.entries for ack in batch)

    def confirm(self, batch: list[PendingAck]) -> None:
        """Notes that the relay has deleted these."""
        waiters: list[Waiter] = []
        with self._lock:
            for ack in batch:
                if ack.end < ack.key.chunk_count or ack.key not in self._handed_out:
                    continue
                message = self._handed_out.pop(ack.key)
                self._handed_out_bytes -= message.payload_bytes
                self._confirmed[ack.key] = None
                waiters += message.waiters
            while len(self._confirmed) > CONFIRMED_MAX:
                self._confirmed.popitem(last=False)
        for waiter in waiters:
            waiter(None)

    def fail(self, keys: list[MessageKey], error: RelayError) -> None:
        """Notes that acks of these messages were refused; the application may ack them again."""
        waiters: list[Waiter] = []
        with self._lock:
            for key in keys:
                message = self._handed_out.get(key)
                if message is not None:
                    message.is_acked = False
                    waiters += message.waiters
                    message.waiters = []
            refused = set(keys)
            self._pending = deque(ack for ack in self._pending if ack.key not in refused)
            self._pending_entries = sum(ack.entries for ack in self._pending)
        for waiter in waiters:
            waiter(error)

    def fail_all(self, error: RelayError) -> None:
        """Notes that no further ack will be sent."""
        with self._lock:
            keys = list(self._handed_out)
        self.fail(keys, error)


def send_batch(core: Core, ledger: AckLedger, deadline: float | None) -> Steps[None]:
    """Sends one request of acks, until the relay confirms it or `deadline` comes."""
    batch = ledger.take()
    entries = [
        {"message_id": ack.key.message_id, "chunk_index": index}
        for ack in batch
        for index in range(ack.first, ack.end)
    ]
    body = wire.encode({"recipient": ledger.recipient, "ack": entries})
    what = Call("/ack", body, ledger.recipient, ledger.credentials)
    try:
        yield from call(core, what, wire.parse_acked, deadline)
    except RelayError as error:
        if error.worth_retry or error.code == CLOSED:
            ledger.put_back(batch)
        else:
            ledger.fail([ack.key for ack in batch], error)
        raise
    except GeneratorExit:
        ledger.put_back(batch)
        raise
    ledger.confirm(batch)
