"""Deliveries of both clients, from a small relay that misbehaves."""

from __future__ import annotations

import json
import time
import unittest
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from relay_client import Credentials, RelayError, core
from relay_client.core import Retry
from relay_client.credentials import generate_secret, secret_text
from relay_client.message import Transport

from .fake_relay import FakeRelay, Reply, Seen, refusal
from .kinds import KINDS, QUICK, Kind

TRANSPORTS: tuple[Transport, ...] = ("wait", "stream")
Case = tuple[type[Kind], FakeRelay, Transport]


def acked(relay: FakeRelay) -> list[tuple[str, int]]:
    """All entries of all acks."""
    return [
        (entry["message_id"], entry["chunk_index"])
        for seen in relay.seen
        if seen.path == "/ack"
        for entry in seen.body["ack"]
    ]


class Deliveries(unittest.TestCase):
    """Each test runs with each client, and with each transport."""

    def each(self, **relay: Any) -> Iterator[Case]:
        """Both clients by both transports, each with a relay of its own."""
        for kind in KINDS:
            for transport in TRANSPORTS:
                with self.subTest(f"{kind.__name__} {transport}"), FakeRelay(**relay) as fake:
                    yield kind, fake, transport

    def test_messages_come_whole_in_the_order_of_their_completion(self) -> None:
        for kind, relay, transport in self.each():
            relay.limits["page_items"] = 2
            first = relay.add_chunks("alice", [b"a", b"b", b"c"], [2, 0])
            relay.add("bob", b"not for alice")
            second = relay.add("alice", b"single")
            third = relay.add_chunks("alice", [b"x", b"", b"z"], [1, 2, 0])
            whole = {"chunk_index": 1, "chunk_count": 3, "total_len": 3}
            relay.add("alice", b"b", message_id=first, **whole)
            taken = kind(relay.url).take("alice", 3, transport=transport)
            self.assertEqual(
                [(message.message_id, message.payload) for message in taken],
                [(second, b"single"), (third, b"xz"), (first, b"abc")],
            )
            self.assertEqual([item["recipient"] for item in relay.items], ["bob"])
            self.assertEqual(len(acked(relay)), 7)

    def test_new_messages_are_waited_for(self) -> None:
        for kind, relay, transport in self.each():
            relay.add("alice", b"0")
            left = iter(range(1, 5))

            def more(relay: FakeRelay = relay, left: Iterator[int] = left) -> bool:
                number = next(left, None)
                if number is not None:
                    relay.add("alice", b"%d" % number)
                return number is None

            taken = kind(relay.url).take("alice", 1, transport=transport, until=more)
            self.assertEqual([one.payload for one in taken], [b"0", b"1", b"2", b"3", b"4"])

    def test_a_message_without_ack_comes_again_in_the_next_session_alone(self) -> None:
        for kind, relay, transport in self.each():
            name = relay.add("alice", b"hello")
            client = kind(relay.url)
            for ack in (False, True):
                taken = client.take("alice", 1, transport=transport, ack=ack)
                self.assertEqual([message.message_id for message in taken], [name])
            self.assertEqual(relay.items, [])
            self.assertEqual(client.take("alice", 1, transport=transport, limit_s=0.5), [])

    @patch.object(Retry, "FIRST_S", 0.001)
    def test_errors_that_pass_are_passed_over(self) -> None:
        path = {"wait": "/pull", "stream": "/stream"}
        for kind, relay, transport in self.each():
            relay.add("alice", b"hello")
            replies = [
                refusal(503, "draining", Retry_After="0"),
                Reply(200, b"{broken"),
                Reply(200, {"items": [{}], "next_cursor": None}),
                Reply(200, {"items": []}, cut_at=25),
                refusal(429, "rate_limited"),
            ]

            def hook(
                seen: Seen, path: str = path[transport], replies: list[Reply] = replies
            ) -> Reply | None:
                return replies.pop(0) if seen.path == path and replies else None

            relay.hook = hook
            taken = kind(relay.url).take("alice", 1, transport=transport)
            self.assertEqual([message.payload for message in taken], [b"hello"])
            self.assertEqual(replies, [])

    def test_refusals_are_raised(self) -> None:
        for kind, relay, transport in self.each():
            for status, code in ((400, "invalid_input"), (401, "unauthorized"), (403, "forbidden")):
                error = refusal(status, code)

                def hook(seen: Seen, error: Reply = error) -> Reply | None:
                    return error if seen.body else None

                relay.hook = hook
                with self.assertRaises(RelayError) as raised:
                    kind(relay.url).take("alice", 1, transport=transport)
                self.assertEqual((raised.exception.code, raised.exception.status), (code, status))
        with self.assertRaises(RelayError):
            KINDS[0]("http://127.0.0.1:1").take("a", 1, transport="pigeon")  # type: ignore

    def test_without_its_cursor_the_queue_is_read_from_the_front(self) -> None:
        for kind, relay, transport in self.each():
            relay.limits["page_items"] = 1
            names = [relay.add("alice", b"%d" % number) for number in range(4)]
            refused: list[Seen] = []

            def hook(seen: Seen, refused: list[Seen] = refused) -> Reply | None:
                if not refused and seen.body and seen.body.get("cursor") == "c2":
                    refused.append(seen)
                    return refusal(400, "invalid_input", {"field": "cursor"})
                if seen.path == "/stream" and not refused and not seen.body.get("cursor"):
                    page = relay.pull(seen.body, is_stream=True)
                    second = relay.pull({**seen.body, "cursor": "c1"}, is_stream=True)
                    lines = b"".join(json.dumps(one).encode() + b"\n" for one in (page, second))
                    return Reply(200, lines)
                return None

            relay.hook = hook
            taken = kind(relay.url).take("alice", 4, transport=transport, ack=False)
            self.assertEqual([message.message_id for message in taken], names)
            self.assertEqual(len(refused), 1)

    @patch.object(Retry, "FIRST_S", 0.001)
    def test_a_stream_goes_on_after_any_end(self) -> None:
        for kind in KINDS:
            for ending in (b"", b'{"bye":"age"}\n', b'{"idle":true}\n{"bye":"error"}\n', b"{x\n"):
                with self.subTest(f"{kind.__name__} {ending!r}"), FakeRelay() as relay:
                    names = [relay.add("alice", b"%d" % number) for number in range(3)]

                    def hook(seen: Seen, ending: bytes = ending) -> Reply | None:
                        if seen.path != "/stream":
                            return None
                        page = relay.pull({**seen.body, "max": 1}, is_stream=True)
                        return Reply(200, json.dumps(page).encode() + b"\n" + ending)

                    relay.hook = hook
                    taken = kind(relay.url).take("alice", 3, transport="stream", ack=False)
                    self.assertEqual([message.message_id for message in taken], names)

    @patch.object(Retry, "FIRST_S", 0.001)
    def test_a_page_that_is_cut_at_any_byte_is_read_again(self) -> None:
        for kind in KINDS:
            with self.subTest(kind.__name__), FakeRelay() as relay:
                name = relay.add("alice", b"hello")
                page = relay.pull({"recipient": "alice", "tail": True})
                whole = len(Reply(200, page).encode())
                for cut in range(0, whole, 3):
                    cuts = [cut]

                    def hook(seen: Seen, cuts: list[int] = cuts) -> Reply | None:
                        if seen.path == "/pull" and cuts:
                            return Reply(200, page, cut_at=cuts.pop())
                        return None

                    relay.hook = hook
                    taken = kind(relay.url).take("alice", 1, ack=False)
                    self.assertEqual([message.message_id for message in taken], [name], cut)

    def test_a_relay_of_old_is_polled(self) -> None:
        for kind, relay, transport in self.each(is_old=True):
            relay.limits["page_items"] = 2
            names = [relay.add("alice", b"%d" % number) for number in range(5)]
            polls = iter(range(4))

            def more(
                relay: FakeRelay = relay, polls: Iterator[int] = polls, names: list[str] = names
            ) -> bool:
                if next(polls, None) is None:
                    return True
                names.append(relay.add("alice", b"more"))
                return False

            client = kind(relay.url)
            taken = client.take("alice", 5, transport=transport, ack=False, until=more)
            self.assertEqual([message.message_id for message in taken], names)
            pulls = [seen.body for seen in relay.seen if seen.path == "/pull"]
            self.assertFalse([b for b in pulls if "wait_ms" in b or "tail" in b])
            self.assertEqual(relay.paths().count("/info"), 1)

    def test_a_relay_that_waits_but_has_no_tail_is_polled(self) -> None:
        for kind, relay, _ in self.each(features=["wait"]):
            relay.add("alice", b"x")
            client = kind(relay.url)
            self.assertEqual(len(client.take("alice", 2, ack=False, limit_s=0.5)), 1)
            self.assertLess(relay.paths().count("/pull"), 20)

    def test_proofs(self) -> None:
        secret = generate_secret()
        for kind, relay, transport in self.each():
            relay.add("alice", b"")
            kind(relay.url, QUICK, Credentials.secret(secret)).take("alice", 1, transport=transport)
            shown = {seen.proof for seen in relay.seen if seen.path != "/info"}
            self.assertEqual(shown, {secret_text(secret)})


