"""Keys of WebSocket handshakes (RFC 6455 section 4)."""

from __future__ import annotations

import base64

import pytest

from lbproxy.protocol.http1 import parse_response_head
from lbproxy.protocol.websocket import accept_of, accepts, key_of, sent_key, without_keys

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3


def test_the_example_of_the_standard() -> None:
    assert accept_of(KEY) == ACCEPT


def test_a_key_is_16_octets_and_another_for_each_request() -> None:
    keys = {key_of(name) for name in ("a", "b", "\u00e4" * 1000)}
    assert len(keys) == 3
    assert {len(base64.b64decode(key)) for key in keys} == {16}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (b"Sec-WebSocket-Key: %b\r\n" % KEY, KEY),
        (b"a: b\r\nsec-websocket-KEY: %b\r\nc: d\r\n" % KEY, KEY),
        (b"a: b\r\n", b""),
        (b"Sec-WebSocket-Key: \r\n", b""),
        (b"Sec-WebSocket-Key: dGhl\r\n", b""),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n", b""),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ\xff==\r\n", b""),
        (b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Key: %b\r\n" % (KEY, KEY), b""),
    ],
)
def test_the_key_that_was_sent(lines: bytes, found: bytes) -> None:
    assert sent_key(lines) == found


@pytest.mark.parametrize(
    ("lines", "is_right"),
    [
        (b"Sec-WebSocket-Accept: %b\r\n" % ACCEPT, True),
        (b"Sec-WebSocket-Accept: %b\r\nsec-websocket-accept: %b\r\n" % (ACCEPT, ACCEPT), False),
        (b"Sec-WebSocket-Accept: %b\r\n" % KEY, False),
        (b"a: b\r\n", False),
    ],
)
def test_what_answers_a_key(lines: bytes, is_right: bool) -> None:
    raw = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%b\r\n" % lines
    assert accepts(parse_response_head(raw, max_fields=10), KEY) is is_right


def test_what_only_http_1_has_goes() -> None:
    lines = b"a: b\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: y\r\n"
    assert without_keys(lines) == b"a: b\r\nSec-WebSocket-Protocol: chat\r\n"
