"""What both clients share about requests: proofs, the clock, retries, and what the relay can do.

It performs no I/O itself: it yields effects (effects.py).
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from . import wire
from .credentials import Credentials
from .effects import Answer, AskInfo, Pause, Steps, send
from .errors import RelayError
from .http1 import Endpoint, Request
from .options import Options

SMALL_BODY_MAX = 1024 * 1024
BATCH_ITEMS_MAX = 64
_PAGE_BODY_MIN = 32 * 1024 * 1024
_CLOCK_ERROR_MAX_MS = 25 * 3600 * 1000
_CLOCK_REASONS = ("token_expired", "token_not_valid_yet")

T = TypeVar("T")
logger = logging.getLogger("relay_client")


class Core:
    """The state of a client that all its requests share."""

    def __init__(
        self, base_url: str, options: Options, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.endpoint = Endpoint.parse(base_url)
        self.options = options
        self.monotonic = monotonic
        self.random = random.Random()
        self.info: wire.Info | None = None
        self.clock_offset_ms = 0
        # The most items of one push, for slow networks: it falls and grows (push.py).
        self.batch_items_max = BATCH_ITEMS_MAX
        self._is_clock_corrected = False

    @property
    def page_bytes_max(self) -> int:
        """The largest response to a pull, and the longest line of a stream."""
        return max(_PAGE_BODY_MIN, 2 * self.options.memory_bytes)

    def wall_ms(self) -> int:
        """The local clock in milliseconds since 1970."""
        return int(self.options.wall_clock() * 1000)

    def proof(self, credentials: Credentials | None, recipient: str) -> str | None:
        """The proof for a request at this moment."""
        if credentials is None:
            return None
        return credentials.proof(recipient, (self.wall_ms() + self.clock_offset_ms) / 1000)

    def take_info(self, answer: Answer) -> None:
        """Remembers what the relay can do. Raises `RelayError` if it does not say."""
        if answer.head.status == 404:
            self.info = wire.OLD_RELAY
        elif answer.head.status == 200:
            self.info = wire.parse_info(answer.body)
        else:
            raise wire.error_of(answer)

    def correct_clock(self, error: RelayError, offset_used_ms: int) -> bool:
        """Whether a refused request is worth another token.

        The client believes the relay's clock once, by about a day at most, and only where nobody in
        between can forge it: otherwise somebody could make it sign a token for next year.
        """
        if error.status not in (401, 403):
            return False
        if self.clock_offset_ms != offset_used_ms:
            return True
        server_ms = error.details.get("server_ms")
        if not isinstance(server_ms, int) or isinstance(server_ms, bool):
            return False
        if self._is_clock_corrected or not self.endpoint.is_private:
            return False
        if error.details.get("reason", _CLOCK_REASONS[0]) not in _CLOCK_REASONS:
            return False
        offset_ms = server_ms - self.wall_ms()
        if abs(offset_ms) > _CLOCK_ERROR_MAX_MS:
            return False
        self.clock_offset_ms = offset_ms
        self._is_clock_corrected = True
        return True


class Retry:
    """The pauses between the tries of one request: what the relay asks for, or growing ones."""

    FIRST_S = 0.1
    LAST_S = 10.0

    def __init__(self, core: Core, deadline: float | None) -> None:
        self.deadline = deadline
        self._core = core
        self._tries = 0

    def pause(self, error: RelayError) -> Pause:
        """The pause after `error`. Raises it if another try is pointless or would be too late."""
        if not error.worth_retry:
            raise error
        jitter = self._core.random.random()
        if error.retry_after_s is not None:
            seconds = error.retry_after_s + jitter * min(1.0, 0.05 + error.retry_after_s / 10)
        else:
            seconds = min(self.LAST_S, self.FIRST_S * 2**self._tries) * (0.5 + jitter / 2)
        self._tries = min(self._tries + 1, 16)
        if self.deadline is not None and self._core.monotonic() + seconds >= self.deadline:
            raise error
        logger.info("a request failed: %s; next try in %.1f s", error, seconds)
        return Pause(seconds)


@dataclass(frozen=True)
class Call:
    """A request to be made, as often as it takes."""

    path: str
    body: bytes
    recipient: str
    credentials: Credentials | None
    body_bytes_max: int = SMALL_BODY_MAX
    extra_s: float = 0.0
    is_stream: bool = False
    proof: str | None = None

    def __repr__(self) -> str:
        return f"<Call {self.path}>"


def call(core: Core, what: Call, parse: Callable[[bytes], T], deadline: float | None) -> Steps[T]:
    """Makes a request until it succeeds, until an error is final, or until `deadline`.

    `deadline` is a time of `core.monotonic`; None: there is no end.
    """
    retry = Retry(core, deadline)
    while True:
        try:
            answer = yield from attempt(core, what, deadline)
            return parse(answer.body)
        except RelayError as error:
            pause = retry.pause(error)
        yield pause


def attempt(core: Core, what: Call, deadline: float | None) -> Steps[Answer]:
    """Makes a request once, and once more if the clock was wrong. Raises unless it succeeds."""
    is_repeated = False
    while True:
        offset_ms = core.clock_offset_ms
        proof = what.proof or core.proof(what.credentials, what.recipient)
        request = Request(
            method="POST",
            path=what.path,
            body=what.body,
            proof=proof,
            timeout_s=_timeout(core, deadline) + what.extra_s,
            body_bytes_max=what.body_bytes_max,
            is_stream=what.is_stream,
        )
        answer = yield from send(request)
        if answer.head.status == 200:
            return answer
        error = wire.error_of(answer)
        may_sign_again = what.credentials is not None and what.credentials.follows_clock
        if is_repeated or not may_sign_again or not core.correct_clock(error, offset_ms):
            raise error
        is_repeated = True


def ensure_info(core: Core, deadline: float | None) -> Steps[wire.Info]:
    """Asks the relay what it can do, unless that is known."""
    retry = Retry(core, deadline)
    while core.info is None:
        request = Request("GET", "/info", b"", None, _timeout(core, deadline), SMALL_BODY_MAX)
        try:
            yield AskInfo(request)
        except RelayError as error:
            pause = retry.pause(error)
        else:
            continue
        yield pause
    return core.info


def _timeout(core: Core, deadline: float | None) -> float:
    timeout_s = core.options.request_timeout
    if deadline is not None:
        timeout_s = min(timeout_s, max(0.01, deadline - core.monotonic()))
    return timeout_s
