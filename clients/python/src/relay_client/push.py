"""Pushing: a payload becomes chunks, chunks become batches, and refused chunks are sent again.

Everything here may be sent twice: the ids of a message stay the same over all tries.
"""

from __future__ import annotations

import base64
import io
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from . import wire
from .core import BATCH_ITEMS_MAX, Call, Core, Retry, attempt, ensure_info
from .credentials import Credentials, secret_text
from .effects import Source, Steps, read_source
from .errors import TIMEOUT, RelayError, invalid_input

BATCH_BYTES_MAX = 4 * 1024 * 1024
CHUNKS_MAX = 65_536
# A request that takes too long is too large for this network.
SHRINK = 4


@dataclass(frozen=True)
class OutgoingMessage:
    """A message to push. `ttl` is in seconds; None: as long as the relay keeps messages.

    `send_secret` opens the send lock of the recipient. `message_id` is a UUID; give one only to
    repeat an earlier push.
    """

    recipient: str
    payload: bytes = field(repr=False)
    kind: str = "opaque"
    ttl: int | None = None
    send_secret: bytes | str | None = field(default=None, repr=False)
    message_id: str | None = None


@dataclass(frozen=True)
class PushResult:
    """What became of a push.

    `stored` is False if the relay had all of the message already. `conflict` says that it had a
    chunk of the same message id with another payload, and keeps that.
    """

    message_id: str
    stored: bool
    conflict: bool = False

    @property
    def duplicate(self) -> bool:
        """Whether the relay had all of the message already."""
        return not self.stored


@dataclass(frozen=True)
class Plan:
    """How a message is sent: everything about it but its payload."""

    recipient: str
    kind: str
    ttl: int | None
    send_secret: str | None = field(repr=False)
    message_id: str
    total_len: int
    sent_ms: int

    @classmethod
    def of(cls, core: Core, message: OutgoingMessage, total_len: int) -> Plan:
        """Checks what the application passed."""
        if not isinstance(message.payload, (bytes, bytearray, memoryview)):
            raise invalid_input("a payload is bytes; encode a text, as with text.encode()")
        if not 1 <= _utf8_len(message.recipient) <= 512 or not message.recipient.strip():
            raise invalid_input("a recipient has 1 to 512 bytes and is not blank")
        if not 1 <= _utf8_len(message.kind) <= 64 or not message.kind.strip():
            raise invalid_input("a kind has 1 to 64 bytes and is not blank")
        if message.ttl is not None and message.ttl < 1:
            raise invalid_input("a ttl is at least one second")
        try:
            message_id = uuid.UUID(message.message_id) if message.message_id else uuid.uuid4()
        except ValueError as error:
            raise invalid_input("a message id is a UUID") from error
        secret = None if message.send_secret is None else secret_text(message.send_secret)
        return cls(
            recipient=message.recipient,
            kind=message.kind,
            ttl=message.ttl,
            send_secret=secret,
            message_id=str(message_id),
            total_len=total_len,
            sent_ms=core.wall_ms(),
        )

    def item(self, info: wire.Info, chunk: bytes, index: int, count: int) -> Item:
        """One chunk as an item of a push or a batch."""
        value: dict[str, Any] = {
            "recipient": self.recipient,
            "message_id": self.message_id,
            "ciphertext_b64": base64.b64encode(chunk).decode("ascii"),
            "meta": {
                "kind": self.kind,
                "total_len": self.total_len,
                "chunk_index": index,
                "chunk_count": count,
                "sent_ms": self.sent_ms,
            },
        }
        if self.ttl is not None and "ttl" in info.features:
            value["ttl_seconds"] = self.ttl
        proof = self.send_secret
        if proof is not None and "item_proof" in info.features:
            value["proof"], proof = proof, None
        return Item(value, self.recipient, proof, len(chunk))


@dataclass(frozen=True, repr=False)
class Item:
    """The JSON of one chunk. `proof` goes into the header, for relays that know no other place."""

    value: dict[str, Any]
    recipient: str
    proof: str | None
    payload_bytes: int


