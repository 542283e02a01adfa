"""What a client of HTTP/2 may send and may not: see h2_cases.py. Requests are for /case; those for /held wait."""

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
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
)
from tests.support.h2_cases import (
    CLOSES,
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
from tests.support.h2_cases_of_heads import AUTHORITY, GET, MALFORMED, METHOD, POST, SCHEME, case, heads, names, values
from tests.support.h2_ends import block, frame, headers

HELD: Final = (METHOD, SCHEME, AUTHORITY, (b":path", b"/held"))
CLOSED: Final = ends(STREAM_CLOSED)


def cases() -> list[Case]:
    """All of them."""
    return [
        *shared(block(POST), is_from_client=True),
        *_beginnings(),
        *_frames(),
        *_messages(),
        *names(),
        *values(),
        *heads(),
    ]


def _beginnings() -> Iterator[Case]:
    """Section 3.4."""

    def first(name: str, want: Outcome, *steps: bytes | int, listener: str = "plain", reaches: int = 0) -> Case:
        return Case("3.4", name, steps, want, is_raw=True, listener=listener, reaches=reaches)

    for listener in ("plain", "only"):
        for name, octets in (
            ("preface with another end", PREFACE[:-6] + b"XX\r\n\r\n"),
            ("preface without its last octet", PREFACE[:-1] + b"x"),
            ("HTTP/1.0 in the preface", b"PRI * HTTP/1.0\r\n\r\nSM\r\n\r\n"),
            ("preface twice", PREFACE + PREFACE),
        ):
            yield first(f"{name} at {listener}", Outcome(CLOSES), octets + settings(), listener=listener)
    for name, octets in (
        ("PING", frame(PING, 0, 0, bytes(8))),
        ("HEADERS", headers(1, POST)),
        ("SETTINGS ACK", settings(flags=ACK)),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, u32(1))),
        ("PRIORITY", frame(PRIORITY, 0, 1, u32(0) + b"\x10")),
        ("GOAWAY", frame(GOAWAY, 0, 0, u32(0, 0))),
        ("DATA", frame(DATA, 0, 1, b"x")),
        ("an unknown frame", frame(0x2A, 0, 0, b"x")),
    ):
        yield first(f"{name} before SETTINGS", ends(PROTOCOL_ERROR), PREFACE + octets)
    all_at_once = PREFACE + settings() + headers(STREAM, GET, is_end=True)
    yield first("a request at once, before anything was heard", answers(200), all_at_once, reaches=1)
    yield first("SETTINGS of many values", ON, PREFACE + settings((1, 4096), (3, 10), (4, 65_535), (5, 16_384)))


