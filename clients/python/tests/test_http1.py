"""The parser of responses: every split, every cut, every limit."""

from __future__ import annotations

import unittest

from relay_client.errors import RelayError
from relay_client.http1 import (
    FIELDS_MAX,
    HEAD_BYTES_MAX,
    Endpoint,
    LineSplitter,
    Request,
    ResponseParser,
)

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: z\r\n\r\n"
)


def parse(data: bytes, body_bytes_max: int = 1000) -> ResponseParser:
    """A parser that was fed `data` at once."""
    parser = ResponseParser(body_bytes_max)
    parser.feed(data)
    return parser


class Whole(unittest.TestCase):
    """Responses that are fine."""

    def test_any_split_gives_the_same_response(self) -> None:
        for response in (PLAIN, CHUNKED):
            for cut in range(1, len(response)):
                parser = ResponseParser(1000)
                parser.feed(response[:cut])
                parser.feed(response[cut:])
                self.assertTrue(parser.is_complete and parser.is_reusable)
                self.assertEqual(parser.take_body(), b"hello")

    def test_a_body_may_end_with_the_connection(self) -> None:
        parser = parse(b"HTTP/1.1 200 OK\r\n\r\nhello")
        self.assertFalse(parser.is_complete)
        parser.feed(b"")
        self.assertTrue(parser.is_complete)
        self.assertEqual(parser.take_body(), b"hello")
        self.assertFalse(parser.is_reusable)

    def test_a_connection_is_not_used_again_against_the_word_of_the_server(self) -> None:
        for head in (b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: Close\r\n"):
            self.assertFalse(parse(head + b"Content-Length: 0\r\n\r\n").is_reusable)
        self.assertFalse(parse(PLAIN + b"HTTP/1.1 200").is_reusable)
        self.assertTrue(parse(b"HTTP/1.1 204 No\r\n\r\n").is_reusable)


class Broken(unittest.TestCase):
    """Responses that are cut, malformed or too large."""

    def check(self, data: bytes, code: str = "broken_answer") -> None:
        """Feeding these bytes raises this error, and so does each of them on its own."""
        for parts in ([data], [bytes([byte]) for byte in data]):
            parser = ResponseParser(1000)
            with self.assertRaises(RelayError) as raised:
                for part in parts:
                    parser.feed(part)
                parser.feed(b"")
            self.assertEqual(raised.exception.code, code)

    def test_every_cut_is_an_error(self) -> None:
        for response in (PLAIN, CHUNKED):
            for cut in range(len(response)):
                self.check(response[:cut])

    def test_malformed_heads(self) -> None:
        for head in (
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 101 Switching\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        ):
            self.check(head)

    def test_malformed_chunks(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for body in (b"x\r\n", b"\r\n", b"1\r\nab\r\n", b"-1\r\n", b"f" * 16 + b"\r\n"):
            self.check(head + body)
        self.check(head + b"1;" + b"x" * 400)

    def test_limits(self) -> None:
        self.check(b"HTTP/1.1 200 OK\r\nX: " + b"y" * HEAD_BYTES_MAX)
        self.check(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (FIELDS_MAX + 1) + b"\r\n")
        endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001
        self.check(endless, "answer_too_large")
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.check(chunked + (b"64\r\n" + b"x" * 100 + b"\r\n") * 11, "answer_too_large")
        self.check(chunked + b"0\r\n" + b"X: y\r\n" * HEAD_BYTES_MAX)


class Lines(unittest.TestCase):
    """Lines of a stream."""

    def test_lines_come_whole(self) -> None:
        lines = LineSplitter(5)
        found = []
        for byte in b"one\n\ntwo\nrest":
            lines.feed(bytes([byte]))
            if (line := lines.next()) is not None:
                found.append(line)
        self.assertEqual(found, [b"one", b"", b"two"])

    def test_a_line_has_a_limit(self) -> None:
        for data in (b"123456", b"123456\n"):
            lines = LineSplitter(5)
            lines.feed(data)
            with self.assertRaises(RelayError):
                lines.next()


class Urls(unittest.TestCase):
    """Where the relay is."""

    def test_urls(self) -> None:
        relay = Endpoint.parse("https://Relay.example.org/a/b/")
        self.assertEqual((relay.host, relay.port, relay.prefix), ("relay.example.org", 443, "/a/b"))
        self.assertEqual(relay.authority, "relay.example.org")
        self.assertEqual(Endpoint.parse("http://[::1]:7000").authority, "[::1]:7000")
        request = Request("POST", "/push", b"{}", "proof", 1.0, 1000)
        self.assertTrue(request.encode(relay).startswith(b"POST /a/b/push HTTP/1.1\r\n"))
        self.assertNotIn("proof", repr(request))

    def test_wrong_urls(self) -> None:
        for url in ("", "relay", "ftp://x", "http://", "http://a:b@c", "http://a?b", "http://a:x"):
            with self.assertRaises(RelayError, msg=url):
                Endpoint.parse(url)

    def test_who_may_set_the_clock(self) -> None:
        for url, is_private in (
            ("https://relay.example.org", True),
            ("http://relay.example.org", False),
            ("http://127.0.0.1", True),
            ("http://localhost:7000", True),
            ("http://[::1]", True),
            ("http://10.0.0.1", False),
        ):
            self.assertEqual(Endpoint.parse(url).is_private, is_private, url)


if __name__ == "__main__":
    unittest.main()
