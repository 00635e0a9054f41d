"""Messages from chunks, within bounds of memory and time.

Chunks may come in any order, mixed with those of other messages, and more than once. It keeps only
unfinished messages; acks.py knows the others.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from .acks import MessageKey
from .push import CHUNKS_MAX
from .wire import Item

HELD_CHUNKS_MAX = 2 * CHUNKS_MAX
_SKIPPED_MAX = 4096

TOO_LARGE = "too_large"
INCOMPLETE = "incomplete"
MALFORMED = "malformed"


@dataclass(frozen=True)
class Complete:
    """A message of which all chunks are there."""

    key: MessageKey
    payload: bytes = field(repr=False)
    sent_ms: int
    arrival_ms: int


@dataclass
class _Partial:
    """A message of which chunks are missing."""

    grown_at: float
    sent_ms: int
    arrival_ms: int = 0
    payload_bytes: int = 0
    chunks: dict[int, bytes] = field(default_factory=dict)


class Assembly:
    """The unfinished messages of one queue, the one that has not grown for the longest first."""

    def __init__(
        self, memory_bytes: int, partial_age: float, on_skipped: Callable[[str, str], None]
    ) -> None:
        self.has_dropped = False
        self.held_bytes = 0
        self._held_chunks = 0
        self._memory_bytes = memory_bytes
        self._partial_age = partial_age
        self._on_skipped = on_skipped
        self._partials: OrderedDict[MessageKey, _Partial] = OrderedDict()
        # With the arrival of the last chunk that came in time; infinity: it can never succeed.
        self._skipped: OrderedDict[MessageKey, float] = OrderedDict()

    def add(self, key: MessageKey, item: Item, now: float) -> Complete | None:
        """Takes a chunk; returns the message that it completes."""
        if self._is_skipped(key, item):
            return None
        reason = self._fault(key, item)
        if reason is not None:
            self._skip(key, reason)
            return None
        if key.chunk_count == 1:
            return Complete(key, item.payload, item.sent_ms, item.arrival_ms)
        partial = self._partials.get(key)
        if partial is None:
            partial = self._partials[key] = _Partial(now, item.sent_ms)
        if item.chunk_index in partial.chunks:
            return None
        self._grow(key, partial, item, now)
        if partial.payload_bytes > key.total_len:
            self._skip(key, MALFORMED)
        elif len(partial.chunks) == key.chunk_count:
            return self._complete(key, partial)
        else:
            self._make_room()
        return None

    def _is_skipped(self, key: MessageKey, item: Item) -> bool:
        """Whether to ignore a chunk. A message that was given up goes on if its sender does."""
        until_ms = self._skipped.get(key)
        if until_ms is None:
            return False
        if item.arrival_ms <= until_ms:
            return True
        del self._skipped[key]
        self.has_dropped = True
        return False

    def _fault(self, key: MessageKey, item: Item) -> str | None:
        """Why a chunk belongs to no message that can be handed out."""
        if not 1 <= key.chunk_count <= CHUNKS_MAX or not 0 <= item.chunk_index < key.chunk_count:
            return MALFORMED
        if key.total_len < 0:
            return MALFORMED
        whole_bytes = len(item.payload) if key.chunk_count == 1 else key.total_len
        return TOO_LARGE if whole_bytes > self._memory_bytes else None

    def _grow(self, key: MessageKey, partial: _Partial, item: Item, now: float) -> None:
        partial.chunks[item.chunk_index] = item.payload
        partial.payload_bytes += len(item.payload)
        partial.arrival_ms = max(partial.arrival_ms, item.arrival_ms)
        partial.grown_at = now
        self.held_bytes += len(item.payload)
        self._held_chunks += 1
        self._partials.move_to_end(key)

    def _complete(self, key: MessageKey, partial: _Partial) -> Complete | None:
        if partial.payload_bytes != key.total_len:
            self._skip(key, MALFORMED)
            return None
        self._forget(key)
        payload = b"".join(partial.chunks[index] for index in range(key.chunk_count))
        return Complete(key, payload, partial.sent_ms, partial.arrival_ms)

    def _make_room(self) -> None:
        """Drops messages from memory. Their chunks stay on the relay."""
        while len(self._partials) > 1 and (
            self.held_bytes > self._memory_bytes or self._held_chunks > HELD_CHUNKS_MAX
        ):
            self._forget(next(iter(self._partials)))
            self.has_dropped = True

    def expire(self, now: float) -> None:
        """Gives up the messages that have not grown for too long."""
        while self._partials:
            key, partial = next(iter(self._partials.items()))
            if partial.grown_at + self._partial_age > now:
                return
            self._skip(key, INCOMPLETE)

    def expires_at(self) -> float | None:
        """When the next message is given up, if nothing comes."""
        if not self._partials:
            return None
        return next(iter(self._partials.values())).grown_at + self._partial_age

    def _forget(self, key: MessageKey) -> _Partial | None:
        partial = self._partials.pop(key, None)
        if partial is not None:
            self.held_bytes -= partial.payload_bytes
            self._held_chunks -= len(partial.chunks)
        return partial

    def _skip(self, key: MessageKey, reason: str) -> None:
        partial = self._forget(key)
        self._skipped[key] = math.inf
        if partial is not None and reason == INCOMPLETE:
            self._skipped[key] = partial.arrival_ms
        if len(self._skipped) > _SKIPPED_MAX:
            self._skipped.popitem(last=False)
        self._on_skipped(key.message_id, reason)
