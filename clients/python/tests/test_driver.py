"""The driver, in both of its kinds."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import unittest
from pathlib import Path
from typing import Any

from .fake_relay import FakeRelay

DRIVER = Path(__file__).with_name("driver.py")
LIMIT_S = 30.0
SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


class Driver:
    """A driver as a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(DRIVER), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.watchdog = threading.Timer(LIMIT_S, self.process.kill)
        self.watchdog.start()

    def send(self, op: str, **fields: Any) -> None:
        """Gives a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self.process.stdin.flush()

    def next(self, *names: str) -> dict[str, Any]:
        """The next event, which is one of these."""
        assert self.process.stdout is not None
        event: dict[str, Any] = json.loads(self.process.stdout.readline())
        if event["event"] not in names:
            raise AssertionError(f"{event} and not {names}")
        return event

    def end(self) -> int:
        """Ends the input; returns the exit code."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        code = self.process.wait()
        self.process.stdout.close()
        self.watchdog.cancel()
        return code

    def kill(self) -> None:
        """Ends a driver that a failed test leaves."""
        self.watchdog.cancel()
        self.process.kill()
        self.process.wait()


class Drivers(unittest.TestCase):
    """Each test runs with both kinds."""

    def test_commands_and_events(self) -> None:
        for arguments in ((), ("--blocking",)):
            with self.subTest(arguments), FakeRelay() as relay:
                driver = Driver(*arguments)
                self.addCleanup(driver.kill)
                options = {"wait_ms": 200, "ack_delay_ms": 5}
                credentials = {"secret": SECRET}
                driver.send("open", url=relay.url, options=options, credentials=credentials)
                driver.next("opened")
                push = {"recipient": "alice", "payload_b64": "aGVsbG8=", "kind": "test"}
                driver.send("push", id=1, **push)
                name = driver.next("pushed")["message_id"]
                driver.send("push", id=2, **{**push, "recipient": ""})
                self.assertEqual(driver.next("failed")["code"], "invalid_input")
                driver.send("deliver", recipient="alice", transport="wait", auto_ack=False)
                message = driver.next("message")
                self.assertEqual(message["payload_b64"], push["payload_b64"])
                self.assertEqual((message["message_id"], message["kind"]), (name, "test"))
                driver.send("ack", message_id=name)
                self.assertEqual(driver.next("acked")["message_id"], name)
                self.assertEqual(relay.items, [])
                relay.add("bob", b"hello")
                deliver = {"recipient": "bob", "auto_ack": True, "digest": True}
                driver.send("deliver", transport="stream", **deliver)
                events = [driver.next("message", "acked") for _ in range(2)]
                digest = hashlib.sha256(b"hello").hexdigest()
                self.assertEqual((events[0]["sha256"], events[0]["bytes"]), (digest, 5))
                self.assertEqual(events[1]["event"], "acked")
                relay.add("bob", b"", chunk_count=70_000)
                self.assertEqual(driver.next("skipped")["reason"], "malformed")
                driver.send("close")
                driver.next("closed")
                self.assertEqual(driver.end(), 0)


if __name__ == "__main__":
    unittest.main()
