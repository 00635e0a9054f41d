"""Messages from chunks: any order, repeats, gaps, lies, and the limits of memory and time."""

from __future__ import annotations

import random
import unittest
from unittest.mock import patch

from relay_client import assembly
from relay_client.acks import MessageKey
from relay_client.assembly import Assembly
from relay_client.wire import Item


def chunk(name: str, index: int, count: int, payload: bytes, total_len: int, at: int = 0) -> Item:
    """A chunk of a message."""
    return Item(name, "opaque", total_len, index, count, 5, at, payload)


class Bench:
    """An assembly, and what it reports."""

    def __init__(self, memory_bytes: int = 1000, partial_age: float = 10.0) -> None:
        self.skipped: list[tuple[str, str]] = []
        self.assembly = Assembly(
            memory_bytes, partial_age, lambda name, reason: self.skipped.append((name, reason))
        )

    def add(self, item: Item, now: float = 0.0) -> bytes | None:
        """Adds a chunk; returns the payload of the message that it completes."""
        key = MessageKey(item.message_id, item.chunk_count, item.total_len, item.kind)
        complete = self.assembly.add(key, item, now)
        return None if complete is None else complete.payload


class Orders(unittest.TestCase):
    """Chunks as they come."""

    def test_random_interleaving_gives_each_message_once(self) -> None:
        seed = random.randrange(2**32)
        choose = random.Random(seed)
        bench = Bench()
        payloads = {f"m{number}": choose.randbytes(choose.randrange(2, 20)) for number in range(20)}
        chunks = [
            chunk(name, index, len(payload), payload[index : index + 1], len(payload))
            for name, payload in payloads.items()
            for index in range(len(payload))
        ]
        choose.shuffle(chunks)
        found: dict[str, bytes] = {}
        for item in chunks:
            payload = bench.add(item)
            if payload is not None:
                self.assertNotIn(item.message_id, found)
                found[item.message_id] = payload
        self.assertEqual(found, payloads, f"seed {seed}")
        self.assertEqual(bench.assembly.held_bytes, 0)
        self.assertIsNone(bench.assembly.expires_at())

    def test_repeated_chunks_do_not_count(self) -> None:
        bench = Bench()
        for _ in range(3):
            self.assertIsNone(bench.add(chunk("m", 0, 2, b"ab", 3)))
        self.assertIsNone(bench.add(chunk("m", 0, 2, b"xyz", 3)))
        self.assertEqual(bench.assembly.held_bytes, 2)
        self.assertEqual(bench.add(chunk("m", 1, 2, b"c", 3)), b"abc")

    def test_a_single_chunk_is_handed_out_whatever_its_length_says(self) -> None:
        self.assertEqual(Bench().add(chunk("m", 0, 1, b"abc", 99)), b"abc")
        self.assertEqual(Bench().add(chunk("m", 0, 1, b"", 0)), b"")

    def test_chunks_of_other_messages_with_the_same_id_do_not_mix(self) -> None:
        bench = Bench()
        bench.add(chunk("m", 0, 2, b"ab", 4))
        self.assertIsNone(bench.add(chunk("m", 1, 2, b"X", 3)))
        self.assertEqual(bench.add(chunk("m", 1, 2, b"cd", 4)), b"abcd")


class Lies(unittest.TestCase):
    """Metadata that cannot be true."""

    def test_nonsense_is_reported_once(self) -> None:
        nonsense = ((0, 0, 1), (65_537, 0, 9), (2, 2, 2), (2, -1, 2), (2, 0, -1))
        for count, index, total_len in nonsense:
            bench = Bench()
            for _ in range(2):
                self.assertIsNone(bench.add(chunk("m", index, count, b"a", total_len)))
            self.assertEqual(bench.skipped, [("m", "malformed")], (count, index, total_len))

    def test_chunks_that_do_not_add_up(self) -> None:
        for first, second in ((b"ab", b"cd"), (b"", b"c")):
            bench = Bench()
            bench.add(chunk("m", 0, 2, first, 3))
            self.assertIsNone(bench.add(chunk("m", 1, 2, second, 3)))
            self.assertEqual(bench.skipped, [("m", "malformed")])
            self.assertEqual(bench.assembly.held_bytes, 0)


