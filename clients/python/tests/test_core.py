"""Retries, pauses, the clock and acks, without a socket: a script answers the core's effects."""

from __future__ import annotations

import json
import unittest
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from relay_client import Credentials, Options, RelayError
from relay_client.acks import CONFIRMED_MAX, AckLedger, MessageKey, send_batch
from relay_client.core import Call, Core, call, ensure_info
from relay_client.effects import Answer, AskInfo, Pause, ReadLine, ReadSource, Reply, Send, Steps
from relay_client.errors import timed_out, unreachable
from relay_client.http1 import Head, Request
from relay_client.wire import decode

T = TypeVar("T")
Script = list[Answer | RelayError]


def answer(status: int, value: Any, **fields: str) -> Answer:
    """A response. Fields have `_` for `-`."""
    head = Head(status, {name.replace("_", "-"): text for name, text in fields.items()}, True)
    return Answer(head, json.dumps(value).encode())


def refusal(status: int, code: str, **details: Any) -> Answer:
    """An error response."""
    return answer(status, {"error": {"code": code, "message": "no", "details": details}})


OK = answer(200, {"deleted": 1})


class Lines:
    """A stream of these lines, which then ends."""

    heard_at = 0.0

    def __init__(self, *lines: bytes) -> None:
        self._lines = list(lines)

    def next(self) -> bytes | None:
        """The next line."""
        return self._lines.pop(0) if self._lines else None

    def close(self) -> None:
        """Does nothing."""


class World:
    """A clock, a script of responses, and what was asked."""

    def __init__(self, url: str = "http://127.0.0.1:1", wall_s: float = 1000.0) -> None:
        self.now = 100.0
        self.wall_s = wall_s
        self.core = Core(url, Options(wall_clock=lambda: self.wall_s), lambda: self.now)
        self.requests: list[Request] = []
        self.pauses: list[float] = []

    def run(self, steps: Steps[T], script: Callable[[], Answer | RelayError]) -> T:
        """Performs the effects of a procedure by a script."""
        reply: Reply = None
        error: RelayError | None = None
        try:
            effect = next(steps)
            while True:
                if isinstance(effect, Pause):
                    self.pauses.append(effect.seconds)
                    self.now += effect.seconds
                    reply, error = None, None
                elif isinstance(effect, ReadSource):
                    reply, error = effect.source.read(effect.size), None
                elif isinstance(effect, ReadLine):
                    assert isinstance(effect.stream, Lines)
                    reply, error = effect.stream.next(), None
                else:
                    assert isinstance(effect, Send | AskInfo)
                    self.requests.append(effect.request)
                    found = script()
                    reply = found if isinstance(found, Answer) else None
                    error = found if isinstance(found, RelayError) else None
                    if isinstance(effect, AskInfo) and reply is not None:
                        try:
                            self.core.take_info(reply)
                        except RelayError as refused:
                            error = refused
                        reply = None
                effect = steps.throw(error) if error is not None else steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def call(
        self,
        script: Script,
        deadline: float | None = None,
        credentials: Credentials | None = None,
    ) -> dict[str, Any]:
        """Makes one request by this script."""
        what = Call("/pull", b"{}", "alice", credentials)
        return self.run(call(self.core, what, decode, deadline), iter(script).__next__)


