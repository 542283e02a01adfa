"""Frames as they are written (RFC 9113 sections 4.1 and 6)."""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import i64
from lbproxy.protocol.h2.codes import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)

_N_SIZES: Final = 512
_N_KNOWN: Final = 16  # DATA and HEADERS, with the flags that this end sets
_STARTS: Final[list[bytes]] = [b""] * (_N_SIZES * _N_KNOWN)
"""Those that were made before, by kind, flags and size."""
_N_NUMBERS: Final = 65536
_HIGH: Final = [bytes([0, 0, octet]) for octet in range(256)]
_OCTETS: Final = [bytes([octet]) for octet in range(256)]


def frame_header(size: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The nine octets before a payload of `size` octets."""
    return frame_start(size, kind, flags) + stream_number(stream_id)


def frame_start(size: i64, kind: i64, flags: i64) -> bytes:
    """Five of them, which the stream's number follows."""
    if size >= _N_SIZES or kind > 1 or flags > 7:
        return _start(size, kind, flags)
    at: i64 = (kind * 8 + flags) * _N_SIZES + size
    known = _STARTS[at]
    if not known:
        known = _STARTS[at] = _start(size, kind, flags)
    return known


def _start(size: int, kind: int, flags: int) -> bytes:
    return ((size << 16) | (kind << 8) | flags).to_bytes(5, "big")


def stream_number(stream_id: i64) -> bytes:
    """The other four."""
    if stream_id < _N_NUMBERS:
        return _HIGH[stream_id >> 8] + _OCTETS[stream_id & 0xFF]
    return _number(stream_id)


def _number(stream_id: int) -> bytes:
    return stream_id.to_bytes(4, "big")


def settings(values: list[tuple[int, int]]) -> bytes:
    """Identifiers and values."""
    body = b"".join([number.to_bytes(2, "big") + value.to_bytes(4, "big") for number, value in values])
    return frame_header(len(body), SETTINGS, 0, 0) + body


def settings_ack() -> bytes:
    return frame_header(0, SETTINGS, ACK, 0)


def ping(data: bytes, is_ack: bool) -> bytes:
    """data: 8 octets."""
    return frame_header(8, PING, ACK if is_ack else 0, 0) + data


def rst_stream(stream_id: int, code: int) -> bytes:
    return frame_header(4, RST_STREAM, 0, stream_id) + code.to_bytes(4, "big")


def window_update(stream_id: int, increment: int) -> bytes:
    """stream_id 0: the connection's."""
    return frame_header(4, WINDOW_UPDATE, 0, stream_id) + increment.to_bytes(4, "big")


def goaway(last_stream_id: int, code: int, debug: bytes) -> bytes:
    body = last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big") + debug
    return frame_header(len(body), GOAWAY, 0, 0) + body


def long_headers(number: bytes, block: bytes, is_end: bool, frame_size: int) -> bytes:
    """HEADERS, and CONTINUATION for what does not fit into a frame of that size. number: the stream's, 4 octets."""
    size = len(block)
    pieces = [frame_start(frame_size, HEADERS, END_STREAM if is_end else 0), number, block[:frame_size]]
    for at in range(frame_size, size, frame_size):
        piece = block[at : at + frame_size]
        is_last = at + frame_size >= size
        pieces += [frame_start(len(piece), CONTINUATION, END_HEADERS if is_last else 0), number, piece]
    return b"".join(pieces)
