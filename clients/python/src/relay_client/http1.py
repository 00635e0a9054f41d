"""HTTP/1.1 without I/O: the bytes of a request, and a parser that is fed the bytes of a response.

Both clients use it, so both have the same limits: a head of 64 KiB and 256 fields, and the body
that the caller allows. The parser never holds more than that, whatever a server sends.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from .errors import invalid_input, broken_answer, answer_too_large

HEAD_BYTES_MAX = 64 * 1024
FIELDS_MAX = 256
READ_BYTES = 64 * 1024
_INTERIM_MAX = 8
_CHUNK_LINE_MAX = 256


@dataclass(frozen=True)
class Endpoint:
    """Where the relay is."""

    host: str
    port: int
    is_tls: bool
    prefix: str

    @classmethod
    def parse(cls, base_url: str) -> Endpoint:
        """Reads `http://host[:port][/prefix]` or the same with https."""
        try:
            parts = urlsplit(base_url)
            host = (parts.hostname or "").encode("idna")
            port = parts.port
        except ValueError as error:
            raise invalid_input(f"the URL of the relay: {error}") from error
        if parts.scheme not in ("http", "https") or not host:
            raise invalid_input("the URL of the relay must begin with http:// or https://")
        if parts.username is not None or parts.query or parts.fragment:
            raise invalid_input("the URL of the relay has no user, query or fragment")
        prefix = parts.path.rstrip("/")
        if not prefix.isascii() or not prefix.isprintable() or " " in prefix:
            raise invalid_input("the path of the relay's URL must be percent-encoded")
        is_tls = parts.scheme == "https"
        return cls(host.decode(), port or (443 if is_tls else 80), is_tls, prefix)

    @property
    def authority(self) -> str:
        """The value of the field Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"

    @property
    def is_private(self) -> bool:
        """Whether nobody between client and relay can change what they say."""
        if self.is_tls or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, repr=False)
class Request:
    """One request. Its repr shows no proof and no payload."""

    method: str
    path: str
    body: bytes
    proof: str | None
    timeout_s: float
    body_bytes_max: int
    is_stream: bool = False

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"

    def encode(self, endpoint: Endpoint) -> bytes:
        """The bytes to send."""
        fields = [
            f"{self.method} {endpoint.prefix}{self.path} HTTP/1.1",
            f"Host: {endpoint.authority}",
            "Accept: application/x-ndjson" if self.is_stream else "Accept: application/json",
            "Accept-Encoding: identity",
        ]
        if self.proof is not None:
            fields.append(f"Authorization: Bearer {self.proof}")
        if self.method == "POST":
            fields += ["Content-Type: application/json", f"Content-Length: {len(self.body)}"]
        return "\r\n".join([*fields, "\r\n"]).encode("ascii") + self.body


@dataclass(frozen=True)
class Head:
    """The status and the fields of a response; names are in lower case."""

    status: int
    fields: dict[str, str]
    is_http_11: bool