class Retries(unittest.TestCase):
    """Which errors lead to another try, and when."""

    def test_every_passing_error_is_tried_again(self) -> None:
        broken = Answer(Head(200, {}, True), b'{"half')
        html = Answer(Head(502, {}, True), b"<html>")
        script: Script = [unreachable("x"), timed_out(), broken, html]
        script += [refusal(status, "any") for status in (408, 429, 500, 502, 503, 504, 507)]
        world = World()
        self.assertEqual(world.call([*script, OK]), {"deleted": 1})
        self.assertEqual(len(world.requests), len(script) + 1)

    def test_other_errors_are_final(self) -> None:
        for status in (400, 401, 403, 404, 405, 409, 413, 415, 431, 302):
            with self.assertRaises(RelayError) as raised:
                World().call([refusal(status, "any_code", field="x"), OK])
            self.assertEqual((raised.exception.code, raised.exception.status), ("any_code", status))
            self.assertEqual(raised.exception.details, {"field": "x"})
        with self.assertRaises(RelayError) as raised:
            World().call([Answer(Head(418, {}, True), b"tea")])
        self.assertEqual(raised.exception.code, "http_418")

    def test_pauses_grow_up_to_ten_seconds(self) -> None:
        world = World()
        world.call([unreachable("x")] * 12 + [OK])
        for number, pause in enumerate(world.pauses):
            longest = min(10.0, 0.1 * 2**number)
            self.assertTrue(longest / 2 <= pause <= longest, (number, pause))

    def test_the_relay_says_how_long_to_wait(self) -> None:
        error = {"error": {"code": "rate_limited", "message": ""}}
        for found, seconds in (
            (answer(429, error, retry_after="7"), 7.0),
            (refusal(503, "overloaded", retry_after_ms=1500), 1.5),
            (refusal(503, "overloaded", retry_after_ms=10**12), 300.0),
            (answer(429, error, retry_after="9" * 30), 300.0),
        ):
            world = World()
            world.call([found, OK])
            self.assertTrue(seconds <= world.pauses[0] <= seconds + 1, world.pauses)
        world = World()
        world.call([answer(503, error, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), OK])
        self.assertLess(world.pauses[0], 0.2)

    def test_the_last_error_is_raised_at_the_deadline(self) -> None:
        world = World()
        script: Script = [timed_out(), *[refusal(503, "overloaded")] * 100]
        with self.assertRaises(RelayError) as raised:
            world.call(script, deadline=world.now + 5.0)
        self.assertEqual(raised.exception.code, "overloaded")
        self.assertLess(world.now, 105.0)
        self.assertLessEqual(world.requests[-1].timeout_s, 5.0)
        with self.assertRaises(RelayError):
            world.call([refusal(503, "overloaded", retry_after_ms=6000), OK], world.now + 5.0)

    def test_deep_or_odd_json_is_a_broken_answer(self) -> None:
        for body in (b"[" * 100_000, b'{"a": NaN}', b"1" * 10_000, b"[]", b"\xff", b""):
            with self.assertRaises(RelayError) as raised:
                decode(body)
            self.assertEqual(raised.exception.code, "broken_answer")


class WhatTheRelayCanDo(unittest.TestCase):
    """GET /info."""

    def test_it_is_asked_once(self) -> None:
        world = World()
        info = answer(200, {"features": ["wait", 5], "limits": {"message_bytes": 10}})
        script: Script = [unreachable("x"), refusal(503, "not_ready"), info]
        found = world.run(ensure_info(world.core, None), iter(script).__next__)
        self.assertEqual((found.features, found.message_bytes), (frozenset(["wait"]), 10))
        self.assertIs(world.run(ensure_info(world.core, None), iter(script).__next__), found)
        self.assertEqual([request.path for request in world.requests], ["/info"] * 3)

    def test_a_relay_of_old_has_no_features(self) -> None:
        world = World()
        script: Script = [refusal(404, "not_found")]
        found = world.run(ensure_info(world.core, None), iter(script).__next__)
        self.assertEqual(found.features, frozenset())


class FakeKey:
    """Signs without a key."""

    def sign(self, data: bytes, /) -> bytes:
        """Returns no signature."""
        return b""


class Clock(unittest.TestCase):
    """A wrong clock is corrected once, and never by much."""

    def setUp(self) -> None:
        self.credentials = Credentials.key(FakeKey(), "a")

    def expired(self, server_s: float, reason: str = "token_expired") -> Answer:
        """A refusal with the relay's clock."""
        return refusal(403, "forbidden", reason=reason, server_ms=int(server_s * 1000))

    def test_a_token_is_signed_anew_by_the_clock_of_the_relay(self) -> None:
        world = World()
        world.call([self.expired(5000), OK], credentials=self.credentials)
        self.assertEqual(world.core.clock_offset_ms, 4_000_000)
        self.assertNotEqual(world.requests[0].proof, world.requests[1].proof)
        world.call([OK], credentials=self.credentials)
        with self.assertRaises(RelayError):
            world.call([self.expired(9000), OK], credentials=self.credentials)

    def test_a_second_refusal_is_final(self) -> None:
        with self.assertRaises(RelayError):
            World().call([self.expired(5000), self.expired(5000)], credentials=self.credentials)

    def test_a_request_that_was_signed_before_the_correction_is_signed_again(self) -> None:
        world = World()
        steps = call(world.core, Call("/pull", b"{}", "alice", self.credentials), decode, None)
        next(steps)
        world.call([self.expired(5000), OK], credentials=self.credentials)
        with self.assertRaises(StopIteration):
            steps.send(self.expired(5000))
            steps.send(OK)

    def test_when_the_clock_is_not_believed(self) -> None:
        for url, found, credentials in (
            ("http://relay.example.org", self.expired(5000), self.credentials),
            ("http://127.0.0.1", self.expired(1000 + 26 * 3600), self.credentials),
            ("http://127.0.0.1", self.expired(5000, "wrong_signature"), self.credentials),
            ("http://127.0.0.1", refusal(403, "forbidden"), self.credentials),
            ("http://127.0.0.1", self.expired(5000), Credentials.token("t")),
            ("http://127.0.0.1", self.expired(5000), None),
        ):
            world = World(url)
            with self.assertRaises(RelayError):
                world.call([found, OK], credentials=credentials)
            self.assertEqual(world.core.clock_offset_ms, 0)


