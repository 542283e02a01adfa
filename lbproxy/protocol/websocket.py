"""What the handshake of WebSocket says in HTTP/1.1 and HTTP/2 leaves out (RFC 6455 section 4, RFC 8441 section 5)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from lbproxy.protocol.field_lines import fields_of, without
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.upgrade import WEBSOCKET

_SUFFIX: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = b"sec-websocket-key"
_ACCEPT: Final = b"sec-websocket-accept"
_ONLY_HTTP_1: Final = frozenset((_KEY, _ACCEPT))
_KEY_SIZE: Final = 16


def key_of(request_id: str) -> bytes:
    """The Sec-WebSocket-Key of a request that came without one: another for each id."""
    digest = hashlib.sha1(request_id.encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest[:_KEY_SIZE])


def accept_of(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers it."""
    return base64.b64encode(hashlib.sha1(key + _SUFFIX, usedforsecurity=False).digest())


def sent_key(lines: bytes) -> bytes:
    """The one Sec-WebSocket-Key among the lines of a request; b"" if there is none that RFC 6455 allows."""
    found = [value for name, value in fields_of(lines) if name.lower() == _KEY]
    if len(found) != 1:
        return b""
    try:
        is_key = len(base64.b64decode(found[0], validate=True)) == _KEY_SIZE
    except binascii.Error:
        return b""
    return found[0] if is_key else b""


def accepts(head: ResponseHead, key: bytes) -> bool:
    """Does a 101 answer this key, and no other?"""
    return [value for name, value in head.fields if name.lower() == _ACCEPT] == [accept_of(key)]


def without_keys(lines: bytes) -> bytes:
    """Lines without what only HTTP/1.1 has."""
    return without(lines, _ONLY_HTTP_1)


def switched(head: ResponseHead) -> None:
    """A 2xx of extended CONNECT says what a 101 does."""
    head.upgrade = WEBSOCKET
