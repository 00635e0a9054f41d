"""Pushes of both clients, to a small relay that misbehaves."""

from __future__ import annotations

import base64
import io
import json
import os
import time
import unittest
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from relay_client import Credentials, OutgoingMessage, PushResult, RelayError, recipient_of_secret
from relay_client.core import Retry
from relay_client.credentials import generate_secret, secret_text
from relay_client.effects import Answer
from relay_client.errors import timed_out
from relay_client.push import Plan, push
from relay_client.wire import Info

from .fake_relay import FakeRelay, Hook, Reply, Seen, refusal
from .kinds import KINDS, QUICK, Kind
from .test_core import World, answer
from .test_core import refusal as refused

SMALL = replace(QUICK, chunk_bytes=10)


def failing(replies: list[Reply | None], path: str) -> Hook:
    """A hook that gives these replies to the first requests of a path."""

    def hook(seen: Seen) -> Reply | None:
        return replies.pop(0) if seen.path == path and replies else None

    return hook


def stored(relay: FakeRelay) -> bytes:
    """The payload of all items, in order."""
    return b"".join(base64.b64decode(item["ciphertext_b64"]) for item in relay.items)


class Push(unittest.TestCase):
    """Each test runs with each client."""

    def each(self, **relay: Any) -> Iterator[tuple[type[Kind], FakeRelay]]:
        """Both clients, each with a relay of its own."""
        for kind in KINDS:
            with self.subTest(kind.__name__), FakeRelay(**relay) as fake:
                yield kind, fake

    def failure(self, client: Kind, *arguments: Any, **extra: Any) -> RelayError:
        """The error of a push."""
        with self.assertRaises(RelayError) as raised:
            client.push(*arguments, **extra)
        return raised.exception

    def test_chunks_go_in_batches(self) -> None:
        payload = os.urandom(645)
        for kind, relay in self.each():
            result = kind(relay.url, SMALL).push("alice", payload, kind="photo", ttl=60)
            self.assertTrue(result.stored and not result.duplicate and not result.conflict)
            self.assertEqual(relay.paths(), ["/info", "/push/batch", "/push"])
            self.assertEqual(len(relay.seen[1].body["items"]), 64)
            self.assertEqual(stored(relay), payload)
            metas = [item["meta"] for item in relay.items]
            self.assertEqual([meta["chunk_index"] for meta in metas], list(range(65)))
            self.assertEqual({meta["total_len"] for meta in metas}, {645})
            self.assertEqual({meta["kind"] for meta in metas}, {"photo"})
            self.assertEqual({item["ttl_seconds"] for item in relay.items}, {60})
            self.assertEqual({item["message_id"] for item in relay.items}, {result.message_id})

    def test_batches_have_a_limit_of_bytes(self) -> None:
        for kind, relay in self.each():
            payload = os.urandom(5 * 1024 * 1024)
            kind(relay.url, replace(QUICK, chunk_bytes=1024 * 1024)).push("alice", payload)
            self.assertEqual(relay.paths(), ["/info", "/push/batch", "/push"])
            self.assertEqual(len(relay.seen[1].body["items"]), 4)

    def test_a_relay_of_old_gets_one_chunk_after_another(self) -> None:
        for kind, relay in self.each(is_old=True):
            kind(relay.url, SMALL).push("alice", b"x" * 25, ttl=60)
            self.assertEqual(relay.paths(), ["/info", "/push", "/push", "/push"])
            self.assertNotIn("ttl_seconds", relay.items[0])

    def test_chunks_are_as_large_as_the_relay_allows(self) -> None:
        for kind, relay in self.each():
            relay.limits["message_bytes"] = 4
            kind(relay.url).push("alice", b"x" * 10)
            self.assertEqual([i["meta"]["chunk_count"] for i in relay.items], [3] * 3)

    def test_an_empty_message_is_one_empty_chunk(self) -> None:
        for kind, relay in self.each():
            kind(relay.url).push("alice", b"")
            meta = relay.items[0]["meta"]
            self.assertEqual((meta["chunk_count"], meta["total_len"], stored(relay)), (1, 0, b""))

    def test_a_text_is_no_payload(self) -> None:
        text: Any = "hello"
        for kind, relay in self.each():
            error = self.failure(kind(relay.url), "alice", text)
            self.assertEqual(error.code, "invalid_input")
            self.assertIn("text.encode()", str(error))
            self.assertEqual(relay.paths(), [])

    def test_a_file_is_read_in_parts(self) -> None:
        payload = os.urandom(1000)
        for kind, relay in self.each():
            kind(relay.url, SMALL).push_file("alice", payload)
            self.assertEqual(stored(relay), payload)

    @patch.object(Retry, "FIRST_S", 0.001)
    def test_a_push_is_repeated_with_the_same_ids(self) -> None:
        for kind, relay in self.each():
            replies = [
                refusal(503, "overloaded"),
                refusal(500, "internal_error"),
                Reply(200, b"{broken"),
                Reply(200, {"stored": True}, cut_at=20),
                None,
            ]
            relay.hook = failing(replies, "/push")
            self.assertTrue(kind(relay.url).push("alice", b"hello").stored)
            self.assertEqual(relay.paths(), ["/info"] + ["/push"] * 5)
            ids = {seen.body["message_id"] for seen in relay.seen if seen.body}
            self.assertEqual(len(ids), 1)

    @patch.object(Retry, "FIRST_S", 0.001)
    def test_an_answer_that_is_cut_at_any_byte_is_no_answer(self) -> None:
        whole = Reply(200, {"stored": True, "queue_len": 0}).encode()
        for kind, relay in self.each():
            for cut in range(len(whole)):
                del relay.seen[:]
                replies: list[Reply | None] = [Reply(200, {"stored": True, "queue_len": 0})]
                assert replies[0] is not None
                replies[0].cut_at = cut
                relay.hook = failing(replies, "/push")
                self.assertTrue(kind(relay.url).push("alice", b"hello").stored)
                self.assertEqual(relay.paths().count("/push"), 2, cut)

    def test_retry_after_is_kept(self) -> None:
        for kind, relay in self.each():
            relay.hook = failing([refusal(429, "rate_limited", Retry_After="1")], "/push")
            kind(relay.url).push("alice", b"hello")
            self.assertGreaterEqual(relay.seen[-1].at - relay.seen[-2].at, 1.0)

    def test_only_refused_items_are_sent_again(self) -> None:
        for kind, relay in self.each():
            error = {"code": "storage_full", "message": "", "details": {"retry_after_ms": 10}}
            good = {"stored": True}
            results: list[Any] = [good, {"error": error}, good, {"error": error}, good]
            relay.hook = failing([Reply(200, {"results": results})], "/push/batch")
            kind(relay.url, SMALL).push("alice", b"x" * 50)
            self.assertEqual(relay.paths(), ["/info", "/push/batch", "/push/batch"])
            again = [item["meta"]["chunk_index"] for item in relay.seen[-1].body["items"]]
            self.assertEqual(again, [1, 3])

    def test_final_errors_are_raised_at_once(self) -> None:
        for kind, relay in self.each():
            for status, code in ((409, "quota_exceeded"), (413, "message_too_large"), (403, "x")):
                relay.hook = failing([refusal(status, code)], "/push")
                error = self.failure(kind(relay.url), "alice", b"hello")
                self.assertEqual((error.code, error.status), (code, status))
            error_item = {"error": {"code": "quota_exceeded", "message": ""}}
            relay.hook = failing([Reply(200, {"results": [error_item] * 2})], "/push/batch")
            error = self.failure(kind(relay.url, SMALL), "alice", b"x" * 20)
            self.assertEqual(error.code, "quota_exceeded")

    def test_a_push_ends_after_its_time(self) -> None:
        options = replace(QUICK, push_timeout=0.5)
        for kind, relay in self.each():
            relay.hook = lambda seen: refusal(503, "overloaded") if seen.body else None
            began = time.monotonic()
            self.assertEqual(self.failure(kind(relay.url, options), "a", b"").code, "overloaded")
            relay.hook = lambda seen: time.sleep(2)
            self.assertEqual(self.failure(kind(relay.url, options), "a", b"").code, "timeout")
            self.assertLess(time.monotonic() - began, 1.8)
        for kind in KINDS:
            error = self.failure(kind("http://127.0.0.1:1", options), "a", b"")
            self.assertEqual(error.code, "unreachable")

    def test_what_is_never_sent(self) -> None:
        for kind, relay in self.each():
            client = kind(relay.url)
            for recipient, extra in (
                ("", {}),
                (" ", {}),
                ("x" * 513, {}),
                ("\ud800", {}),
                ("a", {"kind": ""}),
                ("a", {"ttl": 0}),
                ("a", {"message_id": "x"}),
                ("a", {"send_secret": b"short"}),
            ):
                error = self.failure(client, recipient, b"", **extra)
                self.assertEqual(error.code, "invalid_input")
            self.assertEqual(relay.seen, [])

    def test_send_secrets_and_tokens(self) -> None:
        secret = generate_secret()
        recipient = recipient_of_secret(generate_secret(), secret)
        no_features: list[str] = []
        for features in (None, no_features):
            for kind, relay in self.each(features=features):
                kind(relay.url).push(recipient, b"", send_secret=secret)
                push = relay.seen[-1]
                shown = (push.body.get("proof"), push.proof)
                text = secret_text(secret)
                self.assertEqual(shown, (text, None) if features is None else (None, text))
                kind(relay.url, QUICK, Credentials.token("token")).push("alice", b"")
                self.assertEqual(relay.seen[-1].proof, "token")
                kind(relay.url, QUICK, Credentials.secret(secret)).push("alice", b"")
                self.assertIsNone(relay.seen[-1].proof)

    def test_a_repeated_push_is_a_duplicate(self) -> None:
        for kind, relay in self.each():
            first = kind(relay.url).push("alice", b"hello")
            again = kind(relay.url).push("alice", b"hello", message_id=first.message_id)
            self.assertEqual(again, PushResult(first.message_id, stored=False))
            self.assertTrue(again.duplicate)