class Acks(unittest.TestCase):
    """Batches of acks, and what is known of messages."""

    def setUp(self) -> None:
        self.world = World()
        self.ledger = AckLedger(self.world.core, "alice", None)

    def hand_out(self, name: str, chunk_count: int = 1) -> MessageKey:
        """A message that the application has."""
        key = MessageKey(name, chunk_count, 1, "opaque")
        self.ledger.hand_out(key, 1)
        return key

    def flush(self, script: Script, deadline: float | None = None) -> None:
        """Sends one batch."""
        self.world.run(send_batch(self.world.core, self.ledger, deadline), iter(script).__next__)

    def test_acks_wait_for_others_but_not_for_long(self) -> None:
        self.assertIsNone(self.ledger.due_in())
        self.ledger.ack(self.hand_out("a"))
        self.ledger.ack(self.hand_out("b", 3))
        self.assertAlmostEqual(self.ledger.due_in() or 0, 0.05)
        self.world.now += 0.06
        self.assertEqual(self.ledger.due_in(), 0.0)
        self.flush([OK])
        entries = json.loads(self.world.requests[0].body)["ack"]
        self.assertEqual([e["chunk_index"] for e in entries], [0, 0, 1, 2])
        self.ledger.ack(self.hand_out("c", 256))
        self.assertEqual(self.ledger.due_in(), 0.0)

    def test_acks_are_confirmed_by_the_relay_and_twice_is_once(self) -> None:
        results: list[RelayError | None] = []
        key = self.hand_out("a")
        for _ in range(2):
            self.ledger.ack(key, results.append)
        self.assertEqual(results, [])
        self.flush([unreachable("x"), OK])
        self.assertEqual(results, [None, None])
        self.ledger.ack(key, results.append)
        self.assertEqual(results, [None] * 3)
        self.assertTrue(self.ledger.knows(key))
        self.assertFalse(self.ledger.has_pending)

    def allow_acks(self, ack_max: int) -> None:
        """Sets how many go in one request."""
        self.world.core.options = replace(self.world.core.options, ack_max=ack_max)

    def test_one_request_has_no_more_acks_than_the_application_allows(self) -> None:
        self.allow_acks(3)
        for name in "abc":
            self.ledger.ack(self.hand_out(name, 2))
        while self.ledger.has_pending:
            self.flush([OK])
        sizes = [len(json.loads(request.body)["ack"]) for request in self.world.requests]
        self.assertEqual(sizes, [3, 3])

    def test_a_message_of_many_chunks_takes_several_requests(self) -> None:
        self.allow_acks(20_000)
        results: list[RelayError | None] = []
        self.ledger.ack(self.hand_out("a", 25_000), results.append)
        for left in (2, 1, 0):
            self.flush([OK])
            self.assertEqual(len(results), 0 if left else 1)
        sizes = [len(json.loads(request.body)["ack"]) for request in self.world.requests]
        self.assertEqual(sizes, [10_000, 10_000, 5_000])

    def test_acks_that_were_not_sent_are_kept(self) -> None:
        self.allow_acks(10_000)
        key = self.hand_out("a", 15_000)
        self.ledger.ack(key)
        with self.assertRaises(RelayError):
            self.flush([timed_out()], deadline=self.world.now)
        steps = send_batch(self.world.core, self.ledger, None)
        next(steps)
        steps.close()
        self.flush([OK])
        self.flush([OK])
        self.assertFalse(self.ledger.has_pending)

    def test_acks_that_are_refused_may_be_repeated(self) -> None:
        results: list[RelayError | None] = []
        key = self.hand_out("a")
        self.ledger.ack(key, results.append)
        with self.assertRaises(RelayError):
            self.flush([refusal(403, "forbidden")])
        self.assertIsNotNone(results[0])
        self.assertFalse(self.ledger.has_pending)
        self.ledger.ack(key, results.append)
        self.flush([OK])
        self.assertEqual(results[1], None)

    def test_what_is_known_has_limits(self) -> None:
        for number in range(CONFIRMED_MAX + 10):
            self.ledger.ack(self.hand_out(f"m{number}"))
        self.assertTrue(self.ledger.is_full)
        while self.ledger.has_pending:
            self.flush([OK])
        self.assertFalse(self.ledger.is_full)
        self.assertEqual(len(vars(self.ledger)["_confirmed"]), CONFIRMED_MAX)
        self.assertFalse(self.ledger.knows(MessageKey("m0", 1, 1, "opaque")))


if __name__ == "__main__":
    unittest.main()