class Limits(unittest.TestCase):
    """Memory and time."""

    def test_what_cannot_fit_is_reported(self) -> None:
        bench = Bench(memory_bytes=10)
        self.assertIsNone(bench.add(chunk("a", 0, 2, b"1", 11)))
        self.assertIsNone(bench.add(chunk("b", 0, 1, bytes(11), 11)))
        self.assertEqual(bench.skipped, [("a", "too_large"), ("b", "too_large")])
        self.assertIsNone(bench.add(chunk("c", 0, 2, bytes(5), 10)))
        self.assertEqual(bench.add(chunk("c", 1, 2, bytes(5), 10)), bytes(10))

    def test_the_message_that_has_not_grown_for_the_longest_makes_room(self) -> None:
        bench = Bench(memory_bytes=10)
        bench.add(chunk("a", 0, 3, bytes(4), 10))
        bench.add(chunk("b", 0, 2, bytes(4), 8))
        bench.add(chunk("a", 1, 3, bytes(2), 10))
        self.assertFalse(bench.assembly.has_dropped)
        bench.add(chunk("c", 0, 2, bytes(4), 8))
        self.assertTrue(bench.assembly.has_dropped)
        self.assertEqual(bench.assembly.held_bytes, 10)
        self.assertEqual(bench.add(chunk("a", 2, 3, bytes(4), 10)), bytes(10))
        self.assertIsNone(bench.add(chunk("b", 1, 2, bytes(4), 8)))
        self.assertEqual(bench.skipped, [])

    @patch.object(assembly, "HELD_CHUNKS_MAX", 2_000)
    def test_empty_chunks_take_memory_too(self) -> None:
        bench = Bench()
        for number in range(8):
            for index in range(400):
                bench.add(chunk(f"m{number}", index, 65_536, b"", 1))
        self.assertTrue(bench.assembly.has_dropped)
        self.assertLessEqual(vars(bench.assembly)["_held_chunks"], 2_000)

    def test_a_message_is_given_up_after_its_last_chunk(self) -> None:
        bench = Bench(partial_age=10.0)
        bench.add(chunk("a", 0, 3, b"1", 3, at=1), now=0.0)
        bench.add(chunk("b", 0, 2, b"1", 2, at=2), now=5.0)
        bench.add(chunk("a", 1, 3, b"2", 3, at=3), now=8.0)
        bench.add(chunk("a", 1, 3, b"2", 3, at=3), now=9.0)
        self.assertEqual(bench.assembly.expires_at(), 15.0)
        bench.assembly.expire(15.0)
        self.assertEqual(bench.skipped, [("b", "incomplete")])
        bench.assembly.expire(17.9)
        bench.assembly.expire(18.0)
        self.assertEqual(bench.skipped, [("b", "incomplete"), ("a", "incomplete")])
        self.assertEqual(bench.assembly.held_bytes, 0)

    def test_a_message_that_was_given_up_goes_on_with_its_sender(self) -> None:
        bench = Bench(partial_age=10.0)
        first, second = chunk("a", 0, 2, b"1", 2, at=1), chunk("a", 1, 2, b"2", 2, at=9)
        bench.add(first)
        bench.assembly.expire(20.0)
        self.assertIsNone(bench.add(first, now=21.0))
        self.assertFalse(bench.assembly.has_dropped)
        self.assertIsNone(bench.add(second, now=22.0))
        self.assertTrue(bench.assembly.has_dropped)
        self.assertEqual(bench.add(first, now=23.0), b"12")


if __name__ == "__main__":
    unittest.main()