def _frames() -> Iterator[Case]:
    head = block(POST)
    opened = headers(STREAM, HELD)
    asked = headers(STREAM, HELD, is_end=True)
    served = (headers(STREAM, GET, is_end=True), STREAM)
    end = frame(DATA, END_STREAM, STREAM, b"body")

    # 4.1
    yield case(
        "4.1",
        "unknown flags of HEADERS",
        answers(200),
        frame(HEADERS, END_HEADERS | END_STREAM | 0x42, STREAM, block(GET)),
        reaches=1,
    )
    yield case(
        "4.1",
        "unknown flags of DATA",
        answers(200),
        headers(STREAM, POST),
        frame(DATA, END_STREAM | 0xF2, STREAM, b"body"),
        reaches=1,
    )
    yield case(
        "4.1",
        "reserved bit of HEADERS",
        answers(200),
        frame(HEADERS, END_HEADERS | END_STREAM, 0x80000000 | STREAM, block(GET)),
        reaches=1,
    )
    yield case("4.1", "unknown flags of RST_STREAM", ON, opened, frame(RST_STREAM, 0xFF, STREAM, u32(8)))
    yield case(
        "4.2",
        "DATA as large as allowed",
        answers(200),
        headers(STREAM, POST),
        frame(DATA, END_STREAM, STREAM, bytes(16_384)),
        reaches=1,
    )

    # 4.3: what is refused is decoded all the same
    stored = b"\x40\x06x-case\x05value"
    bad = frame(HEADERS, END_HEADERS | END_STREAM, STREAM, block(GET) + stored + block([(b"connection", b"close")]))
    index = frame(HEADERS, END_HEADERS | END_STREAM, STREAM + 2, block(GET) + b"\xbe")
    yield case(
        "4.3",
        "the table has what a malformed head brought",
        answers(200, STREAM + 2),
        bad,
        index,
        reaches=1,
        also=STREAM,
    )
    late = frame(HEADERS, END_HEADERS | END_STREAM, STREAM, stored)
    yield case(
        "4.3",
        "the table has what trailers brought that came too late",
        answers(200, STREAM + 2),
        headers(STREAM, GET[1:]),
        late,
        index,
        reaches=1,
        also=STREAM,
    )
    yield case(
        "4.3",
        "trailers that are malformed, and a head behind them",
        answers(200, STREAM + 2),
        headers(STREAM, POST),
        frame(HEADERS, END_HEADERS | END_STREAM, STREAM, stored + block([(b"Upper", b"x")])),
        index,
        reaches=1,
        also=STREAM,
    )

    # 5.1: half-closed, and closed
    yield case("5.1", "DATA behind the end of the stream", resets(STREAM_CLOSED), asked, frame(DATA, 0, STREAM, b"x"))
    yield case(
        "5.1", "HEADERS behind the end of the stream", resets(STREAM_CLOSED), asked, headers(STREAM, GET, is_end=True)
    )
    yield case("5.1", "WINDOW_UPDATE behind the end of the stream", ON, asked, frame(WINDOW_UPDATE, 0, STREAM, u32(9)))
    yield case("5.1", "PRIORITY behind the end of the stream", ON, asked, frame(PRIORITY, 0, STREAM, u32(0) + b"\x01"))
    yield case("5.1", "RST_STREAM behind the end of the stream", ON, asked, frame(RST_STREAM, 0, STREAM, u32(8)))
    yield case(
        "5.1",
        "CONTINUATION behind the end of the stream",
        ends(PROTOCOL_ERROR),
        asked,
        frame(CONTINUATION, END_HEADERS, STREAM, head),
    )
    gone = frame(RST_STREAM, 0, STREAM, u32(8))
    for what, octets, want in (
        ("DATA", frame(DATA, 0, STREAM, b"x"), CLOSED),
        ("HEADERS", late, CLOSED),
        ("RST_STREAM", gone, ON),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, STREAM, u32(9)), ON),
        ("PRIORITY", frame(PRIORITY, 0, STREAM, u32(0) + b"\x01"), ON),
    ):
        yield case("5.1", f"{what} on a stream that the client has reset", want, opened, gone, octets)
        yield case("5.1", f"{what} on a stream that is closed", want, *served, octets, reaches=1)
    yield case(
        "5.1",
        "a frame on a stream that lbproxy has just reset",
        resets(PROTOCOL_ERROR),
        headers(STREAM, GET[1:]),
        frame(DATA, 0, STREAM, b"x"),
        frame(DATA, 0, STREAM, b"y"),
        late,
        frame(RST_STREAM, 0, STREAM, u32(8)),
    )

    # 5.1.1
    yield case(
        "5.1.1",
        "a stream below one that was opened",
        ends(PROTOCOL_ERROR),
        headers(STREAM + 4, HELD),
        headers(STREAM, GET, is_end=True),
    )
    yield case(
        "5.1.1", "streams may be left out", answers(200, 2**31 - 1), headers(2**31 - 1, GET, is_end=True), reaches=1
    )

    skipped = headers(STREAM + 4, HELD)
    for what, octets, want in (
        ("DATA", frame(DATA, 0, STREAM, b"x"), CLOSED),
        ("RST_STREAM", gone, ON),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, STREAM, u32(9)), ON),
        ("PRIORITY", frame(PRIORITY, 0, STREAM, u32(0) + b"\x01"), ON),
    ):
        yield case("5.1.1", f"{what} on a stream that was left out, and so is closed", want, skipped, octets)
    yield case(
        "5.1.1",
        "PRIORITY opens no stream",
        answers(200),
        frame(PRIORITY, 0, IDLE, u32(0) + b"\x01"),
        headers(STREAM, GET, is_end=True),
        reaches=1,
    )

    # 5.1.2
    yield Case(
        "5.1.2",
        "a stream beyond SETTINGS_MAX_CONCURRENT_STREAMS",
        (opened, headers(STREAM + 2, GET, is_end=True)),
        resets(REFUSED_STREAM, stream=STREAM + 2),
        listener="few",
    )
    yield Case(
        "5.1.2",
        "a stream that is reset makes room",
        (opened, gone, headers(STREAM + 2, GET, is_end=True)),
        answers(200, STREAM + 2),
        listener="few",
        reaches=1,
    )

    # 6.1, 6.2
    yield case(
        "6.1",
        "padded DATA",
        answers(200),
        headers(STREAM, POST),
        frame(DATA, PADDED | END_STREAM, STREAM, b"\x03body" + bytes(3)),
        reaches=1,
    )
    yield case(
        "6.1",
        "DATA that is padding alone",
        answers(200),
        headers(STREAM, POST),
        frame(DATA, PADDED, STREAM, b"\xff" + bytes(255)),
        end,
        reaches=1,
    )
    yield case(
        "6.1",
        "empty DATA that ends the stream",
        answers(200),
        headers(STREAM, POST),
        frame(DATA, END_STREAM, STREAM),
        reaches=1,
    )
    yield case(
        "6.1",
        "padding that is not zero",
        answers(200),
        headers(STREAM, POST),
        frame(DATA, PADDED | END_STREAM, STREAM, b"\x03bodyabc"),
        reaches=1,
    )
    yield case(
        "6.2", "HEADERS that are padding alone", MALFORMED, frame(HEADERS, END_HEADERS | PADDED, STREAM, b"\x02ab")
    )
    yield case("6.2", "padded HEADERS", answers(200), padded_headers(STREAM, GET, 200, flags=END_STREAM), reaches=1)
    yield case(
        "6.2",
        "HEADERS with a priority",
        answers(200),
        frame(HEADERS, END_HEADERS | END_STREAM | HAS_PRIORITY, STREAM, u32(1) + b"\xff" + block(GET)),
        reaches=1,
    )
    yield case(
        "5.3.1",
        "HEADERS that depend on their own stream",
        answers(200),
        frame(HEADERS, END_HEADERS | END_STREAM | HAS_PRIORITY, STREAM, u32(STREAM) + b"\x01" + block(GET)),
        reaches=1,
    )
    yield case(
        "6.2",
        "HEADERS with padding and a priority",
        answers(200),
        frame(
            HEADERS,
            END_HEADERS | END_STREAM | HAS_PRIORITY | PADDED,
            STREAM,
            b"\x02" + u32(1) + b"\xff" + block(GET) + bytes(2),
        ),
        reaches=1,
    )
    yield case(
        "6.3", "PRIORITY of 4 octets on an idle stream", ends(FRAME_SIZE_ERROR), frame(PRIORITY, 0, IDLE, bytes(4))
    )

    # 6.5.2, RFC 8441 section 3
    for name, pairs in (
        ("ENABLE_PUSH of 1", [(2, 1)]),
        ("ENABLE_CONNECT_PROTOCOL of 1", [(8, 1)]),
        ("MAX_CONCURRENT_STREAMS of 0", [(3, 0)]),
    ):
        yield case("6.5.2", f"{name} of a client", ON, settings(*pairs))
    yield case("6.5.2", "ENABLE_CONNECT_PROTOCOL of 2", ends(PROTOCOL_ERROR), settings((8, 2)))
    yield case(
        "6.5.2", "many settings", ends(ENHANCE_YOUR_CALM), settings(*[(0xF000 + number, 0) for number in range(400)])
    )
    yield case(
        "6.5",
        "SETTINGS between the frames of a body",
        answers(200),
        headers(STREAM, POST),
        settings((4, 70_000)),
        end,
        reaches=1,
    )

    # 6.8, 7
    yield case(
        "6.8",
        "GOAWAY of a client lets its requests be answered",
        answers(200),
        headers(STREAM, POST),
        frame(GOAWAY, 0, 0, u32(0, 0) + b"bye"),
        end,
        reaches=1,
    )
    yield case("6.8", "GOAWAY with the reserved bit", ON, frame(GOAWAY, 0, 0, u32(0x80000000, 0)))
    yield case(
        "7", "RST_STREAM with a code that nobody knows", ON, opened, frame(RST_STREAM, 0, STREAM, u32(0xDEADBEEF))
    )
    yield case("7", "GOAWAY with a code that nobody knows", ON, frame(GOAWAY, 0, 0, u32(0, 0xDEADBEEF)))

    # 6.10
    octets = block(GET)
    pieces = [octets[at : at + 16] for at in range(0, len(octets), 16)]
    yield case(
        "6.10",
        "a head in several CONTINUATION",
        answers(200),
        frame(HEADERS, END_STREAM, STREAM, pieces[0]),
        *[frame(CONTINUATION, 0, STREAM, piece) for piece in pieces[1:]],
        frame(CONTINUATION, END_HEADERS, STREAM),
        reaches=1,
    )
    yield case(
        "6.10",
        "empty HEADERS and all in CONTINUATION",
        answers(200),
        frame(HEADERS, END_STREAM, STREAM),
        frame(CONTINUATION, END_HEADERS, STREAM, octets),
        reaches=1,
    )
    yield case(
        "6.10",
        "END_STREAM of CONTINUATION means nothing",
        answers(200),
        frame(HEADERS, 0, STREAM, block(POST)),
        frame(CONTINUATION, END_HEADERS | END_STREAM, STREAM),
        end,
        reaches=1,
    )
    yield case(
        "6.10",
        "more CONTINUATION than a head can need",
        ends(ENHANCE_YOUR_CALM),
        frame(HEADERS, END_STREAM, STREAM, octets),
        *[frame(CONTINUATION, 0, STREAM)] * 20,
    )
    yield case(
        "6.10",
        "CONTINUATION of more octets than a head may have",
        ends(ENHANCE_YOUR_CALM),
        frame(HEADERS, END_STREAM, STREAM, octets),
        *[frame(CONTINUATION, 0, STREAM, bytes(16_000))] * 3,
    )
    yield case(
        "6.5", "SETTINGS longer than a frame may be", ends(FRAME_SIZE_ERROR), frame(SETTINGS, 0, 0, bytes(16_386))
    )

    # RFC 7541
    size_0_and_back = b"\x20\x3f\xe1\x1f"
    yield case(
        "7541-4.2",
        "the table's size to 0 and back",
        answers(200),
        frame(HEADERS, END_HEADERS | END_STREAM, STREAM, size_0_and_back + block(GET)),
        reaches=1,
    )
    yield case(
        "7541-4.2",
        "an entry that was evicted",
        ends(COMPRESSION_ERROR),
        frame(HEADERS, END_HEADERS | END_STREAM, STREAM, block(GET) + stored),
        STREAM,
        frame(HEADERS, END_HEADERS | END_STREAM, STREAM + 2, b"\x20" + block(GET) + b"\xbe"),
        reaches=1,
    )
    yield case(
        "7541-4.4",
        "an entry larger than the table empties it",
        ends(COMPRESSION_ERROR),
        frame(HEADERS, END_HEADERS | END_STREAM, STREAM, block(GET) + stored),
        STREAM,
        frame(HEADERS, END_HEADERS | END_STREAM, STREAM + 2, block(GET) + b"\x40\x01a\x7f\x81\x1f" + b"x" * 4096),
        STREAM + 2,
        frame(HEADERS, END_HEADERS | END_STREAM, STREAM + 4, block(GET) + b"\xbe"),
        reaches=2,
    )
    yield case(
        "7541-5.2",
        "a string of Huffman codes",
        answers(200),
        frame(HEADERS, END_HEADERS | END_STREAM, STREAM, block(GET) + b"\x00\x81\x1f\x81\x1f"),
        reaches=1,
    )


