"""When an inbox asks again, by a script and with a clock of its own."""

from __future__ import annotations

import base64
import json
import unittest
from dataclasses import replace
from typing import Any

from relay_client import RelayError
from relay_client.acks import AckLedger
from relay_client.effects import Answer
from relay_client.http1 import Head
from relay_client.inbox import Inbox
from relay_client.wire import Info

from .test_core import Lines, World, answer, refusal


def chunk(number: int, index: int, payload: bytes) -> dict[str, Any]:
    """A chunk of one of several messages that have two, and eight bytes."""
    meta = {"kind": "x", "total_len": 8, "chunk_index": index, "chunk_count": 2, "sent_ms": 0}
    return {
        "message_id": f"00000000-0000-4000-8000-{number:012}",
        "ciphertext_b64": base64.b64encode(payload).decode(),
        "meta": meta,
    }


class Again(unittest.TestCase):
    """The pauses of an inbox."""

    def setUp(self) -> None:
        self.world = World()
        features = frozenset(["wait", "tail", "stream"])
        self.world.core.info = Info(features, wait_ms=25_000)
        options = replace(self.world.core.options, memory_bytes=10, partial_age=1e6)
        self.world.core.options = options

    def inbox(self, is_stream: bool = False) -> Inbox:
        """A new inbox."""
        ledger = AckLedger(self.world.core, "alice", None)
        return Inbox(self.world.core, ledger, is_stream=is_stream, on_skipped=None)

    def test_a_queue_of_halves_is_read_again_ever_more_rarely(self) -> None:
        halves = [chunk(number, 0, bytes(6)) for number in range(3)]
        items = list(halves)
        times: list[float] = []

        def script() -> Answer:
            body = json.loads(self.world.requests[-1].body)
            if "cursor" not in body:
                times.append(self.world.now)
                return answer(200, {"items": items, "next_cursor": "c", "remaining_estimate": 0})
            self.world.now += body["wait_ms"] / 1000
            return answer(200, {"items": [], "next_cursor": "c"})

        inbox = self.inbox()

        def pauses(count: int) -> list[int]:
            """The pauses before the next so many reads from the front."""
            first = len(times) - 1
            while len(times) <= first + count:
                self.world.run(inbox.step(), script)
            return [round(b - a) for a, b in zip(times[first:], times[first + 1 :])]

        self.world.run(inbox.step(), script)
        self.assertEqual(pauses(10), [0, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600])
        items.insert(1, chunk(0, 1, bytes(2)))
        self.assertEqual(pauses(4), [3600, 60, 120, 240])
        self.assertEqual(len(inbox.ready), 1)

    def test_a_cursor_that_is_always_refused_makes_the_pauses_grow(self) -> None:
        refused: RelayError | Answer = refusal(400, "invalid_input", field="cursor")
        page = {"items": [chunk(1, 0, b"")], "next_cursor": "c", "remaining_estimate": 1}

        def script() -> Answer | RelayError:
            request = self.world.requests[-1]
            if "cursor" in json.loads(request.body):
                return refused
            if not request.is_stream:
                return answer(200, page)
            return Answer(Head(200, {}, True), b"", Lines(json.dumps(page).encode()))

        for is_stream in (False, True):
            self.setUp()
            inbox = self.inbox(is_stream)
            for _ in range(60):
                self.world.run(inbox.step(), script)
            self.assertGreaterEqual(min(self.world.pauses[-5:]), 5.0)
            self.assertLess(self.world.pauses[0], 0.2)


if __name__ == "__main__":
    unittest.main()
