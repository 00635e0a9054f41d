"""The JSON of the relay's API: responses are read into types that cannot hold a wrong value.

A response that does not fit raises `broken_answer`. What a sender wrote into the metadata of a
chunk is passed on as it is; assembly.py judges it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

from .effects import Answer
from .errors import RelayError, broken_answer

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
RETRY_AFTER_MAX_S = 300.0
_KIND_BYTES_MAX = 64
_MESSAGE_MAX = 1000


@dataclass(frozen=True)
class Info:
    """What the relay can do."""

    features: frozenset[str] = frozenset()
    message_bytes: int = 1024 * 1024
    batch_items: int = 0
    batch_bytes: int = 0
    ack_items: int = 10_000
    wait_ms: int = 0


OLD_RELAY = Info()
"""A relay of 0.0.3: no features, and bodies of 2 MiB."""


@dataclass(frozen=True)
class Item:
    """One chunk, as a page has it."""

    message_id: str
    kind: str
    total_len: int
    chunk_index: int
    chunk_count: int
    sent_ms: int
    arrival_ms: int
    payload: bytes


@dataclass(frozen=True)
class Page:
    """The response to a pull, or an event of a stream with items."""

    items: list[Item]
    next_cursor: str | None
    remaining: int


@dataclass(frozen=True)
class Stored:
    """The response to a push of one item."""

    stored: bool
    conflict: bool


def encode(value: Mapping[str, Any]) -> bytes:
    """A body of a request."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def decode(body: bytes) -> dict[str, Any]:
    """The JSON object of a response."""
    try:
        value = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise broken_answer("the response is not JSON") from error
    if not isinstance(value, dict):
        raise broken_answer("the response is not a JSON object")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def error_of(answer: Answer) -> RelayError:
    """The error of a response whose status is not 200."""
    status = answer.head.status
    try:
        value = decode(answer.body).get("error")
    except RelayError:
        value = None
    header = answer.head.fields.get("retry-after", "")
    retry_after_s = float(header) if header.isascii() and header.isdigit() else None
    return _error(value if isinstance(value, dict) else {}, status, retry_after_s)


def _error(value: dict[str, Any], status: int | None, retry_after_s: float | None) -> RelayError:
    code, message, details = value.get("code"), value.get("message"), value.get("details")
    if not isinstance(code, str) or _CODE.fullmatch(code) is None:
        code = f"http_{status}" if status is not None else "unknown"
    if not isinstance(message, str):
        message = "the relay gives no reason"
    if not isinstance(details, dict):
        details = {}
    pause_ms = details.get("retry_after_ms")
    if _is_number(pause_ms):
        retry_after_s = pause_ms / 1000
    if retry_after_s is not None:
        retry_after_s = min(retry_after_s, RETRY_AFTER_MAX_S)
    return RelayError(
        code, _excerpt(message), status=status, details=details, retry_after_s=retry_after_s
    )


def _excerpt(text: str) -> str:
    """A text that is safe in a log and on a terminal: without control characters, and bounded."""
    escaped = (char if char.isprintable() else ascii(char)[1:-1] for char in text[:_MESSAGE_MAX])
    return "".join(escaped)[:_MESSAGE_MAX]


def parse_info(body: bytes) -> Info:
    """Reads the response to `GET /info`. Missing limits have cautious defaults."""
    value = decode(body)
    features, limits = value.get("features"), value.get("limits")
    if not isinstance(features, list) or not isinstance(limits, dict):
        raise broken_answer("the response to /info has no features or limits")

    def limit(name: str, default: int) -> int:
        found = limits.get(name, default)
        if not _is_number(found):
            raise broken_answer(f"the limit {name} is not a number")
        return max(1, int(found))

    return Info(
        features=frozenset(name for name in features if isinstance(name, str)),
        message_bytes=limit("message_bytes", OLD_RELAY.message_bytes),
        batch_items=limit("batch_items", 64),
        batch_bytes=limit("batch_bytes", 4 * 1024 * 1024),
        ack_items=limit("ack_items", OLD_RELAY.ack_items),
        wait_ms=limit("wait_ms", 55_000),
    )


def parse_page(body: bytes) -> Page:
    """Reads the response to a pull."""
    return page_of(decode(body))


def page_of(value: dict[str, Any]) -> Page:
    """Reads a page or an event of a stream that has items."""
    items, cursor = value.get("items"), value.get("next_cursor")
    remaining = value.get("remaining_estimate", 0)
    if not isinstance(items, list) or not _is_number(remaining):
        raise broken_answer("a page has no items")
    if cursor is not None and (not isinstance(cursor, str) or len(cursor) > 4096):
        raise broken_answer("the cursor of a page is malformed")
    return Page([_item(item) for item in items], cursor, remaining)


def _item(value: Any) -> Item:
    meta = value.get("meta") if isinstance(value, dict) else None
    if not isinstance(meta, dict):
        raise broken_answer("an item of a page is malformed")
    message_id, payload = value.get("message_id"), value.get("ciphertext_b64")
    kind = meta.get("kind")
    if not isinstance(message_id, str) or _UUID.fullmatch(message_id) is None:
        raise broken_answer("an item of a page has no message id")
    if not isinstance(kind, str) or not isinstance(payload, str):
        raise broken_answer("an item of a page has no kind or payload")
    # Relays of the first version store such. A message of no chunks is skipped as malformed.
    is_kind_long = len(kind.encode("utf-8", "surrogatepass")) > _KIND_BYTES_MAX
    try:
        data = base64.b64decode(payload, validate=True)
    except ValueError as error:
        raise broken_answer("the payload of an item is not base64") from error
    return Item(
        message_id=message_id.lower(),
        kind="" if is_kind_long else kind,
        total_len=_integer(meta.get("total_len")),
        chunk_index=_integer(meta.get("chunk_index")),
        chunk_count=0 if is_kind_long else _integer(meta.get("chunk_count")),
        sent_ms=_integer(meta.get("sent_ms")),
        arrival_ms=_integer(value.get("arrival_ms", 0)),
        payload=data,
    )


def _integer(value: Any) -> int:
    if not _is_integer(value):
        raise broken_answer("an item of a page lacks a number")
    return value


def parse_stored(body: bytes) -> Stored:
    """Reads the response to a push."""
    return _stored(decode(body))


def _stored(value: dict[str, Any]) -> Stored:
    stored = value.get("stored")
    if not isinstance(stored, bool):
        raise broken_answer("the response to a push does not say whether it is stored")
    return Stored(stored, value.get("conflict") is True)


def parse_batch(body: bytes, count: int) -> list[Stored | RelayError]:
    """Reads the response to a batch of `count` items."""
    results = decode(body).get("results")
    if not isinstance(results, list) or len(results) != count:
        raise broken_answer("the response to a batch has a wrong number of results")
    return [_result(result) for result in results]


def _result(value: Any) -> Stored | RelayError:
    if not isinstance(value, dict):
        raise broken_answer("a result of a batch is malformed")
    error = value.get("error")
    return _stored(value) if error is None else _error(_as_dict(error), None, None)


def parse_acked(body: bytes) -> None:
    """Reads the response to an ack. Items that are missing are as good as deleted."""
    if not _is_number(decode(body).get("deleted")):
        raise broken_answer("the response to an ack is malformed")


def _as_dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise broken_answer("an error of a batch is malformed")
    return value


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64


def _is_number(value: Any) -> TypeGuard[int]:
    return _is_integer(value) and value >= 0