def push_bytes(
    core: Core, message: OutgoingMessage, credentials: Credentials | None
) -> Steps[PushResult]:
    """Sends one message whose payload is in memory."""
    plan = Plan.of(core, message, len(message.payload))
    return push(core, plan, io.BytesIO(message.payload), credentials)


def push_file(
    core: Core,
    message: OutgoingMessage,
    file: BinaryIO,
    length: int | None,
    credentials: Credentials | None,
) -> Steps[PushResult]:
    """Sends one message whose payload is the rest of a file, or `length` bytes of it."""
    total_len = remaining_bytes(file) if length is None else length
    return push(core, Plan.of(core, message, total_len), file, credentials)


def push(
    core: Core, plan: Plan, source: Source, credentials: Credentials | None
) -> Steps[PushResult]:
    """Sends one message, some chunks at a time. Raises the first error that is final."""
    info = yield from ensure_info(core, _new_retry(core).deadline)
    chunk_bytes = min(core.options.chunk_bytes, info.message_bytes)
    if "batch" in info.features:
        chunk_bytes = min(chunk_bytes, info.batch_bytes)
    count = max(1, -(-plan.total_len // chunk_bytes))
    if count > CHUNKS_MAX:
        raise invalid_input(f"a message has at most {CHUNKS_MAX} chunks; raise chunk_bytes")
    per_batch = min(_batch_items(info), max(1, _batch_bytes(info) // chunk_bytes))
    results: list[wire.Stored] = []
    for first in range(0, count, per_batch):
        items = []
        for index in range(first, min(count, first + per_batch)):
            size = min(chunk_bytes, plan.total_len - index * chunk_bytes)
            chunk = yield from _read_exactly(source, size)
            items.append(plan.item(info, chunk, index, count))
        results += _unwrap((yield from send_items(core, items, credentials, is_one=True)))
    return PushResult(
        plan.message_id, any(one.stored for one in results), any(one.conflict for one in results)
    )


def push_all(
    core: Core, messages: Iterable[OutgoingMessage], credentials: Credentials | None
) -> Steps[list[PushResult | RelayError]]:
    """Sends several messages, in batches where they are small. One's failure stops no other."""
    plans: list[tuple[Plan, Source]] = [
        (Plan.of(core, message, len(message.payload)), io.BytesIO(message.payload))
        for message in messages
    ]
    info = yield from ensure_info(core, _new_retry(core).deadline)
    small_bytes = min(core.options.chunk_bytes, info.message_bytes, _batch_bytes(info))
    results: list[PushResult | RelayError] = []
    for group in _groups(plans, info, small_bytes):
        if len(group) == 1:
            plan, source = group[0]
            try:
                results.append((yield from push(core, plan, source, credentials)))
            except RelayError as error:
                results.append(error)
            continue
        items = []
        for plan, source in group:
            chunk = yield from _read_exactly(source, plan.total_len)
            items.append(plan.item(info, chunk, 0, 1))
        outcomes = yield from send_items(core, items, credentials, is_one=False)
        for (plan, _), outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, wire.Stored):
                results.append(PushResult(plan.message_id, outcome.stored, outcome.conflict))
            else:
                results.append(outcome)
    return results


def _groups(
    plans: list[tuple[Plan, Source]], info: wire.Info, small_bytes: int
) -> Iterator[list[tuple[Plan, Source]]]:
    """Neighbours that fit into one batch; a message of several chunks is alone."""
    group: list[tuple[Plan, Source]] = []
    group_bytes = 0
    for plan, source in plans:
        needs_header = plan.send_secret is not None and "item_proof" not in info.features
        is_small = plan.total_len <= small_bytes and not needs_header
        is_full = (
            len(group) >= _batch_items(info) or group_bytes + plan.total_len > _batch_bytes(info)
        )
        if group and (is_full or not is_small):
            yield group
            group, group_bytes = [], 0
        if is_small:
            group.append((plan, source))
            group_bytes += plan.total_len
        else:
            yield [(plan, source)]
    if group:
        yield group


def send_items(
    core: Core, items: list[Item], credentials: Credentials | None, *, is_one: bool
) -> Steps[list[wire.Stored | RelayError]]:
    """Sends items until each has an outcome. It raises no error of the relay: it returns them.

    With `is_one`, they are one message, and the first final refusal is the end of all. The time
    begins again whenever an item has got its outcome.
    """
    outcomes: dict[int, wire.Stored | RelayError] = {}
    waiting = list(range(len(items)))
    retry = _new_retry(core)
    while waiting:
        sent = waiting[: core.batch_items_max]
        part = [items[index] for index in sent]
        answers = yield from _send_once(core, part, credentials, retry.deadline)
        outcomes.update(zip(sent, answers, strict=True))
        errors = [answer for answer in answers if isinstance(answer, RelayError)]
        refusals = [error for error in errors if not error.worth_retry]
        if is_one and refusals:
            return [refusals[0]]
        failures = [error for error in errors if error.worth_retry]
        _adapt(core, len(sent), failures)
        if len(failures) < len(sent):
            retry = _new_retry(core)
        waiting = [i for i in waiting if i not in outcomes or _worth_retry(outcomes[i])]
        if not failures:
            continue
        try:
            pause = retry.pause(max(failures, key=lambda error: error.retry_after_s or 0.0))
        except RelayError as last:
            return [outcomes.get(index, last) for index in range(len(items))]
        yield pause
    return [outcomes[index] for index in range(len(items))]


def _new_retry(core: Core) -> Retry:
    return Retry(core, core.monotonic() + core.options.push_timeout)


def _adapt(core: Core, sent: int, failures: list[RelayError]) -> None:
    """Fewer items in the next request if this one took too long, more if it succeeded."""
    if any(error.code == TIMEOUT or error.status == 408 for error in failures):
        core.batch_items_max = -(-sent // SHRINK)
    elif not failures:
        core.batch_items_max = min(2 * core.batch_items_max, BATCH_ITEMS_MAX)


def _send_once(
    core: Core, items: list[Item], credentials: Credentials | None, deadline: float | None
) -> Steps[list[wire.Stored | RelayError]]:
    """Sends items once: as a batch, or the only one as a push. A failure is that of each."""
    sender = credentials if credentials is not None and credentials.sends_with_push else None
    first = items[0]
    is_batch = len(items) > 1
    body = {"items": [item.value for item in items]} if is_batch else first.value
    what = Call(
        path="/push/batch" if is_batch else "/push",
        body=wire.encode(body),
        recipient=first.recipient,
        credentials=sender,
        proof=first.proof,
    )
    try:
        answer = yield from attempt(core, what, deadline)
        if is_batch:
            return wire.parse_batch(answer.body, len(items))
        return [wire.parse_stored(answer.body)]
    except RelayError as error:
        return [error] * len(items)


def _read_exactly(source: Source, size: int) -> Steps[bytes]:
    parts = []
    left = size
    while left:
        part = yield from read_source(source, left)
        if not part:
            raise invalid_input("the payload ended before its length")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _unwrap(results: list[wire.Stored | RelayError]) -> list[wire.Stored]:
    errors = [result for result in results if isinstance(result, RelayError)]
    if errors:
        raise errors[0]
    return [result for result in results if isinstance(result, wire.Stored)]


def _worth_retry(outcome: wire.Stored | RelayError) -> bool:
    return isinstance(outcome, RelayError) and outcome.worth_retry


def _batch_items(info: wire.Info) -> int:
    return min(BATCH_ITEMS_MAX, info.batch_items) if "batch" in info.features else 1


def _batch_bytes(info: wire.Info) -> int:
    return min(BATCH_BYTES_MAX, info.batch_bytes) if "batch" in info.features else BATCH_BYTES_MAX


def _utf8_len(text: str) -> int:
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise invalid_input("a text contains half of a surrogate pair") from error


def remaining_bytes(file: Any) -> int:
    """The bytes between the position and the end of a file. Raises if it is not seekable."""
    try:
        position = file.tell()
        end = file.seek(0, 2)
        file.seek(position)
    except (OSError, AttributeError) as error:
        raise invalid_input("give the length of a file that is not seekable") from error
    return max(0, int(end) - int(position))
