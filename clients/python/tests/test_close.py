"""What is left when a client is closed, a task cancelled, an iterator abandoned: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time
import unittest
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import replace
from unittest.mock import patch

from relay_client import AsyncClient, Client, RelayError, aio, blocking
from relay_client.connection import Pool
from relay_client.errors import closed
from relay_client.message import Transport

from .fake_relay import FakeRelay, Reply, Seen, refusal
from .kinds import QUICK

LONG = replace(QUICK, wait_ms=20_000, request_timeout=20.0, push_timeout=20.0)
PROMPT_S = 1.0
TRANSPORTS: tuple[Transport, ...] = ("wait", "stream")


def until(condition: Callable[[], bool]) -> None:
    """Waits for another thread; fails after some seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.005)


async def until_async(condition: Callable[[], bool]) -> None:
    """Waits for another thread or task; fails after some seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        await asyncio.sleep(0.005)


def is_waiting(relay: FakeRelay) -> bool:
    """Whether a request for messages has come."""
    return "/pull" in relay.paths() or "/stream" in relay.paths()


class Leaks(unittest.TestCase):
    """Sockets and threads, counted by the relay and by Python."""

    def setUp(self) -> None:
        catcher = warnings.catch_warnings(record=True)
        self.warnings = catcher.__enter__()
        warnings.simplefilter("always")
        self.addCleanup(catcher.__exit__, None, None, None)

    def assert_nothing_left(self, relay: FakeRelay, threads: set[threading.Thread]) -> None:
        """No connection, no thread, no warning about an open socket."""
        gc.collect()
        until(lambda: relay.connections == 0)
        own = {thread for thread in threading.enumerate() if "process_request" not in thread.name}
        self.assertEqual(own - threads, set())
        self.assertEqual([str(one.message) for one in self.warnings], [])


class BlockingEnds(Leaks):
    """The blocking client."""

    def test_close_ends_what_other_threads_wait_for(self) -> None:
        for transport in TRANSPORTS:
            with self.subTest(transport), FakeRelay() as relay:
                threads = set(threading.enumerate())
                client = Client(relay.url, LONG)
                ended: list[object] = []
                messages = client.deliveries("alice", transport=transport)
                thread = threading.Thread(target=lambda: ended.append(list(messages)))
                thread.start()
                until(lambda: is_waiting(relay))
                began = time.monotonic()
                client.close()
                thread.join()
                self.assertLess(time.monotonic() - began, PROMPT_S)
                self.assertEqual(ended, [[]])
                self.assert_nothing_left(relay, threads)

    def test_close_ends_a_push_that_is_tried_again(self) -> None:
        with FakeRelay() as relay:
            relay.hook = lambda seen: refusal(503, "overloaded", Retry_After="15")
            threads = set(threading.enumerate())
            client = Client(relay.url, LONG)
            errors: list[RelayError] = []

            def push() -> None:
                try:
                    client.push("alice", b"")
                except RelayError as error:
                    errors.append(error)

            thread = threading.Thread(target=push)
            thread.start()
            until(lambda: bool(relay.seen))
            client.close()
            thread.join()
            self.assertEqual([error.code for error in errors], ["closed"])
            self.assert_nothing_left(relay, threads)

    def test_a_closed_client_says_so(self) -> None:
        client = Client("http://127.0.0.1:1", QUICK)
        client.close()
        client.close()
        with self.assertRaises(RelayError) as raised:
            client.push("alice", b"")
        self.assertEqual(raised.exception.code, "closed")
        self.assertEqual(list(client.deliveries("alice")), [])

    def test_an_abandoned_iterator_leaves_nothing(self) -> None:
        for transport in TRANSPORTS:
            with self.subTest(transport), FakeRelay() as relay:
                threads = set(threading.enumerate())
                with Client(relay.url, LONG) as client:
                    for number in range(3):
                        relay.add("alice", b"x")
                        for message in client.deliveries("alice", transport=transport):
                            message.ack()
                            break
                        until(lambda: relay.connections <= 1)
                        client.flush()
                        self.assertEqual(relay.items, [], number)
                self.assert_nothing_left(relay, threads)

    @patch.object(blocking, "CLOSE_TIMEOUT_S", 0.5)
    def test_close_sends_acks_for_a_while_only(self) -> None:
        with FakeRelay() as relay:
            relay.add("alice", b"x")
            relay.hook = lambda seen: refusal(503, "overloaded") if seen.path == "/ack" else None
            with Client(relay.url, LONG) as client:
                next(client.deliveries("alice")).ack()
                began = time.monotonic()
            self.assertLess(time.monotonic() - began, 2.0)
            self.assertIn("/ack", relay.paths())

    @patch.object(blocking, "CLOSE_TIMEOUT_S", 0.3)
    def test_close_does_not_wait_for_a_flush_out_of_its_reach(self) -> None:
        with FakeRelay() as relay:
            relay.add("alice", b"x")
            client = Client(relay.url, LONG)
            next(client.deliveries("alice")).ack()
            is_stuck, may_go_on = threading.Event(), threading.Event()

            def connect(*_: object) -> None:
                is_stuck.set()
                may_go_on.wait(5.0)
                raise closed()

            def flush() -> None:
                with contextlib.suppress(RelayError):
                    client.flush()

            with patch.object(Pool, "send", connect):
                thread = threading.Thread(target=flush)
                thread.start()
                is_stuck.wait(5.0)
                began = time.monotonic()
                client.close()
                took_s = time.monotonic() - began
                may_go_on.set()
                thread.join()
            self.assertLess(took_s, 2.0)


class AsyncEnds(Leaks):
    """The asyncio client."""

    def run_with(self, relay: FakeRelay, work: Callable[[AsyncClient], Awaitable[None]]) -> None:
        """Runs `work` with a client; afterwards nothing is left, not even a task."""
        threads = set(threading.enumerate())

        async def run() -> None:
            async with AsyncClient(relay.url, LONG) as client:
                await work(client)
            self.assertEqual(asyncio.all_tasks(), {asyncio.current_task()})

        asyncio.run(run())
        self.assert_nothing_left(relay, threads)

    def test_close_ends_what_tasks_wait_for(self) -> None:
        for transport in TRANSPORTS:
            with self.subTest(transport), FakeRelay() as relay:

                async def work(client: AsyncClient, transport: Transport = transport) -> None:
                    messages = client.deliveries("alice", transport=transport)
                    task = asyncio.ensure_future(anext(messages, None))
                    await until_async(lambda: is_waiting(relay))
                    began = time.monotonic()
                    await client.close()
                    self.assertIsNone(await task)
                    self.assertLess(time.monotonic() - began, PROMPT_S)

                self.run_with(relay, work)

    def test_a_cancelled_wait_closes_its_connection(self) -> None:
        for transport in TRANSPORTS:
            with self.subTest(transport), FakeRelay() as relay:

                async def work(client: AsyncClient, transport: Transport = transport) -> None:
                    messages = client.deliveries("alice", transport=transport)
                    task = asyncio.ensure_future(anext(messages))
                    await until_async(lambda: is_waiting(relay))
                    began = time.monotonic()
                    task.cancel()
                    with self.assertRaises(asyncio.CancelledError):
                        await task
                    self.assertLess(time.monotonic() - began, PROMPT_S)
                    await until_async(lambda: relay.connections == 0)
                    relay.add("alice", b"later")
                    async for message in client.deliveries("alice", transport=transport):
                        self.assertEqual(message.payload, b"later")
                        break

                self.run_with(relay, work)

    def test_a_push_can_be_cancelled_at_any_moment(self) -> None:
        with FakeRelay() as relay:

            async def work(client: AsyncClient) -> None:
                for turns in range(40):
                    task = asyncio.ensure_future(client.push("alice", b"x" * 100))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait({task})
                    self.assertTrue(task.cancelled() or task.result())
                self.assertTrue((await client.push("bob", b"")).stored)

            self.run_with(relay, work)

    def test_a_wait_can_be_cancelled_at_any_moment(self) -> None:
        for transport in TRANSPORTS:
            with self.subTest(transport), FakeRelay() as relay:

                async def work(client: AsyncClient, transport: Transport = transport) -> None:
                    for moment in range(100):
                        messages = client.deliveries("alice", transport=transport)
                        task = asyncio.ensure_future(anext(messages))
                        await asyncio.sleep(moment / 10_000)
                        task.cancel()
                        await asyncio.wait({task})
                        self.assertTrue(task.cancelled())
                    await until_async(lambda: relay.connections <= 1)

                self.run_with(relay, work)

    def test_an_abandoned_iterator_leaves_nothing(self) -> None:
        for transport in TRANSPORTS:
            with self.subTest(transport), FakeRelay() as relay:

                async def work(client: AsyncClient, transport: Transport = transport) -> None:
                    for _ in range(3):
                        relay.add("alice", b"x")
                        async for message in client.deliveries("alice", transport=transport):
                            await message.ack()
                            break
                        await until_async(lambda: relay.connections <= 1)
                        await until_async(lambda: len(asyncio.all_tasks()) == 1)

                self.run_with(relay, work)

    def test_acks_resolve_when_the_relay_has_confirmed_them(self) -> None:
        with FakeRelay() as relay:
            relay.add("alice", b"x")
            replies = [refusal(503, "overloaded"), Reply(200, b"{")]

            def hook(seen: Seen) -> Reply | None:
                return replies.pop() if seen.path == "/ack" and replies else None

            relay.hook = hook

            async def work(client: AsyncClient) -> None:
                messages = client.deliveries("alice")
                message = await anext(messages)
                acks = [message.ack(), message.ack()]
                dropped = message.ack()
                dropped.cancel()
                await asyncio.gather(*acks)
                self.assertEqual(relay.items, [])
                await message.ack()
                await messages.aclose()

            self.run_with(relay, work)

    @patch.object(aio, "CLOSE_TIMEOUT_S", 0.5)
    def test_acks_that_were_not_sent_are_errors_and_close_is_bounded(self) -> None:
        with FakeRelay() as relay:
            relay.add("alice", b"x")
            relay.hook = lambda seen: refusal(503, "overloaded") if seen.path == "/ack" else None

            async def work(client: AsyncClient) -> None:
                message = await anext(client.deliveries("alice"))
                ack, dropped = message.ack(), message.ack()
                del dropped
                began = time.monotonic()
                await client.close()
                self.assertLess(time.monotonic() - began, 2.0)
                for future in (ack, message.ack()):
                    with self.assertRaises(RelayError) as raised:
                        await future
                    self.assertEqual(raised.exception.code, "closed")

            self.run_with(relay, work)

    def test_a_refused_ack_raises(self) -> None:
        with FakeRelay() as relay:
            relay.add("alice", b"x")
            relay.hook = lambda seen: refusal(403, "forbidden") if seen.path == "/ack" else None

            async def work(client: AsyncClient) -> None:
                message = await anext(client.deliveries("alice"))
                with self.assertRaises(RelayError) as raised:
                    await message.ack()
                self.assertEqual(raised.exception.code, "forbidden")

            self.run_with(relay, work)

    def test_a_relay_that_says_nothing(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"

            async def run() -> None:
                options = replace(QUICK, request_timeout=0.2, push_timeout=0.5)
                async with AsyncClient(url, options) as client:
                    began = time.monotonic()
                    pushes = [client.push("alice", b"") for _ in range(5)]
                    errors = await asyncio.gather(*pushes, return_exceptions=True)
                    self.assertLess(time.monotonic() - began, 2.0)
                    self.assertTrue(all(isinstance(error, RelayError) for error in errors))

            asyncio.run(run())


if __name__ == "__main__":
    unittest.main()
