"""The one error of this package, and which errors are worth another try.

It never holds a secret, a token or a payload.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNREACHABLE = "unreachable"
TIMEOUT = "timeout"
BROKEN_ANSWER = "broken_answer"
ANSWER_TOO_LARGE = "answer_too_large"
INVALID_INPUT = "invalid_input"
CLOSED = "closed"

_RETRY_STATUS = frozenset({408, 429, 500, 502, 503, 504, 507})
_RETRY_CODES = frozenset(
    {
        UNREACHABLE,
        TIMEOUT,
        BROKEN_ANSWER,
        "request_timeout",
        "rate_limited",
        "internal_error",
        "storage_error",
        "overloaded",
        "draining",
        "not_ready",
        "storage_full",
    }
)


class RelayError(Exception):
    """Why a request to the relay failed.

    `code` is the relay's error code (docs/api.md lists them), `http_STATUS` if an error response
    has none, or one of this package: `unreachable`, `timeout`, `broken_answer`,
    `answer_too_large`, `closed`. The relay's code `invalid_input` also stands for what this package
    does not send at all. `status` is the HTTP status, if there was a response. `details` are the
    relay's. `retry_after_s` is the pause that the relay asks for, in seconds.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.details: Mapping[str, Any] = details or {}
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def worth_retry(self) -> bool:
        """Whether the same request may succeed later."""
        if self.status is not None and self.code not in (BROKEN_ANSWER, ANSWER_TOO_LARGE):
            return self.status in _RETRY_STATUS
        return self.code in _RETRY_CODES


def unreachable(cause: BaseException | str) -> RelayError:
    """The relay cannot be reached, or the connection broke."""
    if isinstance(cause, BaseException):
        cause = str(cause) or type(cause).__name__
    return RelayError(UNREACHABLE, cause)


def timed_out() -> RelayError:
    """The response did not come in time."""
    return RelayError(TIMEOUT, "the relay did not respond in time")


def broken_answer(message: str) -> RelayError:
    """What came is not a response of a relay."""
    return RelayError(BROKEN_ANSWER, message)


def answer_too_large(limit_bytes: int) -> RelayError:
    """A response, or a line of a stream, is over the client's limit."""
    return RelayError(ANSWER_TOO_LARGE, f"the response has more than {limit_bytes} bytes")


def invalid_input(message: str) -> RelayError:
    """The application passed a value that cannot work."""
    return RelayError(INVALID_INPUT, message)


def closed() -> RelayError:
    """The client was closed before the request was done."""
    return RelayError(CLOSED, "the client is closed")