class SlowNetworks(unittest.TestCase):
    """Pushes by a script, with a clock of its own."""

    def setUp(self) -> None:
        self.world = World()
        self.world.core.info = Info(frozenset(["batch"]), batch_items=64, batch_bytes=160)
        self.world.core.options = replace(SMALL, request_timeout=30.0, push_timeout=60.0)

    def sizes(self) -> list[int]:
        """How many items each request had."""
        bodies = [json.loads(request.body) for request in self.world.requests]
        return [len(body.get("items", [body])) for body in bodies]

    def push(self, payload: bytes, script: Callable[[], Answer | RelayError]) -> PushResult:
        """Pushes by this script."""
        core = self.world.core
        plan = Plan.of(core, OutgoingMessage("alice", payload), len(payload))
        return self.world.run(push(core, plan, io.BytesIO(payload), None), script)

    def stored(self) -> Answer:
        """The relay has stored all of the last request."""
        if self.sizes()[-1] == 1:
            return answer(200, {"stored": True})
        return answer(200, {"results": [{"stored": True}] * self.sizes()[-1]})

    def test_a_push_goes_on_as_long_as_something_is_stored(self) -> None:
        def script() -> Answer:
            self.world.now += 25.0
            if self.world.requests[-1].timeout_s < 25.0:
                self.fail("the time of the push has run out")
            return self.stored()

        self.assertTrue(self.push(bytes(10 * 16 * 5), script).stored)
        self.assertEqual(self.sizes(), [16] * 5)

    def test_requests_that_take_too_long_get_smaller_and_grow_again(self) -> None:
        for failure in (timed_out(), refused(408, "request_timeout")):
            self.setUp()

            def script(failure: Answer | RelayError = failure) -> Answer | RelayError:
                is_too_slow = self.sizes()[-1] > 4
                self.world.now += 30.0 if is_too_slow else 20.0
                return failure if is_too_slow else self.stored()

            self.assertTrue(self.push(bytes(10 * 16), script).stored)
            self.assertEqual(self.sizes(), [16, 4, 8, 2, 4, 6, 2, 4])

    def test_a_refusal_ends_a_message_that_goes_in_several_requests(self) -> None:
        self.world.core.batch_items_max = 4
        with self.assertRaises(RelayError):
            self.push(bytes(10 * 16), lambda: refused(409, "quota_exceeded"))
        self.assertEqual(self.sizes(), [4])


