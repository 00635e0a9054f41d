"""Responses of a relay that sends what it must not."""

from __future__ import annotations

import json
import unittest
from typing import Any

from relay_client.effects import Answer
from relay_client.http1 import Head
from relay_client.wire import error_of, parse_page


def page(kind: str) -> bytes:
    """A page with one item."""
    meta = {"kind": kind, "total_len": 0, "chunk_index": 0, "chunk_count": 1, "sent_ms": 0}
    name = "00000000-0000-4000-8000-000000000003"
    items: list[Any] = [{"message_id": name, "ciphertext_b64": "", "meta": meta}]
    return json.dumps({"items": items, "next_cursor": None}).encode()


class Bounds(unittest.TestCase):
    """What is kept or logged has a size."""

    def test_a_kind_over_64_bytes_is_forgotten_and_its_item_malformed(self) -> None:
        for kind in ("x" * 64, "\u00e9" * 32, "\ud800"):
            self.assertEqual(parse_page(page(kind)).items[0].kind, kind)
        for kind in ("x" * 65, "\u00e9" * 33, "\ud800" * 22):
            item = parse_page(page(kind)).items[0]
            self.assertEqual((item.kind, item.chunk_count), ("", 0))

    def test_the_text_of_an_error_is_fit_for_a_log(self) -> None:
        def shown(message: str) -> str:
            error = {"code": "overloaded", "message": message}
            body = json.dumps({"error": error}).encode()
            return error_of(Answer(Head(503, {}, True), body)).message

        escaped = "no\\r\\nroot: yes\\x1b[2J\\u202e"
        self.assertEqual(shown("no\r\nroot: yes\x1b[2J\u202e"), escaped)
        self.assertEqual(shown("caf\u00e9 is full"), "caf\u00e9 is full")
        self.assertEqual(len(shown("\x1b" * 5000)), 1000)


if __name__ == "__main__":
    unittest.main()
