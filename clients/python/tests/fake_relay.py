"""A small relay for tests, on the loopback, that can be told to misbehave.

It knows /info, /push, /push/batch, /pull, /ack and /stream. `hook` sees each request first and may
return a `Reply` in its place.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ALL = ["wait", "tail", "stream", "batch", "item_proof", "ttl"]


@dataclass
class Seen:
    """A request that came."""

    path: str
    body: Any
    proof: str | None
    connection: socket.socket | None = None
    at: float = field(default_factory=time.monotonic)


@dataclass
class Reply:
    """A response. With `cut_at`, the connection ends after so many of its bytes."""

    status: int = 200
    body: Any = None
    fields: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None

    def encode(self) -> bytes:
        """The bytes of the response."""
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        head = [f"HTTP/1.1 {self.status} Reason", f"Content-Length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in self.fields.items()]
        return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def refusal(status: int, code: str, details: Any = None, **fields: str) -> Reply:
    """An error of the relay. Fields have `_` for `-`."""
    error = {"code": code, "message": "no"}
    if details is not None:
        error["details"] = details
    return Reply(status, {"error": error}, {n.replace("_", "-"): v for n, v in fields.items()})


Hook = Callable[[Seen], Reply | None]


class FakeRelay:
    """The relay. `with FakeRelay() as relay:` serves on `relay.url`."""

    def __init__(self, features: list[str] | None = None, is_old: bool = False) -> None:
        self.features = ALL if features is None else features
        self.is_old = is_old
        self.limits: dict[str, int] = {"page_items": 256}
        self.page_bytes = 8 * 1024 * 1024
        self.hook: Hook | None = None
        self.seen: list[Seen] = []
        self.items: list[dict[str, Any]] = []
        self.connections = 0
        self._seq = 0
        self._changed = threading.Condition()
        self._is_closed = False
        relay = self

        class Handler(_Handler):
            """Handles the connections of this relay."""

            fake = relay

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeRelay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        with self._changed:
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def paths(self) -> list[str]:
        """The paths of all requests."""
        return [seen.path for seen in self.seen]

    def add(self, recipient: str, payload: bytes, **meta: Any) -> str:
        """Puts an item into a queue; returns its message id."""
        whole = {"kind": "opaque", "chunk_index": 0, "chunk_count": 1, "sent_ms": 1}
        message_id = meta.pop("message_id", None) or str(uuid.uuid4())
        item = {
            "recipient": recipient,
            "message_id": message_id,
            "ciphertext_b64": base64.b64encode(payload).decode(),
            "meta": {**whole, "total_len": len(payload), **meta},
        }
        self.store(item)
        return str(message_id)

    def add_chunks(self, recipient: str, chunks: list[bytes], order: list[int]) -> str:
        """Puts the chunks of one message into a queue, in this order."""
        message_id = str(uuid.uuid4())
        total_len = sum(map(len, chunks))
        for index in order:
            meta = {"chunk_index": index, "chunk_count": len(chunks), "total_len": total_len}
            self.add(recipient, chunks[index], message_id=message_id, **meta)
        return message_id

    def store(self, item: dict[str, Any]) -> bool:
        """Stores an item unless it is there."""
        with self._changed:
            if any(_id(item) == _id(other) for other in self.items):
                return False
            self._seq += 1
            self.items.append({**item, "seq": self._seq, "arrival_ms": self._seq})
            self._changed.notify_all()
            return True

    def answer(self, seen: Seen) -> Reply:
        """The response to a request, but for streams."""
        reply = self.hook(seen) if self.hook is not None else None
        if reply is not None:
            return reply
        if seen.path == "/info":
            if self.is_old:
                return refusal(404, "not_found")
            return Reply(200, {"features": self.features, "limits": self.limits})
        if seen.path == "/push":
            return Reply(200, self._push(seen.body))
        if seen.path == "/push/batch" and "batch" in self.features:
            return Reply(200, {"results": [self._push(item) for item in seen.body["items"]]})
        if seen.path == "/pull":
            return Reply(200, self.pull(seen.body, connection=seen.connection))
        if seen.path == "/ack":
            return Reply(200, self._ack(seen.body))
        return refusal(404, "not_found")

    def _push(self, item: dict[str, Any]) -> dict[str, Any]:
        if self.store(item):
            return {"stored": True, "queue_len": 0, "queue_bytes": 0}
        return {"stored": False, "duplicate": True, "queue_len": 0, "queue_bytes": 0}

    def _ack(self, body: Any) -> dict[str, Any]:
        acked = {(body["recipient"], one["message_id"], one["chunk_index"]) for one in body["ack"]}
        with self._changed:
            before = len(self.items)
            self.items = [item for item in self.items if _id(item) not in acked]
            deleted = before - len(self.items)
        return {"deleted": deleted, "missing": len(acked) - deleted, "remaining": 0}

    def pull(
        self, body: Any, is_stream: bool = False, connection: socket.socket | None = None
    ) -> dict[str, Any]:
        """One page; waits for it if the request says so, as long as the client is there."""
        after = int(body["cursor"][1:]) if body.get("cursor") else 0
        deadline = time.monotonic() + body.get("wait_ms", 0) / 1000

        def following() -> list[dict[str, Any]]:
            name = body["recipient"]
            return [i for i in self.items if i["recipient"] == name and i["seq"] > after]

        with self._changed:
            while not (items := following()) and time.monotonic() < deadline:
                if self._is_closed or _is_gone(connection):
                    break
                self._changed.wait(min(0.05, max(0.0, deadline - time.monotonic())))
        page = items[: min(body.get("max", 256), self.limits["page_items"])]
        cursor = f"c{page[-1]['seq']}" if page else body.get("cursor")
        if not is_stream and not body.get("tail") and len(page) == len(items):
            cursor = None
        return {
            "items": page,
            "next_cursor": cursor,
            "remaining_estimate": len(items) - len(page),
        }

    def stream(self, handler: _Handler, body: Any) -> None:
        """Sends events until the client or the test is gone."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        handler.wfile.write(head)
        while not self._is_closed:
            page = self.pull({**body, "wait_ms": 50}, is_stream=True)
            if not page["items"]:
                # A blank keeps the connection in motion, so that its end is noticed.
                _write_chunk(handler, b" ")
                continue
            body["cursor"] = page["next_cursor"]
            _write_chunk(handler, json.dumps(page).encode() + b"\n")


def _write_chunk(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


def _is_gone(connection: socket.socket | None) -> bool:
    """Whether the client has closed its side."""
    if connection is None:
        return False
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _id(item: dict[str, Any]) -> tuple[str, str, int]:
    return (item["recipient"], item["message_id"], item["meta"]["chunk_index"])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeRelay
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Counts the connection."""
        super().setup()
        self.fake.connections += 1

    def finish(self) -> None:
        """Counts the end of the connection."""
        self.fake.connections -= 1
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Is silent."""

    def do_GET(self) -> None:
        """Handles a GET."""
        self._handle(None)

    def do_POST(self) -> None:
        """Handles a POST."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._handle(json.loads(body))

    def _handle(self, body: Any) -> None:
        proof = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        seen = Seen(self.path, body, proof, self.connection)
        self.fake.seen.append(seen)
        if self.path == "/stream":
            reply = self.fake.hook(seen) if self.fake.hook is not None else None
            if reply is None:
                self.fake.stream(self, body)
                return
        else:
            reply = self.fake.answer(seen)
        data = reply.encode()
        if reply.cut_at is not None:
            data = data[: reply.cut_at]
            self.close_connection = True
        self.wfile.write(data)
