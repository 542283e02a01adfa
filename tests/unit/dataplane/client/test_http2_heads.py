"""Heads of HTTP/2 as HTTP/1.1 has them: one request each, or none, whatever was sent."""

from __future__ import annotations

import random

import h11
import pytest

from lbproxy.dataplane.client.http2_heads import request_octets
from lbproxy.protocol.h2.fields import make_field
from lbproxy.protocol.h2.head import Malformed, read_request

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/a?b=c")]
ODD = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"\x7f",
    b"\xff",
    b"\r\n\r\nGET /evil HTTP/1.1\r\nHost: e\r\n\r\n",
)
NAMES = (
    b"accept",
    b"cookie",
    b"te",
    b"content-length",
    b"host",
    b"x-a",
    b"expect",
    b"connection",
    b"transfer-encoding",
)
VALUES = (b"", b"a", b"trailers", b"5", b"h", b"chunked", b"100-continue", b"x=1; y=2")


def octets_of(fields: list[tuple[bytes, bytes]], *, is_end: bool = True) -> bytes:
    return request_octets(read_request([make_field(name, value) for name, value in fields], False), is_end=is_end)


@pytest.mark.parametrize(
    ("more", "is_end", "framing"),
    [
        ([], True, b""),
        ([], False, b"Transfer-Encoding: chunked\r\n"),
        ([(b"content-length", b"5")], False, b"Content-Length: 5\r\n"),
        ([(b"content-length", b"0")], True, b"Content-Length: 0\r\n"),
        ([(b"te", b"trailers")], True, b"TE: trailers\r\nConnection: TE\r\n"),
    ],
)
def test_framing(more: list[tuple[bytes, bytes]], is_end: bool, framing: bytes) -> None:
    got = octets_of([*GET, (b"x", b"y"), *more], is_end=is_end)
    assert got == b"GET /a?b=c HTTP/1.1\r\nHost: h\r\nx: y\r\n" + framing + b"\r\n"


def test_the_target_of_connect_is_its_authority() -> None:
    assert octets_of([(b":method", b"CONNECT"), (b":authority", b"h:1")]).startswith(b"CONNECT h:1 HTTP/1.1\r\n")


def spoiled(rng: random.Random, octets: bytes) -> bytes:
    at = rng.randint(0, len(octets))
    return octets if rng.random() < 0.9 else octets[:at] + rng.choice(ODD) + octets[at:]


@pytest.mark.parametrize("seed", range(40))
def test_nothing_can_become_two_requests(seed: int) -> None:
    """h11 reads exactly one, with the method, target and host of the stream, and nothing behind it."""
    rng = random.Random(seed)
    n_read = 0
    for _ in range(50):
        fields = [(name, spoiled(rng, value)) for name, value in GET]
        fields += [
            (spoiled(rng, rng.choice(NAMES)), spoiled(rng, rng.choice(VALUES))) for _ in range(rng.randint(0, 3))
        ]
        try:
            octets = octets_of(fields)
        except Malformed:
            continue
        server = h11.Connection(h11.SERVER)
        server.receive_data(octets)
        try:
            event = server.next_event()
        except h11.RemoteProtocolError:
            continue  # refused: the reader of heads does the same, or is stricter
        n_read += 1
        assert isinstance(event, h11.Request)
        given = dict(fields[:4])
        assert (event.method, event.target) == (given[b":method"], given[b":path"])
        assert [value for name, value in event.headers if name == b"host"] == [given[b":authority"]]
        assert server.trailing_data[0] in (b"", octets[len(octets) :])
    assert n_read