class ResponseParser:
    """Reads one response. Feed it bytes until `is_complete`; `b""` is the end of the connection."""

    def __init__(self, body_bytes_max: int) -> None:
        self.head: Head | None = None
        self.is_complete = False
        self.is_reusable = False
        self.is_begun = False
        self._body_bytes_max = body_bytes_max
        self._input = bytearray()
        self._scanned = 0
        self._body = bytearray()
        self._interim = 0
        # Bytes left of the body or chunk; None: the body ends with the connection.
        self._left: int | None = 0
        self._is_chunked = False
        self._phase = "head"
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> None:
        """Takes the next bytes. Raises `RelayError` if they are no response or too many."""
        if not data:
            self._end()
            return
        self.is_begun = True
        self._input += data
        while not self.is_complete and self._step():
            pass
        if self.is_complete and self._input:
            self.is_reusable = False

    def take_body(self) -> bytes:
        """Removes and returns what has come of the body."""
        body = bytes(self._body)
        self._body.clear()
        return body

    def _end(self) -> None:
        self.is_reusable = False
        if self._phase == "body" and self._left is None:
            self.is_complete = True
        elif not self.is_complete:
            raise broken_answer("the connection ended before the response did")

    def _step(self) -> bool:
        """Reads one part; False if it needs more bytes."""
        if self._phase == "head":
            return self._read_head()
        if self._phase == "body":
            return self._read_body()
        if self._phase == "size":
            return self._read_size()
        return self._read_trailer()

    def _read_head(self) -> bool:
        end = self._input.find(b"\r\n\r\n", max(0, self._scanned - 3))
        self._scanned = len(self._input)
        if end > HEAD_BYTES_MAX or (end < 0 and len(self._input) > HEAD_BYTES_MAX):
            raise broken_answer("the head of the response is too large")
        if end < 0:
            return False
        head = parse_head(bytes(self._input[:end]))
        del self._input[: end + 4]
        self._scanned = 0
        if 100 <= head.status < 200:
            self._interim += 1
            if self._interim > _INTERIM_MAX or head.status == 101:
                raise broken_answer("the response does not begin")
            return True
        self.head = head
        self._frame(head)
        return True

    def _frame(self, head: Head) -> None:
        """Finds out where the body ends."""
        coding = head.fields.get("transfer-encoding")
        length = head.fields.get("content-length")
        closes = "close" in head.fields.get("connection", "").lower()
        self.is_reusable = head.is_http_11 and not closes and not (coding and length)
        if head.status in (204, 304):
            self.is_complete = True
        elif coding is not None:
            if coding.strip().lower() != "chunked":
                raise broken_answer("the response has an unknown transfer encoding")
            self._is_chunked, self._phase = True, "size"
        elif length is not None:
            self._left = _length(length)
            if self._left > self._body_bytes_max:
                raise answer_too_large(self._body_bytes_max)
            self._phase = "body"
            self.is_complete = self._left == 0
        else:
            self._left, self._phase, self.is_reusable = None, "body", False

    def _read_body(self) -> bool:
        if not self._input:
            return False
        count = len(self._input) if self._left is None else min(self._left, len(self._input))
        if len(self._body) + count > self._body_bytes_max:
            raise answer_too_large(self._body_bytes_max)
        self._body += self._input[:count]
        del self._input[:count]
        if self._left is None:
            return False
        self._left -= count
        if self._left == 0:
            if self._is_chunked:
                self._phase = "size"
                self._left = -1
            else:
                self.is_complete = True
        return True

    def _read_size(self) -> bool:
        if self._left == -1:
            # A chunk is over: its CRLF comes first.
            if len(self._input) < 2:
                return False
            if self._input[:2] != b"\r\n":
                raise broken_answer("a chunk of the response has a wrong size")
            del self._input[:2]
            self._left = 0
        line = self._line(_CHUNK_LINE_MAX)
        if line is None:
            return False
        digits = line.split(b";", 1)[0].strip()
        if not digits or len(digits) > 15 or digits.strip(b"0123456789abcdefABCDEF"):
            raise broken_answer("a chunk of the response has no size")
        self._left = int(digits, 16)
        self._phase = "body" if self._left else "trailer"
        return True

    def _read_trailer(self) -> bool:
        line = self._line(HEAD_BYTES_MAX)
        if line is None:
            return False
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > HEAD_BYTES_MAX:
            raise broken_answer("the trailer of the response is too large")
        self.is_complete = not line
        return True

    def _line(self, bytes_max: int) -> bytes | None:
        end = self._input.find(b"\r\n", 0, bytes_max + 2)
        if end < 0:
            if len(self._input) > bytes_max:
                raise broken_answer("a line of the response is too long")
            return None
        line = bytes(self._input[:end])
        del self._input[: end + 2]
        return line


def parse_head(head: bytes) -> Head:
    """Reads a status line and fields. Raises `RelayError` if they are malformed."""
    lines = head.decode("latin-1").split("\r\n")
    if len(lines) > FIELDS_MAX + 1:
        raise broken_answer("the head of the response has too many fields")
    version, _, rest = lines[0].partition(" ")
    status = rest[:3]
    if version not in ("HTTP/1.1", "HTTP/1.0") or not (status.isdigit() and status.isascii()):
        raise broken_answer("the response is not HTTP/1.1")
    if len(status) != 3 or rest[3:4] not in ("", " ") or status < "100":
        raise broken_answer("the response has no status")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
            raise broken_answer("the head of the response is malformed")
        if fields.get(name, value) != value and name in ("content-length", "transfer-encoding"):
            raise broken_answer("the response has two lengths")
        fields[name] = value
    return Head(int(status), fields, version == "HTTP/1.1")


def _length(text: str) -> int:
    if not (text.isdigit() and text.isascii()) or len(text) > 18:
        raise broken_answer("the length of the response is malformed")
    return int(text)


class LineSplitter:
    """Cuts the body of a stream into lines of at most `line_bytes_max` bytes."""

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._input = bytearray()
        self._scanned = 0

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the body."""
        self._input += data

    def next(self) -> bytes | None:
        """The next whole line, or None. Raises `RelayError` if it is too long."""
        end = self._input.find(b"\n", self._scanned)
        if end > self._line_bytes_max or (end < 0 and len(self._input) > self._line_bytes_max):
            raise answer_too_large(self._line_bytes_max)
        if end < 0:
            self._scanned = len(self._input)
            return None
        line = bytes(self._input[:end])
        del self._input[: end + 1]
        self._scanned = 0
        return line
