"""What a server of HTTP/2 may send and may not: see h2_cases.py. STREAM is a GET that waits for its answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lbproxy.protocol.h2.codes import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    RST_STREAM,
    STREAM_CLOSED,
    WINDOW_UPDATE,
)
from tests.support.h2_cases import (
    ANSWERS,
    CUT,
    IDLE,
    ON,
    STREAM,
    Case,
    Outcome,
    answers,
    ends,
    padded_headers,
    resets,
    settings,
    shared,
    u32,
)
from tests.support.h2_ends import block, frame, headers

STATUS: Final = (b":status", b"200")
OK: Final = (STATUS, (b"x-case", b"yes"))
MALFORMED: Final = resets(PROTOCOL_ERROR)
END: Final = frame(DATA, END_STREAM, STREAM, b"body")
FINE: Final = answers(200)


def cases() -> list[Case]:
    """All of them."""
    return [*shared(block(OK), is_from_client=False), *_beginnings(), *_frames(), *_messages(), *_fields()]


def _case(section: str, name: str, want: Outcome, *steps: bytes) -> Case:
    return Case(section, name, steps, want)


def _beginnings() -> Iterator[Case]:
    """Section 3.4."""
    for name, octets in (
        ("PING", frame(PING, 0, 0, bytes(8))),
        ("SETTINGS ACK", settings(flags=ACK)),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, u32(1))),
        ("an answer", headers(1, OK, is_end=True)),
        ("GOAWAY", frame(GOAWAY, 0, 0, u32(0, 0))),
        ("an unknown frame", frame(0x2A, 0, 0, b"x")),
        ("an answer of HTTP/1.1", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        ("an answer of HTTP/1.0", b"HTTP/1.0 505 Not that\r\n\r\n"),
    ):
        yield Case("3.4", f"{name} before SETTINGS", (octets,), ends(PROTOCOL_ERROR), is_raw=True)
    yield Case("3.4", "an answer right behind SETTINGS", (settings() + headers(1, OK, is_end=True),), FINE, is_raw=True)


def _frames() -> Iterator[Case]:
    head = block(OK)
    opened = headers(STREAM, OK)
    protocol = ends(PROTOCOL_ERROR)
    whole = opened + END

    yield _case("4.1", "unknown flags of HEADERS", FINE, frame(HEADERS, END_HEADERS | END_STREAM | 0x42, STREAM, head))
    yield _case("4.1", "unknown flags of DATA", FINE, opened, frame(DATA, END_STREAM | 0xF2, STREAM, b"body"))
    yield _case("4.2", "DATA as large as allowed", FINE, opened, frame(DATA, END_STREAM, STREAM, bytes(16_384)))
    yield _case(
        "4.1",
        "reserved bit of HEADERS and DATA",
        FINE,
        frame(HEADERS, END_HEADERS, 0x80000000 | STREAM, head),
        frame(DATA, END_STREAM, 0x80000000 | STREAM, b"body"),
    )

    # 5.1
    yield _case("5.1", "an answer on a stream that was not opened", protocol, headers(IDLE, OK, is_end=True))
    yield _case("5.1", "DATA before an answer's head", resets(PROTOCOL_ERROR), END)
    yield _case("5.1", "empty DATA before an answer's head", resets(PROTOCOL_ERROR), frame(DATA, END_STREAM, STREAM))
    yield _case("5.1", "DATA behind an answer", ends(STREAM_CLOSED), whole, frame(DATA, 0, STREAM, b"more"))
    yield _case("5.1", "an answer behind an answer", ends(STREAM_CLOSED), whole, headers(STREAM, OK, is_end=True))
    yield _case("5.1", "RST_STREAM behind an answer", FINE, whole, frame(RST_STREAM, 0, STREAM, u32(0)))
    yield _case("5.1", "WINDOW_UPDATE behind an answer", FINE, whole, frame(WINDOW_UPDATE, 0, STREAM, u32(9)))
    yield _case("5.1", "PRIORITY behind an answer", FINE, whole, frame(PRIORITY, 0, STREAM, u32(0) + b"\x01"))
    gone = frame(RST_STREAM, 0, STREAM, u32(2))
    yield _case("6.4", "RST_STREAM instead of an answer", answers(502), gone)
    yield _case("6.4", "RST_STREAM within an answer", Outcome(CUT), opened, gone)
    yield _case(
        "7", "RST_STREAM with a code that nobody knows", answers(502), frame(RST_STREAM, 0, STREAM, u32(0xDEADBEEF))
    )
    yield _case("5.1", "DATA on a stream that the server has reset", ends(STREAM_CLOSED), gone, END)
    yield _case("5.1", "an answer on a stream that the server has reset", ends(STREAM_CLOSED), gone, opened)
    yield _case(
        "5.4.2", "frames on a stream that lbproxy has reset", resets(PROTOCOL_ERROR), headers(STREAM, []), opened, END
    )

    # 6
    yield _case("6.1", "padded DATA", FINE, opened, frame(DATA, PADDED | END_STREAM, STREAM, b"\x03body" + bytes(3)))
    yield _case(
        "6.1", "DATA that is padding alone", FINE, opened, frame(DATA, PADDED, STREAM, b"\xff" + bytes(255)), END
    )
    yield _case("6.1", "empty DATA that ends the stream", FINE, opened, frame(DATA, END_STREAM, STREAM))
    yield _case("6.1", "empty DATA in between", FINE, opened, frame(DATA, 0, STREAM), END)
    yield _case(
        "6.1", "padding that is not zero", FINE, opened, frame(DATA, PADDED | END_STREAM, STREAM, b"\x03bodyabc")
    )
    yield _case(
        "6.2", "HEADERS that are padding alone", MALFORMED, frame(HEADERS, END_HEADERS | PADDED, STREAM, b"\x02ab")
    )
    yield _case("6.2", "padded HEADERS", FINE, padded_headers(STREAM, OK, 99, flags=END_STREAM))
    yield _case(
        "6.2",
        "HEADERS with a priority",
        FINE,
        frame(HEADERS, END_HEADERS | END_STREAM | HAS_PRIORITY, STREAM, u32(1) + b"\xff" + head),
    )
    yield _case("6.5.2", "ENABLE_PUSH of 1 by a server", protocol, settings((2, 1)))
    yield _case("6.5.2", "ENABLE_CONNECT_PROTOCOL of 2", protocol, settings((8, 2)))
    yield _case("6.5.2", "MAX_CONCURRENT_STREAMS of 0 and back", ON, settings((3, 0)), settings((3, 100)))
    yield _case("6.5.3", "SETTINGS between an answer's frames", FINE, opened, settings((4, 100)), settings((1, 0)), END)
    yield _case(
        "6.10",
        "a head in several CONTINUATION",
        FINE,
        frame(HEADERS, END_STREAM, STREAM, head[:5]),
        frame(CONTINUATION, 0, STREAM, head[5:9]),
        frame(CONTINUATION, END_HEADERS, STREAM, head[9:]),
    )
    yield _case(
        "6.10",
        "empty HEADERS and all in CONTINUATION",
        FINE,
        frame(HEADERS, END_STREAM, STREAM),
        frame(CONTINUATION, END_HEADERS, STREAM, head),
    )
    yield _case(
        "6.10",
        "CONTINUATION that do not end",
        ends(11),
        frame(HEADERS, END_STREAM, STREAM, head),
        *[frame(CONTINUATION, 0, STREAM)] * 20,
    )

    # RFC 7541
    stored = b"\x40\x06x-case\x05value"
    yield _case(
        "7541-2.3.3",
        "an index of the table",
        FINE,
        frame(HEADERS, END_HEADERS, STREAM, block([STATUS]) + stored),
        frame(HEADERS, END_HEADERS | END_STREAM, STREAM, b"\xbe"),
    )
    yield _case(
        "7541-4.2",
        "an entry that was evicted",
        ends(COMPRESSION_ERROR),
        frame(HEADERS, END_HEADERS, STREAM, block([STATUS]) + stored),
        frame(HEADERS, END_HEADERS | END_STREAM, STREAM, b"\x20\xbe"),
    )
    yield _case(
        "7541-4.4",
        "an entry larger than the table empties it",
        ends(COMPRESSION_ERROR),
        frame(HEADERS, END_HEADERS, STREAM, block([STATUS]) + stored),
        frame(HEADERS, END_HEADERS | END_STREAM, STREAM, b"\x40\x01a\x7f\x81\x1f" + b"x" * 4096 + b"\xbe"),
    )
    yield _case(
        "4.3",
        "the table has what a malformed answer brought",
        ends(COMPRESSION_ERROR),
        frame(HEADERS, END_HEADERS, STREAM, stored),
        frame(HEADERS, END_HEADERS, STREAM, b"\xbe"),
        frame(HEADERS, END_HEADERS, STREAM, b"\xbf"),
    )


def _messages() -> Iterator[Case]:
    """Section 8.1."""
    opened = headers(STREAM, OK)
    body = frame(DATA, 0, STREAM, b"body")

    def sized(length: bytes) -> bytes:
        return headers(STREAM, [*OK, (b"content-length", length)])

    for status in (b"100", b"102", b"103"):
        interim = headers(STREAM, [(b":status", status), (b"link", b"</a>")])
        yield _case("8.1", f"{status.decode()} and the answer", FINE, interim, opened, END)
        yield _case(
            "8.1",
            f"{status.decode()} that ends the stream",
            MALFORMED,
            headers(STREAM, [(b":status", status)], is_end=True),
        )
        yield _case("8.1", f"DATA behind {status.decode()}", MALFORMED, interim, END)
    yield _case("8.1", "trailers", FINE, opened, body, headers(STREAM, [(b"x-a", b"b")], is_end=True))
    yield _case("8.1", "trailers without a body", FINE, opened, headers(STREAM, [(b"x-a", b"b")], is_end=True))
    yield _case("8.1", "an answer without a body", FINE, headers(STREAM, OK, is_end=True))
    cut = Outcome(CUT, (PROTOCOL_ERROR,))
    for name, fields in (
        ("a pseudo-field", [(b":path", b"/")]),
        (":status", [STATUS]),
        ("upper case", [(b"X-Upper", b"x")]),
        ("connection", [(b"connection", b"close")]),
        ("a line break", [(b"x-a", b"b\r\nc: d")]),
    ):
        yield _case("8.1", f"trailers with {name}", cut, opened, body, headers(STREAM, fields, is_end=True))
    yield _case("8.1", "trailers that do not end the stream", cut, opened, body, headers(STREAM, [(b"x-a", b"b")]))
    yield _case("8.1", "a second head", cut, opened, headers(STREAM, OK))
    yield _case(
        "8.1", "DATA behind trailers", ends(STREAM_CLOSED), opened, headers(STREAM, [(b"x-a", b"b")], is_end=True), body
    )
    yield _case("8.1.1", "content-length that is right", FINE, sized(b"4"), END)
    yield _case(
        "8.1.1",
        "content-length twice the same",
        FINE,
        headers(STREAM, [*OK, (b"content-length", b"4"), (b"content-length", b"4")]),
        END,
    )
    yield _case("8.1.1", "content-length longer than the body", cut, sized(b"5"), END)
    yield _case("8.1.1", "content-length shorter than the body", cut, sized(b"3"), END)
    yield _case("8.1.1", "content-length longer than the body in two frames", cut, sized(b"9"), body, END)
    yield _case(
        "8.1.1",
        "content-length and trailers before its end",
        cut,
        sized(b"5"),
        body,
        headers(STREAM, [(b"x-a", b"b")], is_end=True),
    )
    yield _case(
        "8.1.1", "content-length and no body", MALFORMED, headers(STREAM, [*OK, (b"content-length", b"4")], is_end=True)
    )
    for name, value in (
        ("no number", b"abc"),
        ("negative", b"-1"),
        ("signed", b"+4"),
        ("empty", b""),
        ("of 30 digits", b"1" * 30),
    ):
        yield _case("8.1.1", f"content-length {name}", MALFORMED, sized(value), END)
    yield _case(
        "8.1.1",
        "content-length of two values",
        MALFORMED,
        headers(STREAM, [*OK, (b"content-length", b"4"), (b"content-length", b"5")]),
        END,
    )
    yield _case(
        "8.1.1",
        "304 with a content-length",
        Outcome(ANSWERS, (304,)),
        headers(STREAM, [(b":status", b"304"), (b"content-length", b"400")], is_end=True),
    )
    yield _case(
        "8.1.1", "204 without a body", Outcome(ANSWERS, (204,)), headers(STREAM, [(b":status", b"204")], is_end=True)
    )


def _fields() -> Iterator[Case]:
    """Sections 8.2 and 8.3.2."""

    def sent(*fields: tuple[bytes, bytes]) -> bytes:
        return headers(STREAM, fields, is_end=True)

    def plus(name: bytes, value: bytes) -> bytes:
        return sent(*OK, (name, value))

    for octet in (*range(0x21), *b'"(),/;<=>?@[\\]{}', 0x41, 0x5A, 0x7F, 0x80, 0xFF):
        yield _case("8.2.1", f"{octet:#04x} in a name", MALFORMED, plus(b"x-%c-x" % octet, b"v"))
    for what, octets in (("NUL", b"\0"), ("CR", b"\r"), ("LF", b"\n"), ("CR LF", b"\r\n")):
        for place, pattern in (("at the beginning", b"%bv"), ("within", b"a%bv"), ("at the end", b"v%b")):
            yield _case("8.2.1", f"{what} {place} of a value", MALFORMED, plus(b"x-a", pattern % octets))
    for what, octets in (("SP", b" "), ("HTAB", b"\t")):
        for place, pattern in (("at the beginning", b"%bv"), ("at the end", b"v%b")):
            yield _case("8.2.1", f"{what} {place} of a value", MALFORMED, plus(b"x-a", pattern % octets))
    yield _case("8.2.1", "an answer within a value", MALFORMED, plus(b"x-a", b"b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"))
    yield _case("8.2.1", "an empty name", MALFORMED, plus(b"", b"x"))
    yield _case("8.2.1", "an empty value", FINE, plus(b"x-a", b""))
    yield _case("8.2.1", "octets above ASCII in a value", FINE, plus(b"x-a", b"caf\xc3\xa9"))
    for name, value in (
        (b"connection", b"close"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"websocket"),
    ):
        yield _case("8.2.2", f"{name.decode()}: {value.decode()}", MALFORMED, plus(name, value))
    yield _case("8.3.2", "no :status", MALFORMED, sent((b"x-a", b"b")))
    yield _case("8.3.2", "no field at all", MALFORMED, sent())
    yield _case("8.3.2", ":status twice", MALFORMED, sent(STATUS, STATUS))
    yield _case("8.3", ":status behind a field", MALFORMED, sent((b"x-a", b"b"), STATUS))
    for value in (b"", b"20", b"2000", b"abc", b"2 0", b"+20", b"000", b"099", b"600", b"999", b"200 OK", b"200\r\n"):
        yield _case("8.3.2", f":status {value!r}", MALFORMED, sent((b":status", value)))
    for name in (b":method", b":path", b":scheme", b":authority", b":protocol", b":unknown", b":"):
        yield _case("8.3", f"{name.decode()} in an answer", MALFORMED, sent(STATUS, (name, b"/")))
    yield _case("8.6", "101", MALFORMED, sent((b":status", b"101")))
    yield _case("8.6", "101 with upgrade", MALFORMED, sent((b":status", b"101"), (b"upgrade", b"websocket")))
