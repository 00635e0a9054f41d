"""The code of the README and the examples runs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import re
import runpy
import subprocess
import sys
import threading
import unittest
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .fake_relay import FakeRelay
from .test_close import until
from .test_credentials import HAS_KEYS

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
NEEDS_FILES = ("holiday.jpg", "ca.pem")
LIMIT_S = 20.0


def run(*arguments: str, text: str = "") -> str:
    """Runs a program with the package; returns what it prints."""
    command = [sys.executable, "-W", "error", *arguments]
    environment = {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        command, input=text, env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return done.stdout


def pushes(relay: FakeRelay) -> list[dict[str, Any]]:
    """The bodies of all pushes, in the order in which they came."""
    return [seen.body for seen in relay.seen if seen.path == "/push"]


class Readme(unittest.TestCase):
    """Each block of Python."""

    def test_the_code_runs(self) -> None:
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        self.assertGreater(len(blocks), 5)
        for block in blocks:
            if any(name in block for name in NEEDS_FILES):
                compile(block, "README.md", "exec")
            elif HAS_KEYS or "cryptography" not in block:
                with self.subTest(block), FakeRelay() as relay:
                    run("-c", block.replace("http://127.0.0.1:7000", relay.url))


class Examples(unittest.TestCase):
    """Each example."""

    def test_a_file_is_sent(self) -> None:
        with FakeRelay() as relay:
            output = run(str(EXAMPLES / "send_file.py"), relay.url, "alice", __file__)
            self.assertIn(str(relay.items[0]["message_id"]), output)

    def test_the_chat_lets_no_text_command_the_terminal(self) -> None:
        text = "a\x1b[2J\r\n< I am you \u202e\u00e9"
        payload = json.dumps({"from": "bob", "text": text}).encode()
        message = SimpleNamespace(payload=payload, ack=lambda: None)

        async def deliveries(recipient: str) -> AsyncIterator[SimpleNamespace]:
            yield message

        chat = runpy.run_path(str(EXAMPLES / "chat.py"))["Chat"]
        with contextlib.redirect_stdout(io.StringIO()) as output:
            asyncio.run(chat(SimpleNamespace(deliveries=deliveries), "alice", None).listen())
        expected = "< a\\x1b[2J\\r\\n< I am you \\u202e\u00e9\n"
        self.assertEqual(output.getvalue(), expected)

    def test_the_bot_answers_the_chat(self) -> None:
        with FakeRelay() as relay:
            bot = subprocess.Popen(
                [sys.executable, str(EXAMPLES / "echo_bot.py"), relay.url, "bot"],
                env={"PYTHONPATH": str(ROOT / "src")},
            )
            watchdog = threading.Timer(LIMIT_S, bot.kill)
            watchdog.start()
            try:
                run(str(EXAMPLES / "chat.py"), relay.url, "bot", text="hello\n")
                sent = pushes(relay)[0]
                name = json.loads(base64.b64decode(sent["ciphertext_b64"]))["from"]
                # The chat itself may take the answer before it ends.
                until(lambda: any(push["recipient"] == name for push in pushes(relay)))
                sent = next(push for push in pushes(relay) if push["recipient"] == name)
                answer = json.loads(base64.b64decode(sent["ciphertext_b64"]))
                self.assertEqual(answer, {"from": "bot", "text": "hello"})
            finally:
                watchdog.cancel()
                bot.kill()
                bot.wait()


if __name__ == "__main__":
    unittest.main()