def _messages() -> Iterator[Case]:
    """Section 8.1."""
    for name, length, sizes in (
        ("longer than the body", b"5", (4,)),
        ("shorter than the body", b"3", (4,)),
        ("0 and a body", b"0", (4,)),
        ("longer than the body in two frames", b"9", (4, 4)),
        ("shorter than the body in two frames", b"7", (4, 4)),
        ("without a body in an empty frame", b"1", (0,)),
    ):
        frames = [frame(DATA, 0, STREAM, b"x" * size) for size in sizes[:-1]]
        frames.append(frame(DATA, END_STREAM, STREAM, b"x" * sizes[-1]))
        yield case(
            "8.1.1", f"content-length {name}", MALFORMED, headers(STREAM, [*POST, (b"content-length", length)]), *frames
        )
    for name, value in (
        ("no number", b"abc"),
        ("negative", b"-1"),
        ("with a sign", b"+4"),
        ("a list of equal ones", b"4, 4"),
        ("a list of different ones", b"4, 5"),
        ("hexadecimal", b"0x4"),
        ("with a fraction", b"4.0"),
        ("empty", b""),
        ("of 30 digits", b"1" * 30),
        ("with a space", b"1 4"),
    ):
        yield case(
            "8.1.1",
            f"content-length {name}",
            MALFORMED,
            headers(STREAM, [*POST, (b"content-length", value)]),
            frame(DATA, END_STREAM, STREAM, b"body"),
        )
    yield case(
        "8.1.1",
        "content-length twice",
        MALFORMED,
        headers(STREAM, [*POST, (b"content-length", b"4"), (b"content-length", b"5")]),
        frame(DATA, END_STREAM, STREAM, b"body"),
    )
    yield case(
        "8.1.1",
        "content-length and no body",
        MALFORMED,
        headers(STREAM, [*POST, (b"content-length", b"1")], is_end=True),
    )
    yield case(
        "8.1.1",
        "content-length and trailers before its end",
        MALFORMED,
        headers(STREAM, [*POST, (b"content-length", b"4")]),
        frame(DATA, 0, STREAM, b"abc"),
        headers(STREAM, [(b"x-a", b"b")], is_end=True),
    )
    yield case(
        "8.1.1",
        "content-length that is right",
        answers(200),
        headers(STREAM, [*POST, (b"content-length", b"4")]),
        frame(DATA, END_STREAM, STREAM, b"body"),
        reaches=1,
    )
    yield case(
        "8.1.1",
        "content-length of 0",
        answers(200),
        headers(STREAM, [*POST, (b"content-length", b"0")], is_end=True),
        reaches=1,
    )
    yield case(
        "8.1.1",
        "padding is no part of content-length",
        answers(200),
        headers(STREAM, [*POST, (b"content-length", b"4")]),
        frame(DATA, END_STREAM | PADDED, STREAM, b"\x07body" + bytes(7)),
        reaches=1,
    )

    opened = headers(STREAM, POST)
    body = frame(DATA, 0, STREAM, b"body")
    end = frame(DATA, END_STREAM, STREAM, b"body")
    for name, fields in (
        ("a pseudo-field", [(b":path", b"/other")]),
        ("an unknown pseudo-field", [(b":trailer", b"x")]),
        (":status", [(b":status", b"200")]),
        ("upper case", [(b"X-Upper", b"x")]),
        ("connection", [(b"connection", b"close")]),
        ("transfer-encoding", [(b"transfer-encoding", b"chunked")]),
        ("a line break", [(b"x-a", b"b\r\nc: d")]),
        ("NUL", [(b"x-a", b"b\0")]),
        ("an empty name", [(b"", b"b")]),
    ):
        yield case("8.1", f"trailers with {name}", MALFORMED, opened, body, headers(STREAM, fields, is_end=True))
    yield case("8.1", "trailers that do not end the stream", MALFORMED, opened, body, headers(STREAM, [(b"x-a", b"b")]))
    yield case("8.1", "a second head", MALFORMED, opened, headers(STREAM, POST, is_end=True))
    yield case(
        "8.1",
        "DATA behind trailers",
        resets(STREAM_CLOSED),
        headers(STREAM, HELD),
        body,
        headers(STREAM, [(b"x-a", b"b")], is_end=True),
        end,
    )
    yield case("8.1", "trailers", answers(200), opened, body, headers(STREAM, [(b"x-a", b"b")], is_end=True), reaches=1)
    yield case(
        "8.1",
        "trailers without a body",
        answers(200),
        opened,
        headers(STREAM, [(b"x-a", b"b")], is_end=True),
        reaches=1,
    )
    yield case("8.1", "empty trailers", answers(200), opened, body, headers(STREAM, [], is_end=True), reaches=1)
    yield case("8.1", "reset within a body", ON, opened, body, frame(RST_STREAM, 0, STREAM, u32(8)))
