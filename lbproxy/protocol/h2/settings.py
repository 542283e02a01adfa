"""Settings of both ends (RFC 9113 section 6.5.2), and what is allowed to the peer besides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lbproxy.compiling import i64
from lbproxy.protocol.h2.codes import (
    DEFAULT_TABLE_SIZE,
    DEFAULT_WINDOW,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    FLOW_CONTROL_ERROR,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    MAX_WINDOW,
    MIN_FRAME_SIZE,
    NO_ERROR,
    PROTOCOL_ERROR,
    SETTING_MAX_FRAME_SIZE,
)

UNLIMITED: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """What this end says, and the bounds that it keeps.

    streams: of the peer at once; more are refused. head_bytes, headers: of a head or of trailers, octets as HTTP/1
    counts them, and fields, cookie crumbs one by one. stream_window, connection_window: octets of bodies that may be on
    their way or wait, per stream and in all, 65,535 or more. websocket: extended CONNECT is accepted (RFC 8441).
    resets: how many streams the peer may open and reset, or make this end reset, before their answer, and
    control_frames: how many frames that ask for no work, each in a period of so many seconds; 0: any number.
    """

    streams: int = 100
    head_bytes: int = 32 * 1024
    headers: int = 100
    stream_window: int = 256 * 1024
    connection_window: int = 1024 * 1024
    websocket: bool = False
    resets: int = 100
    resets_period_s: float = 10.0
    control_frames: int = 1000
    control_frames_period_s: float = 10.0


def settings_of(own: OwnSettings, is_server: bool) -> list[tuple[int, int]]:
    """Identifiers and values of our SETTINGS frame."""
    values = [(INITIAL_WINDOW_SIZE, own.stream_window), (MAX_HEADER_LIST_SIZE, own.head_bytes)]
    if is_server:
        values.append((MAX_CONCURRENT_STREAMS, own.streams))
        if own.websocket:
            values.append((ENABLE_CONNECT_PROTOCOL, 1))
    else:
        values.append((ENABLE_PUSH, 0))
    return values


class PeerSettings:
    """What the peer has said last. is_known: it has said something."""

    __slots__ = (
        "enable_connect_protocol",
        "header_table_size",
        "initial_window",
        "is_known",
        "max_concurrent_streams",
        "max_frame_size",
        "max_header_list_size",
    )

    def __init__(self) -> None:
        self.is_known = False
        self.header_table_size = DEFAULT_TABLE_SIZE
        self.max_concurrent_streams = UNLIMITED
        self.initial_window: i64 = DEFAULT_WINDOW
        self.max_frame_size: i64 = MIN_FRAME_SIZE
        self.max_header_list_size = UNLIMITED
        self.enable_connect_protocol = False

    def set(self, identifier: int, value: int, is_from_server: bool) -> int:
        """Take one over. The error code if it is not allowed (section 6.5.2), else NO_ERROR; unknown ones pass."""
        if identifier == INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                return FLOW_CONTROL_ERROR
            self.initial_window = value
        elif identifier == HEADER_TABLE_SIZE:
            self.header_table_size = value
        elif identifier == MAX_CONCURRENT_STREAMS:
            self.max_concurrent_streams = value
        elif identifier == SETTING_MAX_FRAME_SIZE:
            if not MIN_FRAME_SIZE <= value <= MAX_FRAME_SIZE:
                return PROTOCOL_ERROR
            self.max_frame_size = value
        elif identifier == MAX_HEADER_LIST_SIZE:
            self.max_header_list_size = value
        elif identifier == ENABLE_PUSH:
            if value > 1 or (value and is_from_server):
                return PROTOCOL_ERROR
        elif identifier == ENABLE_CONNECT_PROTOCOL:
            # RFC 8441 section 3: 0 or 1, and never 0 after 1.
            if value > 1 or (not value and self.enable_connect_protocol):
                return PROTOCOL_ERROR
            self.enable_connect_protocol = value == 1
        return NO_ERROR
