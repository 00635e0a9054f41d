"""A program that a test of several clients drives: commands as JSON lines in, events out.

`driver.py` uses the asyncio client, `driver.py --blocking` the blocking one.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from relay_client import (  # noqa: E402
    AsyncClient,
    AsyncMessage,
    Client,
    Content,
    Credentials,
    Message,
    Options,
    RelayError,
)

Command = dict[str, Any]
_BYTES_AND_MS = ("chunk_bytes", "memory_bytes", "wait_ms")
_SECONDS = ("poll_interval", "push_timeout", "partial_age", "ack_delay", "request_timeout")
_output = threading.Lock()


def emit(event: str, **fields: Any) -> None:
    """Writes one event."""
    with _output:
        print(json.dumps({"event": event, **fields}), flush=True)


def options_of(command: Command) -> Options:
    """The options of an `open`."""
    given = command.get("options") or {}
    values = {name: given[name] for name in _BYTES_AND_MS if given.get(name) is not None}
    for name in _SECONDS:
        if given.get(f"{name}_ms") is not None:
            values[name] = given[f"{name}_ms"] / 1000
    offset_s = command.get("clock_offset_ms", 0) / 1000
    return Options(**values, wall_clock=lambda: time.time() + offset_s)


def credentials_of(command: Command) -> Credentials | None:
    """The credentials of an `open`."""
    given = command.get("credentials") or {}
    if "secret" in given:
        return Credentials.secret(given["secret"])
    if "key" in given:
        seed = given["key"] + "=" * (-len(given["key"]) % 4)
        return Credentials.key(base64.urlsafe_b64decode(seed), given["audience"])
    return Credentials.token(given["token"]) if "token" in given else None


def push_arguments(command: Command) -> tuple[str, bytes, dict[str, Any]]:
    """The arguments of a `push`."""
    extra: dict[str, Any] = {"kind": command.get("kind") or "opaque"}
    extra["ttl"] = command.get("ttl_seconds")
    extra["message_id"] = command.get("message_id")
    return command["recipient"], base64.b64decode(command["payload_b64"]), extra


def emit_message(message: Content, command: Command) -> None:
    """Writes the event of a message."""
    fields: dict[str, Any] = {"message_id": message.message_id, "kind": message.kind}
    if command.get("digest"):
        fields["sha256"] = hashlib.sha256(message.payload).hexdigest()
        fields["bytes"] = len(message.payload)
    else:
        fields["payload_b64"] = base64.b64encode(message.payload).decode()
    emit("message", **fields)


def emit_skipped(message_id: str, reason: str) -> None:
    """Writes the event of a message that is never handed out."""
    emit("skipped", message_id=message_id, reason=reason)


class AsyncDriver:
    """Runs the commands with the asyncio client."""

    def __init__(self, command: Command) -> None:
        self._client = AsyncClient(
            command["url"], options_of(command), credentials=credentials_of(command)
        )
        self._pushes: asyncio.Queue[Command] = asyncio.Queue()
        self._messages: dict[str, AsyncMessage] = {}
        self._acks: set[asyncio.Task[None]] = set()
        self._tasks = [asyncio.create_task(self._push())]

    async def run(self, command: Command) -> None:
        """Starts one command."""
        if command["op"] == "push":
            self._pushes.put_nowait(command)
        elif command["op"] == "deliver":
            self._tasks.append(asyncio.create_task(self._deliver(command)))
        elif command["op"] == "ack":
            self._ack(self._messages[command["message_id"]])

    async def close(self) -> None:
        """Ends everything that was started."""
        await self._client.close()
        if self._acks:
            await asyncio.wait(self._acks)
        self._tasks[0].cancel()
        await asyncio.wait(self._tasks)

    async def _push(self) -> None:
        while True:
            command = await self._pushes.get()
            try:
                recipient, payload, extra = push_arguments(command)
                result = await self._client.push(recipient, payload, **extra)
                emit("pushed", id=command["id"], message_id=result.message_id)
            except RelayError as error:
                emit("failed", id=command["id"], code=error.code)

    async def _deliver(self, command: Command) -> None:
        messages = self._client.deliveries(
            command["recipient"],
            transport=command.get("transport") or "wait",
            on_skipped=emit_skipped,
        )
        try:
            async for message in messages:
                emit_message(message, command)
                self._messages[message.message_id] = message
                if command.get("auto_ack"):
                    self._ack(message)
        except RelayError as error:
            emit("error", code=error.code)

    def _ack(self, message: AsyncMessage) -> None:
        self._messages.pop(message.message_id, None)
        # The message is acked now, and a task waits for the relay.
        acked = message.ack()
        task = asyncio.create_task(self._emit_acked(message.message_id, acked))
        self._acks.add(task)
        task.add_done_callback(self._acks.discard)

    async def _emit_acked(self, message_id: str, acked: asyncio.Future[None]) -> None:
        try:
            await acked
            emit("acked", message_id=message_id)
        except RelayError as error:
            if error.code != "closed":
                emit("error", code=error.code)


class BlockingDriver:
    """Runs the commands with the blocking client, in threads of its own."""

    def __init__(self, command: Command) -> None:
        self._client = Client(
            command["url"], options_of(command), credentials=credentials_of(command)
        )
        self._pushes: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._acks: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._messages: dict[str, Message] = {}
        self._threads: list[threading.Thread] = []
        self._start(self._push)
        self._start(self._ack)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        thread.start()
        self._threads.append(thread)

    async def run(self, command: Command) -> None:
        """Starts one command."""
        if command["op"] == "push":
            self._pushes.put(command)
        elif command["op"] == "deliver":
            self._start(self._deliver, command)
        elif command["op"] == "ack":
            self._acks.put(self._messages.pop(command["message_id"]))

    async def close(self) -> None:
        """Ends everything that was started."""
        self._client.close()
        self._pushes.put(None)
        self._acks.put(None)
        for thread in self._threads:
            thread.join()

    def _push(self) -> None:
        while (command := self._pushes.get()) is not None:
            try:
                recipient, payload, extra = push_arguments(command)
                result = self._client.push(recipient, payload, **extra)
                emit("pushed", id=command["id"], message_id=result.message_id)
            except RelayError as error:
                emit("failed", id=command["id"], code=error.code)

    def _deliver(self, command: Command) -> None:
        messages = self._client.deliveries(
            command["recipient"],
            transport=command.get("transport") or "wait",
            on_skipped=emit_skipped,
        )
        try:
            for message in messages:
                if not command.get("auto_ack"):
                    self._messages[message.message_id] = message
                emit_message(message, command)
                if command.get("auto_ack"):
                    self._acks.put(message)
        except RelayError as error:
            emit("error", code=error.code)

    def _ack(self) -> None:
        while (message := self._acks.get()) is not None:
            try:
                message.ack()
                self._client.flush()
                emit("acked", message_id=message.message_id)
            except RelayError as error:
                if error.code != "closed":
                    emit("error", code=error.code)


def read_commands(loop: asyncio.AbstractEventLoop, commands: asyncio.Queue[Command]) -> None:
    """Reads standard input in a thread, up to its end or a `close`."""
    for line in sys.stdin:
        if not line.strip():
            continue
        command = json.loads(line)
        if command["op"] == "close":
            break
        loop.call_soon_threadsafe(commands.put_nowait, command)
    loop.call_soon_threadsafe(commands.put_nowait, {"op": "close"})


async def main() -> None:
    """Runs commands until the last one."""
    commands: asyncio.Queue[Command] = asyncio.Queue()
    reader = threading.Thread(
        target=read_commands, args=(asyncio.get_running_loop(), commands), daemon=True
    )
    reader.start()
    driver: AsyncDriver | BlockingDriver | None = None
    try:
        while (command := await commands.get())["op"] != "close":
            if command["op"] == "open":
                is_blocking = "--blocking" in sys.argv[1:]
                driver = BlockingDriver(command) if is_blocking else AsyncDriver(command)
                emit("opened")
            elif driver is not None:
                await driver.run(command)
    finally:
        if driver is not None:
            await driver.close()
    emit("closed")


if __name__ == "__main__":
    asyncio.run(main())
