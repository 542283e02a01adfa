"""Frames that a peer may, or may not, send on a connection of HTTP/2, and what has to come of them: cases of a table.

A case is played on a connection that has another request under way (`BYSTANDER`), which must not notice unless the
connection itself ends. Its own stream is `STREAM`. What RFC 9113 says of either end is in `shared`, the rest in
h2_cases_of_clients.py and h2_cases_of_servers.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lbproxy.protocol.h2.codes import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from tests.support.h2_ends import Pairs, block, frame

BYSTANDER: Final = 1
STREAM: Final = 3
IDLE: Final = 99
UNKNOWN_KIND: Final = 0x2A
ENDS: Final = "ends"
RESETS: Final = "resets"
ANSWERS: Final = "answers"
GOES_ON: Final = "goes on"
CLOSES: Final = "closes"
CUT: Final = "cut"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has to come of a case.

    kind: ENDS: GOAWAY with one of `codes`, and the end of the connection. RESETS: RST_STREAM with one of `codes` on
    `stream`. ANSWERS: an answer with the status `codes[0]`. GOES_ON: nothing. CLOSES: the end of the connection, with
    or without words. CUT: the answer that has begun ends, and does not look as if it were whole; with codes,
    RST_STREAM with one of them, too.
    """

    kind: str
    codes: tuple[int, ...] = ()
    stream: int = STREAM


@dataclass(frozen=True, slots=True)
class Case:
    """section: of RFC 9113, or 7541- and one of that. steps: octets to send, or the stream whose end is waited for.

    is_raw: nothing was sent on the connection before. reaches: how many whole messages the other side of lbproxy sees.
    also: a stream that may be reset besides. listener: of lbproxy, by its name.
    """

    section: str
    name: str
    steps: tuple[bytes | int, ...]
    want: Outcome
    is_raw: bool = False
    reaches: int = 0
    also: int = 0
    listener: str = "plain"

    @property
    def ident(self) -> str:
        """As pytest shows it."""
        return f"{self.section}-{self.name.replace(' ', '_')}"


def ends(*codes: int) -> Outcome:
    return Outcome(ENDS, codes)


def resets(*codes: int, stream: int = STREAM) -> Outcome:
    return Outcome(RESETS, codes, stream)


def answers(status: int, stream: int = STREAM) -> Outcome:
    return Outcome(ANSWERS, (status,), stream)


ON: Final = Outcome(GOES_ON)


def settings(*values: tuple[int, int], flags: int = 0) -> bytes:
    body = b"".join(number.to_bytes(2, "big") + value.to_bytes(4, "big") for number, value in values)
    return frame(SETTINGS, flags, 0, body)


