"""Deliveries of one queue: which request comes next, and what its response means.

Two ways lead to the same pages: pulls that wait, and a stream. An inbox pulls nothing further while
its application has too much that it did not ack.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable

from . import wire
from .acks import AckLedger, MessageKey
from .assembly import Assembly, Complete
from .core import Call, Core, Retry, attempt, call, ensure_info
from .effects import Pause, Steps, StreamHandle, read_line
from .errors import ANSWER_TOO_LARGE, TIMEOUT, RelayError, unreachable, broken_answer
from .rereads import Rereads

KEEPALIVE_MIN_MS = 15_000
KEEPALIVE_MAX_MS = 300_000
_TICK_MIN_S = 0.005

logger = logging.getLogger("relay_client")


class Inbox:
    """The state of one `deliveries`."""

    def __init__(
        self,
        core: Core,
        ledger: AckLedger,
        *,
        is_stream: bool,
        on_skipped: Callable[[str, str], None] | None,
    ) -> None:
        self.ready: deque[Complete] = deque()
        self.ledger = ledger
        self._core = core
        self._is_stream = is_stream
        self._on_skipped = on_skipped
        self._assembly = Assembly(
            core.options.memory_bytes, core.options.partial_age, self._report_skipped
        )
        self._cursor: str | None = None
        self._page_max: int | None = None
        self._is_idle = False
        self._rereads = Rereads()
        self._stream: StreamHandle | None = None
        self._retry = Retry(core, None)
        self._is_cursor_refused = False

    def step(self) -> Steps[None]:
        """Makes one request, or reads one event of the stream. May leave messages in `ready`."""
        info = yield from ensure_info(self._core, None)
        self._assembly.expire(self._core.monotonic())
        self._start_over_if_due(info)
        if self._is_stream and "stream" in info.features and self._page_max is None:
            yield from self._follow()
        else:
            yield from self._pull(info)

    def close(self) -> None:
        """Ends the stream, if one is open."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _pull(self, info: wire.Info) -> Steps[None]:
        self.close()
        options = self._core.options
        wait_ms = min(options.wait_ms, info.wait_ms)
        # Without tail, a pull begins at the front, where it finds what is not acked at once.
        can_wait = {"wait", "tail"} <= info.features and wait_ms > 0
        if self._is_idle and not can_wait:
            yield Pause(self._tick(options.poll_interval))
        wait_s = self._tick(wait_ms / 1000) if can_wait else 0.0
        began = self._core.monotonic()
        try:
            page = yield from call(self._core, self._pull_call(info, wait_s), wire.parse_page, None)
        except RelayError as error:
            yield from self._recover(error)
            return
        self._take_page(page, info)
        if self._is_idle:
            self._page_max = None
        if can_wait and not page.items and self._core.monotonic() - began < wait_s / 2:
            # The relay did not wait, as when it stops. If that goes on, it must not be flooded.
            pause = self._retry.pause(unreachable("the relay does not wait"))
            yield Pause(min(pause.seconds, options.poll_interval))
        else:
            self._note_progress()

    def _pull_call(self, info: wire.Info, wait_s: float) -> Call:
        body: dict[str, object] = {"recipient": self.ledger.recipient}
        if self._cursor is not None:
            body["cursor"] = self._cursor
        if self._page_max is not None:
            body["max"] = self._page_max
        if wait_s > 0:
            body["wait_ms"] = max(1, math.ceil(wait_s * 1000))
        if "tail" in info.features:
            body["tail"] = True
        return self._call("/pull", body, wait_s)

    def _call(self, path: str, body: dict[str, object], extra_s: float) -> Call:
        return Call(
            path=path,
            body=wire.encode(body),
            recipient=self.ledger.recipient,
            credentials=self.ledger.credentials,
            body_bytes_max=self._core.page_bytes_max,
            extra_s=extra_s,
            is_stream=path == "/stream",
        )

    def _recover(self, error: RelayError) -> Steps[None]:
        """Prepares the next request, and pauses before it. Raises if there is no use in one."""
        if error.code == ANSWER_TOO_LARGE and self._page_max != 1:
            self._page_max = 1
            return
        if error.status == 400 and error.details.get("field") == "cursor" and self._cursor:
            self._cursor = None
            self._is_cursor_refused = True
            error = broken_answer("the relay does not know its cursor")
        yield self._retry.pause(error)

    def _note_progress(self) -> None:
        """Lets the pauses begin anew, unless this is the page directly after a refused cursor."""
        if not self._is_cursor_refused:
            self._retry = Retry(self._core, None)
        self._is_cursor_refused = False

    def _follow(self) -> Steps[None]:
        """Reads one event of the stream, which it opens if there is none."""
        if self._stream is None:
            yield from self._open()
            return
        silence_s = self._keepalive_ms / 1000 + self._core.options.request_timeout
        try:
            line = yield from read_line(self._stream, self._tick(silence_s))
            if line is None:
                raise unreachable("the stream has ended")
            self._take_event(line)
        except RelayError as error:
            heard_at = self._stream.heard_at if self._stream is not None else -math.inf
            if error.code == TIMEOUT and self._core.monotonic() - heard_at < silence_s:
                return
            self.close()
            yield from self._recover(error)

    def _open(self) -> Steps[None]:
        body: dict[str, object] = {
            "recipient": self.ledger.recipient,
            "keepalive_ms": self._keepalive_ms,
        }
        if self._cursor is not None:
            body["cursor"] = self._cursor
        try:
            answer = yield from attempt(self._core, self._call("/stream", body, 0.0), None)
        except RelayError as error:
            yield from self._recover(error)
            return
        self._stream = answer.stream

    @property
    def _keepalive_ms(self) -> int:
        return min(KEEPALIVE_MAX_MS, max(KEEPALIVE_MIN_MS, self._core.options.wait_ms))

    def _take_event(self, line: bytes) -> None:
        event = wire.decode(line)
        if "items" in event:
            page = wire.page_of(event)
            if page.next_cursor is None:
                raise broken_answer("a page of a stream has no cursor")
            self._take_page(page, self._core.info or wire.OLD_RELAY)
        elif "bye" in event:
            raise unreachable("the relay has ended the stream")
        self._note_progress()

    def _take_page(self, page: wire.Page, info: wire.Info) -> None:
        now = self._core.monotonic()
        for item in page.items:
            key = MessageKey(item.message_id, item.chunk_count, item.total_len, item.kind)
            if self.ledger.knows(key):
                self.ledger.ack_again(key, item.chunk_index)
                continue
            complete = self._assembly.add(key, item, now)
            if complete is not None:
                self.ledger.hand_out(key, len(complete.payload))
                self.ready.append(complete)
                if key.chunk_count > 1:
                    self._rereads.completed()
        if "tail" in info.features:
            self._cursor = page.next_cursor or self._cursor
            self._is_idle = page.remaining == 0 or not page.items
        else:
            # The end of the queue has no cursor, so the next poll begins at the front.
            self._cursor = page.next_cursor
            self._is_idle = page.next_cursor is None
        if self._is_idle:
            self._rereads.end(now)

    def _start_over_if_due(self, info: wire.Info) -> None:
        """Reads the queue from its front again, for messages that were dropped from memory."""
        now = self._core.monotonic()
        if not self._assembly.has_dropped or not self._is_idle or now < self._rereads.due_at:
            return
        self._assembly.has_dropped = False
        self._is_idle = False
        self._rereads.begin()
        self._cursor = None
        self.close()

    def _tick(self, longest_s: float) -> float:
        """How long to wait at most, so that nothing with a time of its own is late."""
        now = self._core.monotonic()
        times = [now + longest_s]
        expires_at = self._assembly.expires_at()
        if expires_at is not None:
            times.append(expires_at)
        if self._assembly.has_dropped and self._is_idle:
            times.append(self._rereads.due_at)
        return min(longest_s, max(_TICK_MIN_S, min(times) - now))

    def _report_skipped(self, message_id: str, reason: str) -> None:
        logger.warning("skipped a message: %s (%s)", message_id, reason)
        if self._on_skipped is not None:
            self._on_skipped(message_id, reason)
