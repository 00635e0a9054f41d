"""Secrets, keys and tokens, by the vectors that the relay is tested with."""

from __future__ import annotations

import base64
import importlib.util
import json
import pickle
import unittest

from relay_client import Credentials, RelayError, generate_secret, recipient_of_secret
from relay_client.credentials import recipient_of_key, secret_text

SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
SEND_SECRET = (
    "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj9AQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVpbXF1eXw"
)
READ_LOCK = "sha256:MAnwSaLYK_Lpzqa_RV50Oonc9OCE9FWdzfIl0vbSFBQ"
SEND_LOCK = "+sha256:ywT9_bRvpj2qZQxlR7mYJ3zoElWIkD_BVZQpfd-H9w4"
SEED = bytes([7]) * 32
KEY_LOCK = "ed25519:6kpsY-KcUgq-9VB7Ey7F-ZVHdq6-vnuSQh7qaRRG0iw"
HAS_KEYS = importlib.util.find_spec("cryptography") is not None


class CountingKey:
    """A key that signs nothing, and counts."""

    def __init__(self) -> None:
        self.signed = 0

    def sign(self, data: bytes, /) -> bytes:
        """Returns a signature that no relay accepts."""
        self.signed += 1
        return bytes(64)


def part(token: str, index: int) -> dict[str, object]:
    """A part of a token."""
    text = token.split(".")[index]
    value: dict[str, object] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return value


class Secrets(unittest.TestCase):
    """Recipients with a secret."""

    def test_the_recipients_of_the_vectors(self) -> None:
        self.assertEqual(recipient_of_secret(SECRET), READ_LOCK)
        self.assertEqual(recipient_of_secret(SECRET, SEND_SECRET), READ_LOCK + SEND_LOCK)
        self.assertEqual(recipient_of_secret(bytes(range(32))), READ_LOCK)
        self.assertEqual(Credentials.secret(bytes(range(32))).proof("any", 0), SECRET)

    def test_new_secrets_differ(self) -> None:
        self.assertEqual(len(generate_secret()), 32)
        self.assertNotEqual(generate_secret(), generate_secret())
        self.assertEqual(len(secret_text(generate_secret())), 43)

    def test_what_is_no_secret(self) -> None:
        for wrong in (b"short", bytes(65), "short", SECRET + "!", "\u00e9" * 43):
            with self.assertRaises(RelayError) as raised:
                Credentials.secret(wrong)
            self.assertNotIn(str(wrong), str(raised.exception))
            self.assertIsNone(raised.exception.__cause__)
        for wrong in ("", "a b", "a\nb"):
            with self.assertRaises(RelayError):
                Credentials.token(wrong)

    def test_nothing_shows_a_secret(self) -> None:
        for credentials in (Credentials.secret(SECRET), Credentials.token(SECRET)):
            self.assertNotIn(SECRET, repr(credentials))
            self.assertNotIn(SECRET, str([credentials]))


class Keys(unittest.TestCase):
    """Recipients with a key."""

    def test_a_token_is_signed_anew_before_it_expires(self) -> None:
        key = CountingKey()
        credentials = Credentials.key(key, "https://relay.example.org")
        first = credentials.proof("alice", 1000.0)
        self.assertEqual(part(first, 0), {"alg": "EdDSA", "typ": "relay-read+jwt"})
        audience = "https://relay.example.org"
        claims = {"iss": "alice", "aud": audience, "iat": 1000, "exp": 1300}
        self.assertEqual(part(first, 1), claims)
        self.assertEqual(credentials.proof("alice", 1239.0), first)
        self.assertEqual(key.signed, 1)
        self.assertEqual(part(credentials.proof("alice", 1240.0), 1)["iat"], 1240)
        credentials.proof("bob", 1240.0)
        self.assertEqual(part(credentials.proof("alice", 900.0), 1)["iat"], 900)
        self.assertEqual(key.signed, 4)

    def test_tokens_are_not_kept_without_limit(self) -> None:
        credentials = Credentials.key(CountingKey(), "a")
        for number in range(3000):
            credentials.proof(f"r{number}", 0.0)
        self.assertLess(len(vars(credentials)["_tokens"]), 1100)

    @unittest.skipUnless(HAS_KEYS, "needs the package cryptography")
    def test_the_key_of_the_vectors(self) -> None:
        self.assertEqual(recipient_of_key(SEED), KEY_LOCK)
        self.assertEqual(recipient_of_key(SEED, SEND_SECRET), KEY_LOCK + SEND_LOCK)
        token = Credentials.key(SEED, "a").proof(KEY_LOCK, 1000.0)
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        public = Ed25519PrivateKey.from_private_bytes(SEED).public_key()
        signed, signature = token.rsplit(".", 1)
        public.verify(base64.urlsafe_b64decode(signature + "=="), signed.encode())
        for wrong in (b"short", 5, "text"):
            with self.assertRaises(RelayError):
                recipient_of_key(wrong)

    @unittest.skipUnless(HAS_KEYS, "needs the package cryptography")
    def test_credentials_with_a_key_cannot_be_stored_by_accident(self) -> None:
        with self.assertRaises(TypeError):
            pickle.dumps(Credentials.key(SEED, "a"))


if __name__ == "__main__":
    unittest.main()
