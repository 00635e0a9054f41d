"""Who the client is: secrets, keys and tokens, and the recipients that they open.

Secrets and tokens appear in no repr, error or log. docs/auth.md of the relay has the rules.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from typing import Protocol, cast

from .errors import invalid_input

TOKEN_LIFETIME_S = 300
TOKEN_MARGIN_S = 60
_TOKENS_MAX = 1024


class SigningKey(Protocol):
    """An Ed25519 private key, such as `Ed25519PrivateKey` of the package `cryptography`."""

    def sign(self, data: bytes, /) -> bytes:
        """Returns the signature of 64 bytes."""


class Credentials:
    """The proof that opens a recipient's queue. Make one by `secret`, `key` or `token`.

    Client certificates are no credentials: give them to `Options.ssl_context`.
    """

    sends_with_push = False
    """Whether a push carries the proof as well: only an issuer's token is for that."""
    follows_clock = False
    """Whether another clock would lead to another proof."""

    def proof(self, recipient: str, now_s: float) -> str:
        """The text after `Bearer` for a request about `recipient`."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    @staticmethod
    def secret(secret: bytes | str) -> Credentials:
        """The secret of `sha256:` recipients: 32 to 64 bytes, or their base64url text."""
        return _Fixed(secret_text(secret), sends_with_push=False)

    @staticmethod
    def key(private_key: SigningKey | bytes, audience: str) -> Credentials:
        """The key of `ed25519:` recipients; signs tokens for the relay known as `audience`.

        `private_key` is a key of the package `cryptography`, or a seed of 32 bytes, for which that
        package must be installed (`pip install relay-client[keys]`).
        """
        return _Key(_signing_key(private_key), audience)

    @staticmethod
    def token(text: str) -> Credentials:
        """A token that the operator's issuer has signed, for recipients without a lock."""
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise invalid_input("a token is printable ASCII without spaces")
        return _Fixed(text, sends_with_push=True)


class _Fixed(Credentials):
    """A proof that is the same for every request."""

    def __init__(self, text: str, *, sends_with_push: bool) -> None:
        self._text = text
        self.sends_with_push = sends_with_push

    def proof(self, recipient: str, now_s: float) -> str:
        return self._text


class _Key(Credentials):
    """Signs one token for each recipient, and again before it expires."""

    follows_clock = True

    def __init__(self, key: SigningKey, audience: str) -> None:
        self._key = key
        self._audience = audience
        self._tokens: dict[str, tuple[int, str]] = {}

    def proof(self, recipient: str, now_s: float) -> str:
        known = self._tokens.get(recipient)
        if known is not None:
            issued_s, text = known
            if issued_s <= now_s < issued_s + TOKEN_LIFETIME_S - TOKEN_MARGIN_S:
                return text
        issued_s = int(now_s)
        text = self._sign(recipient, issued_s)
        if len(self._tokens) >= _TOKENS_MAX:
            self._tokens.clear()
        self._tokens[recipient] = (issued_s, text)
        return text

    def _sign(self, recipient: str, issued_s: int) -> str:
        header = {"alg": "EdDSA", "typ": "relay-read+jwt"}
        claims = {
            "iss": recipient,
            "aud": self._audience,
            "iat": issued_s,
            "exp": issued_s + TOKEN_LIFETIME_S,
        }
        signed = ".".join(_b64url(json.dumps(part).encode()) for part in (header, claims))
        return f"{signed}.{_b64url(self._key.sign(signed.encode()))}"


def generate_secret() -> bytes:
    """A new secret of 32 random bytes. Store it like a password."""
    return secrets.token_bytes(32)


def secret_text(secret: bytes | str) -> str:
    """The base64url text of a secret, as the relay expects it."""
    return _b64url(_secret_bytes(secret))


def recipient_of_secret(secret: bytes | str, send_secret: bytes | str | None = None) -> str:
    """The recipient that `secret` opens. With `send_secret`, only who has that one may push."""
    return "sha256:" + _lock(b"relay/read/1\0", secret) + _send_lock(send_secret)


def recipient_of_key(private_key: object, send_secret: bytes | str | None = None) -> str:
    """The recipient of an Ed25519 key: an `Ed25519PrivateKey` or a seed of 32 bytes.

    Needs the package `cryptography`.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    except ImportError as error:
        raise _without_cryptography() from error
    if isinstance(private_key, bytes):
        private_key = _signing_key(private_key)
    if not isinstance(private_key, Ed25519PrivateKey):
        raise invalid_input("a key is an Ed25519PrivateKey or a seed of 32 bytes")
    public = private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return "ed25519:" + _b64url(public) + _send_lock(send_secret)


def _signing_key(key: SigningKey | bytes) -> SigningKey:
    if not isinstance(key, bytes):
        return key
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise _without_cryptography() from error
    if len(key) != 32:
        raise invalid_input("the seed of an Ed25519 key has 32 bytes")
    return cast(SigningKey, Ed25519PrivateKey.from_private_bytes(key))


def _without_cryptography() -> Exception:
    return invalid_input("keys need the package cryptography: pip install relay-client[keys]")


def _send_lock(send_secret: bytes | str | None) -> str:
    return "" if send_secret is None else "+sha256:" + _lock(b"relay/send/1\0", send_secret)


def _lock(purpose: bytes, secret: bytes | str) -> str:
    return _b64url(hashlib.sha256(purpose + _secret_bytes(secret)).digest())


def _secret_bytes(secret: bytes | str) -> bytes:
    if isinstance(secret, str):
        try:
            padded = secret.encode("ascii") + b"=" * (-len(secret) % 4)
            secret = base64.b64decode(padded, altchars=b"-_", validate=True)
        except ValueError:
            # The cause may quote the secret, so it is not chained.
            raise invalid_input("the secret is not base64url") from None
    if not 32 <= len(secret) <= 64:
        raise invalid_input("a secret has 32 to 64 bytes")
    return secret


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