class PushAll(unittest.TestCase):
    """Several messages at once."""

    def test_small_messages_share_a_request_and_keep_their_order(self) -> None:
        payloads = [b"a", b"b" * 25, b"c", b"d", b"e" * 10]
        for kind in KINDS:
            with self.subTest(kind.__name__), FakeRelay() as relay:
                messages = [OutgoingMessage("alice", payload) for payload in payloads]
                results = kind(relay.url, SMALL).push_all(messages)
                self.assertTrue(all(isinstance(one, PushResult) for one in results))
                self.assertEqual(stored(relay), b"".join(payloads))
                expected = ["/info", "/push", "/push/batch", "/push/batch"]
                self.assertEqual(relay.paths(), expected)

    def test_the_failure_of_one_is_returned(self) -> None:
        for kind in KINDS:
            with self.subTest(kind.__name__), FakeRelay() as relay:
                error = {"error": {"code": "quota_exceeded", "message": ""}}
                results: list[Any] = [{"stored": True}, error]
                relay.hook = failing([Reply(200, {"results": results})], "/push/batch")
                messages = [OutgoingMessage("alice", b""), OutgoingMessage("bob", b"")]
                first, second = kind(relay.url).push_all(messages)
                self.assertIsInstance(first, PushResult)
                self.assertIsInstance(second, RelayError)
                self.assertEqual(kind(relay.url).push_all([]), [])


if __name__ == "__main__":
    unittest.main()
