"""Frames as they are written (RFC 9113 sections 4.1 and 6)."""

from __future__ import annotations

from lbproxy.compiling import frame_begin
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


def frame_header(size: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The nine octets before a payload of `size` octets."""
    return frame_begin(size, kind, flags, stream_id)


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


def long_headers(stream_id: int, block: bytes, is_end: bool, frame_size: int) -> bytes:
    """HEADERS, and CONTINUATION for what does not fit into a frame of that size."""
    size = len(block)
    pieces = [frame_header(frame_size, HEADERS, END_STREAM if is_end else 0, stream_id), block[:frame_size]]
    for at in range(frame_size, size, frame_size):
        piece = block[at : at + frame_size]
        is_last = at + frame_size >= size
        pieces += [frame_header(len(piece), CONTINUATION, END_HEADERS if is_last else 0, stream_id), piece]
    return b"".join(pieces)