def u32(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


def padded_headers(stream_id: int, fields: Pairs, padding: int, *, flags: int = 0) -> bytes:
    body = bytes([padding]) + block(fields) + bytes(padding)
    return frame(HEADERS, END_HEADERS | PADDED | flags, stream_id, body)


def shared(head: bytes, *, is_from_client: bool) -> Iterator[Case]:
    """What either end must not send, and what it may. head: the block of a sound head for STREAM.

    STREAM is not open before (client) or waits for its head (server), so sound frames on it come first where needed.
    """

    def case(section: str, name: str, want: Outcome, *steps: bytes | int) -> Case:
        return Case(section, name, steps, want)

    opened = frame(HEADERS, END_HEADERS, STREAM, head)
    size, protocol = ends(FRAME_SIZE_ERROR), ends(PROTOCOL_ERROR)

    # 4.1, 5.5: what is not known is ignored
    for kind in (0x0A, 0x10, UNKNOWN_KIND, 0xFF):
        yield case("4.1", f"unknown type {kind:#x} on the connection", ON, frame(kind, 0xFF, 0, b"whatever"))
    yield case("5.5", "unknown type on a stream", ON, frame(UNKNOWN_KIND, 0, BYSTANDER, b"whatever"))
    yield case("5.5", "unknown type on an idle stream", ON, frame(UNKNOWN_KIND, 0, IDLE, b""))
    yield case(
        "5.5",
        "unknown type within a field block",
        protocol,
        frame(HEADERS, 0, STREAM, head),
        frame(UNKNOWN_KIND, 0, 0, b"x"),
    )
    yield case("4.1", "unknown flags of SETTINGS", ON, settings(flags=0xFE))
    yield case("4.1", "unknown flags of PING", ON, frame(PING, 0xFE, 0, b"12345678"))
    yield case("4.1", "unknown flags of WINDOW_UPDATE", ON, frame(WINDOW_UPDATE, 0xFF, 0, u32(100)))
    yield case("4.1", "unknown flags of PRIORITY", ON, frame(PRIORITY, 0xFF, BYSTANDER, u32(0) + b"\x10"))
    reserved = 0x80000000
    yield case("4.1", "reserved bit of PING", ON, frame(PING, 0, reserved, b"12345678"))
    yield case("4.1", "reserved bit of SETTINGS", ON, frame(SETTINGS, 0, reserved))
    yield case("4.1", "reserved bit of WINDOW_UPDATE", ON, frame(WINDOW_UPDATE, 0, reserved, u32(reserved | 100)))

    # 4.2
    for kind, on in ((DATA, BYSTANDER), (HEADERS, STREAM), (UNKNOWN_KIND, 0), (SETTINGS, 0), (CONTINUATION, STREAM)):
        yield case(
            "4.2", f"frame of type {kind:#x} above SETTINGS_MAX_FRAME_SIZE", size, frame(kind, 0, on, bytes(16_385))
        )
    yield case("4.2", "frame of an unknown type as large as allowed", ON, frame(UNKNOWN_KIND, 0, 0, bytes(16_384)))
    yield case("4.2", "length of 2^24-1", size, b"\xff\xff\xff" + bytes([UNKNOWN_KIND, 0]) + u32(0))

    # 5.1: idle, and what may never be
    yield case("5.1", "DATA on an idle stream", protocol, frame(DATA, 0, IDLE, b"x"))
    yield case("5.1", "RST_STREAM on an idle stream", protocol, frame(RST_STREAM, 0, IDLE, u32(8)))
    yield case("5.1", "WINDOW_UPDATE on an idle stream", protocol, frame(WINDOW_UPDATE, 0, IDLE, u32(1)))
    yield case("5.1", "PRIORITY on an idle stream", ON, frame(PRIORITY, 0, IDLE, u32(0) + b"\x10"))
    yield case("5.1.1", "HEADERS on stream 2", protocol, frame(HEADERS, END_HEADERS, 2, head))
    yield case("5.1.1", "DATA on stream 2", protocol, frame(DATA, 0, 2, b"x"))

    # 6.1
    yield case("6.1", "DATA on stream 0", protocol, frame(DATA, 0, 0, b"x"))
    yield case("6.1", "padding as long as the frame", protocol, opened, frame(DATA, PADDED, STREAM, b"\x05abcd"))
    yield case("6.1", "padding longer than the frame", protocol, opened, frame(DATA, PADDED, STREAM, b"\xffabcd"))
    yield case("6.1", "PADDED without a length", size, opened, frame(DATA, PADDED, STREAM))
    yield case("6.1", "padding longer than an empty body", protocol, opened, frame(DATA, PADDED, STREAM, b"\x01"))

    # 6.2
    yield case("6.2", "HEADERS on stream 0", protocol, frame(HEADERS, END_HEADERS, 0, head))
    yield case(
        "6.2", "padding longer than the frame", protocol, frame(HEADERS, END_HEADERS | PADDED, STREAM, b"\xff" + head)
    )
    yield case("6.2", "PADDED without a length", size, frame(HEADERS, END_HEADERS | PADDED, STREAM))
    yield case("6.2", "too short for its priority", size, frame(HEADERS, END_HEADERS | HAS_PRIORITY, STREAM, b"abc"))
    yield case(
        "6.2",
        "too short for padding and priority",
        size,
        frame(HEADERS, END_HEADERS | HAS_PRIORITY | PADDED, STREAM, b"\x00abcd"),
    )

    # 6.3
    yield case("6.3", "PRIORITY on stream 0", protocol, frame(PRIORITY, 0, 0, u32(0) + b"\x10"))
    for length in (0, 4, 6):
        yield case(
            "6.3",
            f"PRIORITY of {length} octets",
            Outcome(RESETS, (FRAME_SIZE_ERROR,), BYSTANDER),
            frame(PRIORITY, 0, BYSTANDER, bytes(length)),
        )
    yield case("6.3", "PRIORITY on an open stream", ON, frame(PRIORITY, 0, BYSTANDER, u32(0x80000000) + b"\xff"))
    yield case("5.3.2", "PRIORITY that depends on itself", ON, frame(PRIORITY, 0, BYSTANDER, u32(BYSTANDER) + b"\x10"))

    # 6.4
    yield case("6.4", "RST_STREAM on stream 0", protocol, frame(RST_STREAM, 0, 0, u32(8)))
    for length in (0, 3, 5):
        yield case("6.4", f"RST_STREAM of {length} octets", size, opened, frame(RST_STREAM, 0, STREAM, bytes(length)))

    # 6.5
    yield case("6.5", "SETTINGS on a stream", protocol, frame(SETTINGS, 0, BYSTANDER))
    yield case("6.5", "SETTINGS ACK on a stream", protocol, frame(SETTINGS, ACK, BYSTANDER))
    yield case("6.5", "SETTINGS ACK with a payload", size, settings((1, 4096), flags=ACK))
    for length in (1, 5, 7):
        yield case("6.5", f"SETTINGS of {length} octets", size, frame(SETTINGS, 0, 0, bytes(length)))
    yield case("6.5", "an unasked SETTINGS ACK", ON, settings(flags=ACK))
    yield case("6.5.2", "ENABLE_PUSH of 2", protocol, settings((2, 2)))
    yield case("6.5.2", "ENABLE_PUSH of 2^32-1", protocol, settings((2, 0xFFFFFFFF)))
    yield case("6.5.3", "a bad value that a later one mends", protocol, settings((5, 1), (5, 16_384)))
    yield case("6.5.3", "a bad value behind a good one", ends(FLOW_CONTROL_ERROR), settings((4, 1), (4, 1 << 31)))
    yield case("6.5.2", "ENABLE_CONNECT_PROTOCOL of 1 and then 0", protocol, settings((8, 1)), settings((8, 0)))
    yield case("6.5.2", "ENABLE_CONNECT_PROTOCOL of 0", ON, settings((8, 0)))
    yield case("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", ends(FLOW_CONTROL_ERROR), settings((4, 1 << 31)))
    yield case("6.5.2", "INITIAL_WINDOW_SIZE of 2^32-1", ends(FLOW_CONTROL_ERROR), settings((4, 0xFFFFFFFF)))
    for value in (0, 16_383, 1 << 24, 0xFFFFFFFF):
        yield case("6.5.2", f"MAX_FRAME_SIZE of {value}", protocol, settings((5, value)))
    for name, number, value in (
        ("ENABLE_PUSH", 2, 0),
        ("MAX_FRAME_SIZE", 5, 16_384),
        ("MAX_FRAME_SIZE", 5, (1 << 24) - 1),
        ("HEADER_TABLE_SIZE", 1, 0),
        ("HEADER_TABLE_SIZE", 1, 0xFFFFFFFF),
        ("MAX_CONCURRENT_STREAMS", 3, 100),
        ("MAX_HEADER_LIST_SIZE", 6, 0xFFFFFFFF),
        ("INITIAL_WINDOW_SIZE", 4, 65_536),
    ):
        yield case("6.5.2", f"{name} of {value}", ON, settings((number, value)))
    yield case("6.5.2", "a setting that nobody knows", ON, settings((0xFF00, 0xFFFFFFFF), (0, 0)))
    yield case("6.5.3", "the last of equal settings holds", ON, settings((4, 0), (4, 65_535)))

    # 6.6, 8.4
    promise = frame(PUSH_PROMISE, END_HEADERS, BYSTANDER, u32(4) + head)
    yield case("6.6", "PUSH_PROMISE", protocol, promise)
    yield case("6.6", "PUSH_PROMISE on stream 0", protocol, frame(PUSH_PROMISE, END_HEADERS, 0, u32(4) + head))
    yield case("6.6", "PUSH_PROMISE on an idle stream", protocol, frame(PUSH_PROMISE, END_HEADERS, IDLE, u32(4) + head))
    yield case("8.4", "a push is refused" if not is_from_client else "a client that pushes", protocol, promise)

    # 6.7
    yield case("6.7", "PING on a stream", protocol, frame(PING, 0, BYSTANDER, bytes(8)))
    for length in (0, 7, 9):
        yield case("6.7", f"PING of {length} octets", size, frame(PING, 0, 0, bytes(length)))
        yield case("6.7", f"PING ACK of {length} octets", size, frame(PING, ACK, 0, bytes(length)))
    yield case("6.7", "an unasked PING ACK", ON, frame(PING, ACK, 0, b"nobody's"))

    # 6.8
    yield case("6.8", "GOAWAY on a stream", protocol, frame(GOAWAY, 0, BYSTANDER, u32(0, 0)))
    for length in (0, 7):
        yield case("6.8", f"GOAWAY of {length} octets", size, frame(GOAWAY, 0, 0, bytes(length)))

    # 6.9
    for length in (0, 3, 5):
        yield case("6.9", f"WINDOW_UPDATE of {length} octets", size, frame(WINDOW_UPDATE, 0, 0, bytes(length)))
        yield case(
            "6.9",
            f"WINDOW_UPDATE of {length} octets on a stream",
            size,
            frame(WINDOW_UPDATE, 0, BYSTANDER, bytes(length)),
        )
    yield case("6.9", "WINDOW_UPDATE by 0", protocol, frame(WINDOW_UPDATE, 0, 0, u32(0)))
    yield case("6.9", "WINDOW_UPDATE by 0 with the reserved bit", protocol, frame(WINDOW_UPDATE, 0, 0, u32(0x80000000)))
    yield case(
        "6.9", "WINDOW_UPDATE by 0 on a stream", resets(PROTOCOL_ERROR), opened, frame(WINDOW_UPDATE, 0, STREAM, u32(0))
    )
    yield case(
        "6.9.1",
        "window of the connection above 2^31-1",
        ends(FLOW_CONTROL_ERROR),
        frame(WINDOW_UPDATE, 0, 0, u32(0x7FFFFFFF)),
    )
    yield case(
        "6.9.1",
        "window of the connection above 2^31-1 in two steps",
        ends(FLOW_CONTROL_ERROR),
        frame(WINDOW_UPDATE, 0, 0, u32(0x7FFF0000)),
        frame(WINDOW_UPDATE, 0, 0, u32(0x10000)),
    )
    yield case(
        "6.9.1",
        "window of a stream above 2^31-1",
        resets(FLOW_CONTROL_ERROR),
        opened,
        frame(WINDOW_UPDATE, 0, STREAM, u32(0x7FFFFFFF)),
    )
    yield case(
        "6.9.2",
        "INITIAL_WINDOW_SIZE makes a window too large",
        ends(FLOW_CONTROL_ERROR),
        frame(WINDOW_UPDATE, 0, BYSTANDER, u32(0x7FFF0000)),
        settings((4, 0x7FFFFFFF)),
    )

    # 6.10, 4.3
    begun = frame(HEADERS, 0, STREAM, head[:4])
    yield case("6.10", "CONTINUATION without HEADERS", protocol, frame(CONTINUATION, END_HEADERS, STREAM, head))
    yield case(
        "6.10", "CONTINUATION behind END_HEADERS", protocol, opened, frame(CONTINUATION, END_HEADERS, STREAM, head)
    )
    yield case("6.10", "CONTINUATION on stream 0", protocol, begun, frame(CONTINUATION, END_HEADERS, 0, head[4:]))
    yield case(
        "6.10", "CONTINUATION of another stream", protocol, begun, frame(CONTINUATION, END_HEADERS, BYSTANDER, head[4:])
    )
    for kind, what, on, body in (
        (DATA, "DATA", STREAM, b"x"),
        (DATA, "DATA of another stream", BYSTANDER, b"x"),
        (HEADERS, "HEADERS", STREAM, head),
        (PRIORITY, "PRIORITY", STREAM, u32(0) + b"\x10"),
        (RST_STREAM, "RST_STREAM", STREAM, u32(8)),
        (SETTINGS, "SETTINGS", 0, b""),
        (PING, "PING", 0, bytes(8)),
        (GOAWAY, "GOAWAY", 0, u32(0, 0)),
        (WINDOW_UPDATE, "WINDOW_UPDATE", 0, u32(1)),
    ):
        yield case("6.10", f"{what} within a field block", protocol, begun, frame(kind, 0, on, body))

    # RFC 7541
    yield from bad_blocks()


def bad_blocks() -> Iterator[Case]:
    """Blocks that cannot be decoded (RFC 7541): the connection ends (RFC 9113 section 4.3)."""
    text = b"\x00\x01a"  # a literal field with the name `a`, whose value follows
    for section, name, octets in (
        ("2.3.3", "index just beyond the table", b"\xbe"),
        ("2.3.3", "index far beyond the table", b"\xff\x80\x01"),
        ("2.3.3", "name by an index beyond the table", b"\x7f\x00\x01a"),
        ("4.2", "table size above the limit", b"\x3f\xe2\x1f"),
        ("4.2", "table size of 2^31", b"\x3f\xe1\xff\xff\xff\x07"),
        ("4.2", "table size behind a field", text + b"\x01a" + b"\x20"),
        ("5.1", "integer of too many octets", b"\xff" + b"\xff" * 10 + b"\x01"),
        ("5.1", "integer of too many octets that are 0", b"\xff" + b"\x80" * 10 + b"\x00"),
        ("5.1", "integer that is cut", b"\xff\x80"),
        ("5.1", "nothing behind an integer's first octet", b"\xff"),
        ("5.2", "string longer than its block", text + b"\x7eabc"),
        ("5.2", "string without its length", text),
        ("5.2", "Huffman padding of 8 bits", text + b"\x82\x1f\xff"),
        ("5.2", "Huffman padding of zeros", text + b"\x81\x18"),
        ("5.2", "Huffman code of EOS", text + b"\x84\xff\xff\xff\xff"),
        ("5.2", "Huffman padding alone", text + b"\x81\xff"),
        ("5.2", "Huffman name with bad padding", b"\x00\x82\x1f\xff\x01a"),
        ("6.1", "index 0", b"\x80"),
        ("6.2.1", "literal to be indexed that is cut", b"\x40\x01a"),
        ("6.2.2", "literal without an index that is cut", b"\x00\x01a\x05ab"),
        ("6.2.3", "literal never indexed that is cut", b"\x10\x01"),
    ):
        yield Case(
            f"7541-{section}",
            name,
            (frame(HEADERS, END_HEADERS | END_STREAM, STREAM, octets),),
            ends(COMPRESSION_ERROR),
        )
