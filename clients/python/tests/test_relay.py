"""Both clients with the real relay. Set RELAY_BIN to the path of its program."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import time
import unittest
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from relay_client import (
    AsyncClient,
    Credentials,
    Options,
    OutgoingMessage,
    PushResult,
    RelayError,
    generate_secret,
    recipient_of_key,
    recipient_of_secret,
)
from relay_client.message import Transport

from .kinds import KINDS, QUICK, Kind
from .real_relay import RealRelay
from .test_credentials import HAS_KEYS

TRANSPORTS: tuple[Transport, ...] = ("wait", "stream")
AUDIENCE = "https://relay.example.org"


class Plain(unittest.TestCase):
    """A relay with its defaults, and names without a lock."""

    relay: RealRelay

    @classmethod
    def setUpClass(cls) -> None:
        """Starts the relay."""
        cls.relay = RealRelay(f'[auth]\naudiences = ["{AUDIENCE}"]')
        cls.addClassCleanup(cls.relay.__exit__)
        cls.relay.start()

    def each(self) -> Iterator[tuple[type[Kind], Transport, str]]:
        """Both clients by both transports, each with a recipient of its own."""
        for kind in KINDS:
            for transport in TRANSPORTS:
                with self.subTest(f"{kind.__name__} {transport}"):
                    yield kind, transport, f"{self.id()} {kind.__name__} {transport}"

    def failure(self, client: Kind, recipient: str) -> RelayError:
        """The error of deliveries."""
        with self.assertRaises(RelayError) as raised:
            client.take(recipient, 1)
        return raised.exception

    def test_messages_of_all_sizes(self) -> None:
        payloads = [b"hello", b"", os.urandom(3_000_000), b"\0" * 256 * 1024, b"last"]
        for kind, transport, recipient in self.each():
            client = kind(self.relay.url)
            for payload in payloads:
                self.assertTrue(client.push(recipient, payload, kind="test", ttl=60).stored)
            taken = client.take(recipient, len(payloads), transport=transport)
            self.assertEqual([message.payload for message in taken], payloads)
            self.assertEqual({message.kind for message in taken}, {"test"})
            self.assertLess(abs(taken[0].arrival_ms - time.time() * 1000), 60_000)
            client.push(recipient, b"next")
            self.assertEqual(client.take(recipient, 1)[0].payload, b"next")

    def test_many_messages_at_once(self) -> None:
        for kind, transport, recipient in self.each():
            client = kind(self.relay.url)
            payloads = [b"%d" % number for number in range(300)]
            messages = [OutgoingMessage(recipient, payload) for payload in payloads]
            results = client.push_all(messages)
            self.assertTrue(all(isinstance(one, PushResult) and one.stored for one in results))
            taken = client.take(recipient, 300, transport=transport)
            self.assertEqual([message.payload for message in taken], payloads)

    def test_a_file(self) -> None:
        for kind, transport, recipient in self.each():
            payload = os.urandom(5_000_000)
            client = kind(self.relay.url)
            client.push_file(recipient, payload)
            self.assertEqual(client.take(recipient, 1, transport=transport)[0].payload, payload)

    def test_a_secret(self) -> None:
        for kind, transport, _ in self.each():
            secret, send_secret = generate_secret(), generate_secret()
            recipient = recipient_of_secret(secret, send_secret)
            stranger = kind(self.relay.url)
            owner = kind(self.relay.url, QUICK, Credentials.secret(secret))
            with self.assertRaises(RelayError) as raised:
                stranger.push(recipient, b"spam")
            self.assertEqual(raised.exception.status, 401)
            options = replace(QUICK, chunk_bytes=2)
            kind(self.relay.url, options).push(recipient, b"hello", send_secret=send_secret)
            stranger.push(recipient, b"again", send_secret=send_secret)
            self.assertEqual(self.failure(stranger, recipient).code, "unauthorized")
            taken = owner.take(recipient, 2, transport=transport)
            self.assertEqual([message.payload for message in taken], [b"hello", b"again"])

    @unittest.skipUnless(HAS_KEYS, "needs the package cryptography")
    def test_a_key_and_a_wrong_clock(self) -> None:
        for kind, transport, _ in self.each():
            seed = os.urandom(32)
            recipient = recipient_of_key(seed)
            kind(self.relay.url).push(recipient, b"hello")
            credentials = Credentials.key(seed, AUDIENCE)
            for hours, code in ((0, None), (3, None), (-20, None), (27, "forbidden")):
                client = kind(self.relay.url, with_clock(hours), credentials)
                if code is not None:
                    self.assertEqual(self.failure(client, recipient).code, code)
                    continue
                taken = client.take(recipient, 1, transport=transport, ack=False)
                self.assertEqual(taken[0].payload, b"hello")
            other = kind(self.relay.url, QUICK, Credentials.key(seed, "https://other"))
            self.assertEqual(self.failure(other, recipient).details["reason"], "wrong_audience")

    def test_a_recipient_that_is_no_lock(self) -> None:
        for kind, _, _ in self.each():
            with self.assertRaises(RelayError) as raised:
                kind(self.relay.url).push("sha256:x", b"")
            self.assertEqual(raised.exception.code, "invalid_input")
            self.assertEqual(raised.exception.details, {"field": "recipient"})


def with_clock(hours: int) -> Options:
    """Options with a clock that is wrong by so many hours."""
    return replace(QUICK, wall_clock=lambda: time.time() + hours * 3600)


class Restarts(unittest.TestCase):
    """The relay is killed and started again."""

    def test_nothing_is_lost_over_a_kill(self) -> None:
        with RealRelay() as relay:
            for transport in TRANSPORTS:
                with self.subTest(transport):
                    asyncio.run(self.run_over_kill(relay, transport))

    async def run_over_kill(self, relay: RealRelay, transport: Transport) -> None:
        """Pushes and takes while the relay is away for a moment."""
        options = replace(QUICK, push_timeout=60.0, wait_ms=5000, chunk_bytes=10)
        recipient = f"alice {transport}"
        payloads = [b"message %d with some chunks" % number for number in range(60)]
        async with AsyncClient(relay.url, options) as client:

            async def push() -> None:
                for number, payload in enumerate(payloads):
                    if number == 20:
                        relay.kill()
                        asyncio.get_running_loop().run_in_executor(None, relay.start)
                    await client.push(recipient, payload)

            sender = asyncio.create_task(push())
            taken = []
            async for message in client.deliveries(recipient, transport=transport):
                message.ack()
                taken.append(message.payload)
                if len(taken) == len(payloads):
                    break
            await sender
            self.assertEqual(taken, payloads)


class Tls(unittest.TestCase):
    """TLS, and a client certificate that opens a name."""

    def test_certificates(self) -> None:
        if shutil.which("openssl") is None:
            if os.environ.get("REQUIRE_PROGRAMS") == "1":
                self.fail("openssl is missing")
            self.skipTest("openssl is missing")
        config = (
            'mode = "tls"\n[tls]\ncert_pem_path = "relay.pem"\nkey_pem_path = "relay.key"\n'
            'client_ca_pem_path = "ca.pem"\n[auth]\nplain_names = "token"\npush = "token"'
        )
        with_relay = RealRelay(config, scheme="https")
        folder = Path(with_relay.directory.name)
        make_certificates(folder)
        with with_relay as relay:
            context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
            context.load_cert_chain(folder / "alice.pem", folder / "alice.key")
            for kind in KINDS:
                for transport in TRANSPORTS:
                    with self.subTest(f"{kind.__name__} {transport}"):
                        client = kind(relay.url, replace(QUICK, ssl_context=context))
                        payload = os.urandom(1_000_000)
                        client.push("alice", payload)
                        taken = client.take("alice", 1, transport=transport)
                        self.assertEqual(taken[0].payload, payload)
                        with self.assertRaises(RelayError) as raised:
                            client.push("bob", b"")
                        self.assertEqual(raised.exception.status, 403)
                        nobody = kind(relay.url, replace(QUICK, push_timeout=0.5))
                        with self.assertRaises(RelayError) as raised:
                            nobody.push("alice", b"")
                        self.assertEqual(raised.exception.code, "unreachable")


def make_certificates(folder: Path) -> None:
    """An authority, and certificates of the relay and of alice."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ed25519", "-noenc")
    usage = ("-addext", "keyUsage = critical, keyCertSign, cRLSign")
    openssl(*new, "-x509", *usage, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    for name, alternative in (("relay", "IP:127.0.0.1"), ("alice", "URI:relay:alice")):
        extensions = f"subjectAltName = {alternative}\nauthorityKeyIdentifier = keyid\n"
        (folder / "extensions").write_text(extensions)
        key, request = f"{name}.key", f"{name}.csr"
        openssl(*new, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        signing = ("x509", "-req", "-in", request, "-CA", "ca.pem", "-CAkey", "ca.key")
        openssl(*signing, "-days", "2", "-out", f"{name}.pem", "-extfile", "extensions")


if __name__ == "__main__":
    unittest.main()