class Bounds(unittest.TestCase):
    """Limits of memory and time."""

    def test_messages_that_did_not_fit_get_another_chance(self) -> None:
        options = replace(QUICK, memory_bytes=100)
        for kind in KINDS:
            for transport in TRANSPORTS:
                with self.subTest(f"{kind.__name__} {transport}"), FakeRelay() as relay:
                    relay.limits["page_items"] = 1
                    first = relay.add_chunks("alice", [bytes(40), bytes(40), bytes(20)], [0, 1])
                    second = relay.add_chunks("alice", [bytes(50), bytes(49)], [0, 1])
                    rest = {"chunk_index": 2, "chunk_count": 3, "total_len": 100}
                    relay.add("alice", bytes(20), message_id=first, **rest)
                    client = kind(relay.url, options)
                    taken = client.take("alice", 2, transport=transport)
                    self.assertEqual([one.message_id for one in taken], [second, first])
                    self.assertEqual(relay.items, [])

    def test_what_is_never_handed_out_is_reported(self) -> None:
        options = replace(QUICK, memory_bytes=100, partial_age=0.3)
        for kind in KINDS:
            for transport in TRANSPORTS:
                with self.subTest(f"{kind.__name__} {transport}"), FakeRelay() as relay:
                    large = relay.add_chunks("alice", [bytes(60), bytes(60)], [0, 1])
                    odd = relay.add("alice", b"", chunk_count=70_000)
                    late = relay.add_chunks("alice", [b"1", b"2"], [1])
                    relay.add("alice", b"fine")
                    found: dict[str, str] = {}
                    began = time.monotonic()

                    def note(name: str, reason: str, found: dict[str, str] = found) -> None:
                        self.assertNotIn(name, found)
                        found[name] = reason
                        if reason == "incomplete":
                            relay.add("alice", b"the last")

                    client = kind(relay.url, options)
                    taken = client.take("alice", 2, transport=transport, on_skipped=note)
                    self.assertEqual([one.payload for one in taken], [b"fine", b"the last"])
                    reasons = {large: "too_large", odd: "malformed", late: "incomplete"}
                    self.assertEqual(found, reasons)
                    self.assertLess(time.monotonic() - began, 5.0)
                    self.assertEqual(len(acked(relay)), 2)

    def test_nothing_is_pulled_while_too_much_waits_for_its_ack(self) -> None:
        for bound in ({"unacked_max": 3}, {"memory_bytes": 3}):
            options = replace(QUICK, **bound)  # type: ignore[arg-type]
            for kind in KINDS:
                for transport in TRANSPORTS:
                    with self.subTest(f"{kind.__name__} {transport}"), FakeRelay() as relay:
                        relay.limits["page_items"] = 2
                        for _ in range(10):
                            relay.add("alice", b"x")
                        client = kind(relay.url, options)
                        limits: Any = {"transport": transport, "limit_s": 0.7}
                        taken = client.take("alice", 10, ack=False, **limits)
                        self.assertEqual(len(taken), 4)
                        self.assertEqual(len(client.take("alice", 10, transport=transport)), 10)

    @patch.object(core, "_PAGE_BODY_MIN", 0)
    def test_a_page_that_is_too_large_is_asked_for_item_by_item(self) -> None:
        for kind in KINDS:
            for transport in TRANSPORTS:
                with self.subTest(f"{kind.__name__} {transport}"), FakeRelay() as relay:
                    payload = bytes(600_000)
                    names = [relay.add("alice", payload) for _ in range(2)]
                    options = replace(QUICK, memory_bytes=700_000)
                    taken = kind(relay.url, options).take("alice", 2, transport=transport)
                    self.assertEqual([one.message_id for one in taken], names)

    def test_acks_are_sent_together(self) -> None:
        options = replace(QUICK, ack_delay=5.0, ack_max=100)
        for kind in KINDS:
            with self.subTest(kind.__name__), FakeRelay() as relay:
                for _ in range(250):
                    relay.add("alice", b"x")
                kind(relay.url, options).take("alice", 250)
                self.assertEqual(relay.items, [])
                sizes = [len(seen.body["ack"]) for seen in relay.seen if seen.path == "/ack"]
                self.assertEqual(sum(sizes), 250)
                self.assertLessEqual(len(sizes), 3)

    def test_a_relay_that_does_not_wait_is_not_flooded(self) -> None:
        for kind in KINDS:
            with self.subTest(kind.__name__), FakeRelay() as relay:
                page: dict[str, Any] = {"items": [], "next_cursor": None}
                relay.hook = lambda seen: Reply(200, page) if seen.path == "/pull" else None
                options = replace(QUICK, wait_ms=25_000, poll_interval=1.0)
                kind(relay.url, options).take("alice", 1, limit_s=1.0)
                self.assertLess(relay.paths().count("/pull"), 12)


if __name__ == "__main__":
    unittest.main()
