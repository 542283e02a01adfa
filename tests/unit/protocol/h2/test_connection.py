"""Frames of messages, by the rules of RFC 9113: each case has the number of its section, and is played at one end."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import pytest

from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import (
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    SETTINGS,
    STREAM_CLOSED,
)
from lbproxy.protocol.h2.connection import H2Connection
from lbproxy.protocol.h2.settings import OwnSettings
from tests.support.h2_ends import (
    GET,
    OK,
    POST,
    Pairs,
    RecordingEnd,
    begun,
    block,
    frame,
    headers,
    reactions,
    requesting,
)


@dataclass(frozen=True, slots=True)
class Case:
    """octets: from the peer. answer: the GOAWAY and RST_STREAM that follow: (stream, code); 0: of the connection."""

    section: str
    name: str
    octets: bytes
    answer: tuple[tuple[int, int], ...] = ()
    words: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return f"{self.section} {self.name}"


def failed(code: int) -> tuple[tuple[int, int], ...]:
    return ((0, code),)


GET_1 = headers(1, GET, is_end=True)
POST_1 = headers(1, POST)
LENGTH_5 = (*POST, (b"content-length", b"5"))
HALF_BLOCK = frame(HEADERS, END_STREAM, 1, block(GET)[:10])
REST_BLOCK = block(GET)[10:]


def request(*changes: tuple[bytes, bytes | None]) -> bytes:
    """GET on stream 1 with these fields replaced (None: left out), or added."""
    replaced = dict(changes)
    fields = [(name, value) for name, old in GET if (value := replaced.pop(name, old)) is not None]
    fields += [(name, value) for name, value in changes if name in replaced and value is not None]
    return headers(1, fields, is_end=True)


def more(*fields: tuple[bytes, bytes]) -> bytes:
    """GET on stream 1 with these fields behind the usual."""
    return headers(1, (*GET, *fields), is_end=True)


MALFORMED = ((1, PROTOCOL_ERROR),)

AT_A_SERVER = [
    Case("4.1", "flags that are not defined are ignored", frame(HEADERS, 0xD2 | END_HEADERS | END_STREAM, 1,
         block(GET))),
    Case("4.1", "the reserved bit is ignored", headers(1 | 1 << 31, GET, is_end=True), (), ("head",)),
    Case("4.1", "frames of unknown types are ignored", frame(0xBB, 0xFF, 1, b"x" * 9) + GET_1, (), ("head",)),
    Case("4.2", "a frame of 2^14 octets is taken", POST_1 + frame(DATA, 0, 1, b"x" * 16_384), (), ("head", "data")),
    Case("4.2", "a frame of more is not", POST_1 + frame(DATA, 0, 1, b"x" * 16_385), failed(FRAME_SIZE_ERROR)),
    Case("4.2", "HEADERS of more are not", frame(HEADERS, END_HEADERS, 1, b"x" * 16_385), failed(FRAME_SIZE_ERROR)),
    Case("4.3", "a block that is no HPACK", frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
         failed(COMPRESSION_ERROR)),
    Case("4.3", "trailers that are no HPACK", POST_1 + frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x80"),
         failed(COMPRESSION_ERROR)),
    Case("4.3", "a block that is no HPACK on a stream that was refused", headers(1, [(b"A", b"b")])
         + frame(HEADERS, END_HEADERS, 1, b"\x80"), (*MALFORMED, (0, COMPRESSION_ERROR))),
    Case("4.3", "DATA within a block", HALF_BLOCK + frame(DATA, 0, 1, b"x"), failed(PROTOCOL_ERROR)),
    Case("4.3", "a block that is cut anywhere", HALF_BLOCK + frame(CONTINUATION, END_HEADERS, 1, REST_BLOCK), (),
         ("head",)),
    Case("5.1", "DATA on an idle stream", frame(DATA, 0, 1, b"x"), failed(PROTOCOL_ERROR)),
    Case("5.1", "DATA on an idle stream of our own", frame(DATA, 0, 2, b"x"), failed(PROTOCOL_ERROR)),
    Case("5.1", "RST_STREAM on an idle stream", frames.rst_stream(1, CANCEL), failed(PROTOCOL_ERROR)),
    Case("5.1", "WINDOW_UPDATE on an idle stream", frames.window_update(1, 1), failed(PROTOCOL_ERROR)),
    Case("5.1", "PRIORITY on an idle stream", frame(PRIORITY, 0, 1, bytes(5)) + GET_1, (), ("head",)),
    Case("5.1", "DATA behind the end", GET_1 + frame(DATA, 0, 1, b"x"), ((1, STREAM_CLOSED),), ("head", "malformed")),
    Case("5.1", "HEADERS behind the end", GET_1 + GET_1, ((1, STREAM_CLOSED),), ("head", "malformed")),
    Case("5.1", "WINDOW_UPDATE behind the end", GET_1 + frames.window_update(1, 5), (), ("head",)),
    Case("5.1", "RST_STREAM behind the end", GET_1 + frames.rst_stream(1, CANCEL), (), ("head", "reset")),
    Case("5.1", "DATA behind the peer's RST_STREAM", POST_1 + frames.rst_stream(1, CANCEL) + frame(DATA, 0, 1, b"x"),
         failed(STREAM_CLOSED)),
    Case("5.1", "HEADERS behind the peer's RST_STREAM", POST_1 + frames.rst_stream(1, CANCEL) + GET_1,
         failed(STREAM_CLOSED)),
    Case("5.1", "RST_STREAM twice", POST_1 + frames.rst_stream(1, CANCEL) * 2, (), ("head", "reset")),
    Case("5.1", "WINDOW_UPDATE behind RST_STREAM", POST_1 + frames.rst_stream(1, CANCEL) + frames.window_update(1, 9),
         (), ("head", "reset")),
    Case("5.1", "PRIORITY behind RST_STREAM", POST_1 + frames.rst_stream(1, 8) + frame(PRIORITY, 0, 1, bytes(5)), (),
         ("head", "reset")),
    Case("5.1", "anything behind our RST_STREAM", request((b":path", None)) + frame(DATA, 0, 1, b"x") * 9
         + headers(1, [(b"a", b"b")]) + frames.window_update(1, 1) + frames.rst_stream(1, CANCEL)
         + headers(3, GET), MALFORMED, ("malformed", "head")),
    Case("5.1.1", "a stream with an even number", headers(2, GET, is_end=True), failed(PROTOCOL_ERROR)),
    Case("5.1.1", "a stream with a lower number than the last", headers(5, GET) + headers(3, GET),
         failed(PROTOCOL_ERROR)),
    Case("5.1.1", "a lower number that was there", GET_1 + frames.rst_stream(1, CANCEL) + headers(3, GET) + GET_1,
         failed(STREAM_CLOSED)),
    Case("5.1.1", "stream 0", headers(0, GET), failed(PROTOCOL_ERROR)),
    Case("5.1.1", "streams that were left out are closed", headers(5, GET) + frame(DATA, 0, 3, b"x"),
         failed(STREAM_CLOSED)),
    Case("6.1", "DATA on stream 0", POST_1 + frame(DATA, 0, 0, b"x"), failed(PROTOCOL_ERROR)),
    Case("6.1", "padding is left out", POST_1 + frame(DATA, PADDED | END_STREAM, 1, b"\x03xy\0\0\0"), (), ("head",
         "data")),
    Case("6.1", "padding and nothing else", POST_1 + frame(DATA, PADDED, 1, b"\x03\0\0\0"), (), ("head",)),
    Case("6.1", "padding as long as the payload", POST_1 + frame(DATA, PADDED, 1, b"\x04\0\0\0"),
         failed(PROTOCOL_ERROR)),
    Case("6.1", "no length of the padding", POST_1 + frame(DATA, PADDED, 1), failed(FRAME_SIZE_ERROR)),
    Case("6.2", "padding and priority are left out", frame(HEADERS, END_HEADERS | PADDED | HAS_PRIORITY, 1,
         b"\x02" + bytes(5) + block(GET) + bytes(2)), (), ("head",)),
    Case("6.2", "padding longer than the payload", frame(HEADERS, END_HEADERS | PADDED, 1, b"\x09" + bytes(8)),
         failed(PROTOCOL_ERROR)),
    Case("6.2", "no length of the padding", frame(HEADERS, END_HEADERS | PADDED, 1), failed(FRAME_SIZE_ERROR)),
    Case("6.2", "priority cut off", frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, bytes(4)), failed(FRAME_SIZE_ERROR)),
    Case("6.2", "HEADERS of another stream within a block", HALF_BLOCK + headers(3, GET), failed(PROTOCOL_ERROR)),
    Case("6.6", "PUSH_PROMISE from a client", frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)), failed(PROTOCOL_ERROR)),
    Case("6.10", "CONTINUATION without HEADERS", frame(CONTINUATION, END_HEADERS, 1, block(GET)),
         failed(PROTOCOL_ERROR)),
    Case("6.10", "CONTINUATION behind END_HEADERS", POST_1 + frame(CONTINUATION, END_HEADERS, 1),
         failed(PROTOCOL_ERROR)),
    Case("6.10", "CONTINUATION of another stream", HALF_BLOCK + frame(CONTINUATION, END_HEADERS, 3, REST_BLOCK),
         failed(PROTOCOL_ERROR)),
    Case("6.10", "CONTINUATION on stream 0", frame(CONTINUATION, END_HEADERS, 0), failed(PROTOCOL_ERROR)),
    Case("6.10", "PING within a block", HALF_BLOCK + frames.ping(bytes(8), False), failed(PROTOCOL_ERROR)),
    Case("6.10", "an unknown frame within a block", HALF_BLOCK + frame(0xBB, 0, 1), failed(PROTOCOL_ERROR)),
    Case("8.1", "HEADERS in the middle that do not end the stream", POST_1 + headers(1, [(b"a", b"b")]), MALFORMED),
    Case("8.1", "trailers", POST_1 + headers(1, [(b"a", b"b")], is_end=True), (), ("head", "trailers")),
    Case("8.1", "trailers with a pseudo-field", POST_1 + headers(1, [(b":path", b"/")], is_end=True), MALFORMED),
    Case("8.1", "trailers with a field of a connection", POST_1 + headers(1, [(b"upgrade", b"x")], is_end=True),
         MALFORMED),
    Case("8.1.1", "more DATA than content-length", headers(1, LENGTH_5) + frame(DATA, 0, 1, b"123456"), MALFORMED),
    Case("8.1.1", "less DATA than content-length", headers(1, LENGTH_5) + frame(DATA, END_STREAM, 1, b"1234"),
         MALFORMED),
    Case("8.1.1", "less DATA before trailers", headers(1, LENGTH_5) + headers(1, [(b"a", b"b")], is_end=True),
         MALFORMED),
    Case("8.1.1", "no DATA and a content-length", headers(1, LENGTH_5, is_end=True), MALFORMED, ("malformed",)),
    Case("8.1.1", "DATA as content-length says, padded", headers(1, LENGTH_5) + frame(DATA, 0, 1, b"123")
         + frame(DATA, PADDED | END_STREAM, 1, b"\x01451"[:3] + b"\0"), (), ("head", "data", "data")),
    Case("8.1.1", "a length of 0 and no DATA", more((b"content-length", b"0")), (), ("head",)),
    Case("8.1.1", "a length that is none", more((b"content-length", b"+5")), MALFORMED),
    Case("8.1.1", "two lengths", headers(1, (*LENGTH_5, LENGTH_5[-1])), MALFORMED),
    Case("8.2.1", "a name in upper case", more((b"Name", b"x")), MALFORMED, ("malformed",)),
    Case("8.2.1", "a name with a space", more((b"na me", b"x")), MALFORMED),
    Case("8.2.1", "a name with a colon", more((b"na:me", b"x")), MALFORMED),
    Case("8.2.1", "a name with CR LF", more((b"a\r\nb", b"x")), MALFORMED),
    Case("8.2.1", "a name of octets above 127", more((b"\xc3\xa4", b"x")), MALFORMED),
    Case("8.2.1", "a name of nothing", more((b"", b"x")), MALFORMED),
    Case("8.2.1", "a value with CR", more((b"a", b"x\ry")), MALFORMED),
    Case("8.2.1", "a value with LF", more((b"a", b"x\ny")), MALFORMED),
    Case("8.2.1", "a value with NUL", more((b"a", b"x\0y")), MALFORMED),
    Case("8.2.1", "a value that begins with a space", more((b"a", b" x")), MALFORMED),
    Case("8.2.1", "a value that ends with a tab", more((b"a", b"x\t")), MALFORMED),
    Case("8.2.1", "a value of a space", more((b"a", b" ")), MALFORMED),
    Case("8.2.1", "a value of nothing, or with white space inside", more((b"a", b""), (b"b", b"x \t y\xff")), (),
         ("head",)),
    *[Case("8.2.2", f"the field {name.decode()}", more((name, b"x")), MALFORMED)
      for name in (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")],
    Case("8.2.2", "te: trailers", more((b"te", b"trailers")), (), ("head",)),
    Case("8.2.2", "te with something else", more((b"te", b"trailers, gzip")), MALFORMED),
    Case("8.3", "a pseudo-field that is not defined", request((b":foo", b"x")), MALFORMED),
    Case("8.3", "a pseudo-field of answers", request((b":status", b"200")), MALFORMED),
    Case("8.3", "a pseudo-field behind others", headers(1, (*GET[:3], (b"a", b"b"), GET[3]), is_end=True), MALFORMED),
    Case("8.3", "a pseudo-field twice", headers(1, (*GET, GET[3]), is_end=True), MALFORMED),
    *[Case("8.3.1", f"no {name.decode()}", request((name, None)), MALFORMED)
      for name in (b":method", b":scheme", b":path", b":authority")],
    *[Case("8.3.1", f"{name.decode()} is empty", request((name, b"")), MALFORMED)
      for name in (b":method", b":scheme", b":path", b":authority")],
    Case("8.3.1", "Host instead of :authority", request((b":authority", None), (b"host", b"b")), (), ("head",)),
    Case("8.3.1", "Host like :authority", more((b"host", b"A")), (), ("head",)),
    Case("8.3.1", "Host unlike :authority", more((b"host", b"b")), MALFORMED),
    Case("8.3.1", "two Hosts", more((b"host", b"a"), (b"host", b"a")), MALFORMED),
    Case("8.3.1", "an empty Host", request((b":authority", None), (b"host", b"")), MALFORMED),
    Case("8.3.1", "user information", request((b":authority", b"u@a")), MALFORMED),
    Case("8.3.1", "a path that is none", request((b":path", b"x")), MALFORMED),
    Case("8.3.1", "a path with a space", request((b":path", b"/ HTTP/1.1")), MALFORMED),
    Case("8.3.1", "a URL as the path", request((b":path", b"http://a/")), MALFORMED),
    Case("8.3.1", "the asterisk with GET", request((b":path", b"*")), MALFORMED),
    Case("8.3.1", "the asterisk with OPTIONS", request((b":path", b"*"), (b":method", b"OPTIONS")), (), ("head",)),
    Case("8.3.1", "a method that is no token", request((b":method", b"GET / HTTP/1.1\r\n")), MALFORMED),
    Case("8.3.1", "a scheme that is none", request((b":scheme", b"http://a/?")), MALFORMED),
    Case("8.5", "CONNECT", request((b":method", b"CONNECT"), (b":scheme", None), (b":path", None),
         (b":authority", b"a:1")), (), ("head",)),
    Case("8.5", "CONNECT with a path", request((b":method", b"CONNECT"), (b":scheme", None)), MALFORMED),
    Case("8.5", "CONNECT with a scheme", request((b":method", b"CONNECT"), (b":path", None)), MALFORMED),
    Case("8.5", "CONNECT without a port", request((b":method", b"CONNECT"), (b":scheme", None), (b":path", None)),
         MALFORMED),
    Case("8441 3", "extended CONNECT that was not offered",
         request((b":method", b"CONNECT"), (b":protocol", b"websocket")), MALFORMED),
]  # fmt: skip


@pytest.mark.parametrize("case", AT_A_SERVER, ids=str)
def test_at_a_servers_end(case: Case) -> None:
    end = begun(True)
    end.received(case.octets, 0.0)
    assert reactions(end) == case.answer
    if case.words is not None:
        assert tuple(end.words()) == case.words
    assert end.is_failed == ("failed" in end.words()) == any(not stream for stream, _ in case.answer)


def answer(*fields: tuple[bytes, bytes], is_end: bool = False) -> bytes:
    return headers(1, (*OK, *fields), is_end=is_end)


AT_A_CLIENT = [
    Case("5.1", "an answer on an idle stream", headers(3, OK), failed(PROTOCOL_ERROR)),
    Case("5.1", "DATA on an idle stream", frame(DATA, 0, 3, b"x"), failed(PROTOCOL_ERROR)),
    Case("5.1", "HEADERS behind the end", answer(is_end=True) + answer(), ((1, STREAM_CLOSED),)),
    Case("5.1", "DATA behind the end", answer(is_end=True) + frame(DATA, 0, 1, b"x"), ((1, STREAM_CLOSED),)),
    Case("5.1.1", "a stream of the server's", headers(2, OK), failed(PROTOCOL_ERROR)),
    Case("6.6", "PUSH_PROMISE, which is switched off", frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)),
         failed(PROTOCOL_ERROR)),
    Case("8.1", "interim answers, and an answer", headers(1, [(b":status", b"103"), (b"link", b"x")]) * 2 + answer(),
         (),
         ("head", "head", "head")),
    Case("8.1", "an interim answer that ends the stream", headers(1, [(b":status", b"100")], is_end=True), MALFORMED),
    Case("8.1", "an interim answer behind the answer", answer() + headers(1, [(b":status", b"100")]), MALFORMED),
    Case("8.1", "DATA before the answer", frame(DATA, 0, 1, b"x"), MALFORMED),
    Case("8.1", "trailers", answer() + headers(1, [(b"grpc-status", b"0")], is_end=True), (), ("head", "trailers")),
    Case("8.1", "trailers with :status", answer() + headers(1, OK, is_end=True), MALFORMED),
    Case("8.1.1", "fewer octets than content-length", answer((b"content-length", b"2"))
         + frame(DATA, END_STREAM, 1, b"x"), MALFORMED),
    Case("8.1.1", "no octets and a content-length", answer((b"content-length", b"2"), is_end=True), MALFORMED),
    Case("8.1.1", "304 has a length and no octets", headers(1, [(b":status", b"304"), (b"content-length", b"2")],
         is_end=True), (), ("head",)),
    Case("8.1.1", "the same length twice", answer((b"content-length", b"1"), (b"content-length", b"1"))
         + frame(DATA, END_STREAM, 1, b"x"), (), ("head", "data")),
    Case("8.1.1", "two lengths", answer((b"content-length", b"1"), (b"content-length", b"2")), MALFORMED),
    Case("8.2.1", "a value with CR LF", answer((b"a", b"x\r\ny: z")), MALFORMED),
    Case("8.2.2", "transfer-encoding", answer((b"transfer-encoding", b"chunked")), MALFORMED),
    Case("8.2.2", "te", answer((b"te", b"trailers")), MALFORMED),
    Case("8.3.2", "no :status", headers(1, [(b"a", b"b")]), MALFORMED),
    Case("8.3.2", ":status twice", answer(*OK), MALFORMED),
    Case("8.3.2", ":status behind a field", headers(1, [(b"a", b"b"), *OK]), MALFORMED),
    Case("8.3.2", ":status is no number", headers(1, [(b":status", b"2xx")]), MALFORMED),
    Case("8.3.2", ":status is too large", headers(1, [(b":status", b"600")]), MALFORMED),
    Case("8.3", "a pseudo-field of requests", answer((b":path", b"/")), MALFORMED),
    Case("8.6", "101", headers(1, [(b":status", b"101")]), MALFORMED),
    Case("3.4", "a server that speaks HTTP/1 later on", b"HTTP/1.1 400 Bad Request\r\n\r\n", failed(FRAME_SIZE_ERROR)),
]  # fmt: skip


@pytest.mark.parametrize("case", AT_A_CLIENT, ids=str)
def test_at_a_clients_end(case: Case) -> None:
    end = requesting()
    end.received(case.octets, 0.0)
    assert reactions(end) == case.answer
    if case.words is not None:
        assert tuple(end.words()) == case.words


@pytest.mark.parametrize(
    ("is_server", "octets", "code"),
    [
        (True, b"GET / HTTP/1.1\r\n\r\n", PROTOCOL_ERROR),
        (True, PREFACE[:-1] + b"x", PROTOCOL_ERROR),
        (True, PREFACE + GET_1, PROTOCOL_ERROR),
        (True, PREFACE + frames.settings_ack(), PROTOCOL_ERROR),
        (True, PREFACE + frames.ping(bytes(8), False), PROTOCOL_ERROR),
        (False, frames.window_update(0, 1), PROTOCOL_ERROR),
        (False, b"HTTP/1.1 400 Bad Request\r\n\r\n", PROTOCOL_ERROR),
        (False, PREFACE, FRAME_SIZE_ERROR),
    ],
)
def test_a_connection_begins_with_the_preface_and_settings(is_server: bool, octets: bytes, code: int) -> None:
    """Section 3.4."""
    end = RecordingEnd(is_server)
    end.take_output()
    end.received(octets, 0.0)
    assert reactions(end) == failed(code)
    assert end.is_failed
    end.received(PREFACE + frames.settings([]), 0.0)
    assert end.words() == ["failed"]
    assert not end.n_output


def test_a_server_that_speaks_http_1_is_named() -> None:
    end = RecordingEnd(False)
    end.received(b"HTTP/1.1 505 HTTP Version Not Supported\r\n", 0.0)
    assert end.seen == [("failed", PROTOCOL_ERROR, "the peer speaks HTTP/1")]


def test_what_comes_in_any_pieces_is_the_same() -> None:
    octets = (
        PREFACE
        + frames.settings([])
        + HALF_BLOCK
        + frame(CONTINUATION, END_HEADERS, 1, REST_BLOCK)
        + headers(3, LENGTH_5)
        + frame(DATA, PADDED, 3, b"\x02123\0\0")
        + frame(SETTINGS, 0, 0)
        + frame(DATA, END_STREAM, 3, b"45")
        + frames.ping(b"12345678", True)
    )
    whole = RecordingEnd(True)
    whole.received(octets, 0.0)
    said = whole.take_output()
    assert whole.words() == ["settings", "head", "head", "data", "settings", "data", "pong"]
    for at in range(len(octets) + 1):
        end = RecordingEnd(True)
        end.received(memoryview(octets)[:at], 0.0)
        end.received(octets[at:], 0.0)
        assert (end.seen, end.take_output()) == (whole.seen, said)
    for size in (1, 2, 7, 9, 10):
        end = RecordingEnd(True)
        for at in range(0, len(octets), size):
            end.received(octets[at : at + size], 0.0)
        assert (end.seen, end.take_output()) == (whole.seen, said)


def test_data_beyond_a_window_is_an_error() -> None:
    """Section 6.9.1: of the stream, or of the connection."""
    end = begun(True, gives_back=False)
    end.received(POST_1 + frame(DATA, 0, 1, bytes(16_384)) * 17, 0.0)
    assert reactions(end) == ((1, FLOW_CONTROL_ERROR),)
    end = begun(True, OwnSettings(connection_window=65_535), gives_back=False)
    end.received(POST_1 + frame(DATA, 0, 1, bytes(16_384)) * 4, 0.0)
    assert reactions(end) == failed(FLOW_CONTROL_ERROR)


# --- bounds ---------------------------------------------------------------------------------------------------------


def in_frames(stream_id: int, whole: bytes, count: int) -> bytes:
    """A block in HEADERS and `count` frames of CONTINUATION."""
    size = max(1, len(whole) // (count + 1))
    pieces = [whole[at * size : (at + 1) * size] for at in range(count)] + [whole[count * size :]]
    out = frame(HEADERS, END_STREAM, stream_id, pieces[0])
    for at, piece in enumerate(pieces[1:]):
        out += frame(CONTINUATION, END_HEADERS if at == count - 1 else 0, stream_id, piece)
    return out


def test_a_block_comes_in_eight_frames_of_continuation_at_most() -> None:
    end = begun(True)
    end.received(in_frames(1, block(GET), 8), 0.0)
    assert end.words() == ["head"]
    end.received(in_frames(3, block(GET), 9), 0.0)
    assert end.seen[1:] == [
        ("flooded", "continuation"),
        ("failed", ENHANCE_YOUR_CALM, "a field block in too many frames, or of too many octets"),
    ]
    assert reactions(end) == failed(ENHANCE_YOUR_CALM)


def test_empty_frames_of_continuation_count() -> None:
    end = begun(True)
    end.received(frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * 8, 0.0)
    assert not end.seen
    end.received(frame(CONTINUATION, 0, 1), 0.0)
    assert end.words() == ["flooded", "failed"]


def test_a_block_has_no_more_octets_than_a_head() -> None:
    end = begun(True, OwnSettings(head_bytes=20_000))
    end.received(frame(HEADERS, 0, 1, bytes(16_000)) + frame(CONTINUATION, 0, 1, bytes(4_000)), 0.0)
    assert not end.seen
    end.received(frame(CONTINUATION, 0, 1, b"\0"), 0.0)
    assert end.words() == ["flooded", "failed"]


@pytest.mark.parametrize(
    ("own", "fields", "excess"),
    [
        (OwnSettings(headers=10), [(b"a", b"b")] * 10, ""),
        (OwnSettings(headers=10), [(b"a", b"b")] * 11, "more than 10 header fields"),
        (OwnSettings(headers=10), [(b"cookie", b"b")] * 11, "more than 10 header fields"),
        (OwnSettings(head_bytes=1000), [(b"a", b"b" * 895)], ""),
        (OwnSettings(head_bytes=1000), [(b"a", b"b" * 995)], "more than 1000 bytes of header fields"),
    ],
)
def test_a_head_that_is_too_large_is_told_as_such(own: OwnSettings, fields: Pairs, excess: str) -> None:
    """So that it can be answered; and the next one is read."""
    end = begun(True, own)
    end.received(headers(1, (*GET, *fields), is_end=True) + headers(3, GET, is_end=True), 0.0)
    assert [head.excess for head in end.heads] == [excess, ""]
    assert end.n_streams == 2


def test_trailers_that_are_too_large_end_the_stream() -> None:
    end = begun(True, OwnSettings(headers=10))
    end.received(POST_1 + headers(1, [(b"a", b"b")] * 20, is_end=True), 0.0)
    assert end.seen[1:] == [("malformed", 1, "trailers have more than 10 header fields")]
    assert reactions(end) == ((1, ENHANCE_YOUR_CALM),)


def test_streams_beyond_the_limit_are_refused() -> None:
    """Section 5.1.2. Their bodies are ignored, and their places are free when others end."""
    end = begun(True, OwnSettings(streams=2))
    end.received(headers(1, GET, is_end=True) + headers(3, GET) + headers(5, POST) + frame(DATA, 0, 5, b"x"), 0.0)
    assert end.words() == ["head", "head"]
    assert reactions(end) == ((5, REFUSED_STREAM),)
    assert end.last_peer_stream == 3
    end.send_answer(1, 200, b"", b"", True)
    end.received(headers(7, GET, is_end=True), 0.0)
    assert end.words() == ["head", "head", "head"]


def test_refusals_count_once_the_peer_knows_the_limit() -> None:
    own = OwnSettings(streams=1, resets=3)
    end = RecordingEnd(True, own)
    end.received(PREFACE + frames.settings([]), 0.0)
    end.received(b"".join([headers(stream, GET) for stream in range(1, 21, 2)]), 0.0)
    assert end.words() == ["settings", "head"]
    end.received(frames.settings_ack(), 0.0)
    end.received(b"".join([headers(stream, GET) for stream in range(21, 27, 2)]), 0.0)
    assert not end.is_failed
    end.received(headers(27, GET), 0.0)
    assert end.words()[2:] == ["flooded", "failed"]


def test_a_peer_that_never_says_that_it_knows_the_limit() -> None:
    end = RecordingEnd(True, OwnSettings(streams=1, resets=3))
    end.received(PREFACE + frames.settings([]), 0.0)
    end.received(b"".join([headers(stream, GET) for stream in range(1, 2009, 2)]), 0.0)
    assert end.words() == ["settings", "head"]
    end.received(headers(2009, GET), 0.0)
    assert end.words() == ["settings", "head", "flooded", "failed"]


def test_streams_that_the_peer_makes_us_reset_count() -> None:
    """CVE-2025-8671: each is made by the peer, but ended by this end."""
    end = begun(True, OwnSettings(resets=3))
    for stream in range(1, 7, 2):
        end.received(headers(stream, POST) + frames.window_update(stream, 0), 0.0)
    assert end.words() == ["head", "malformed"] * 3
    end.received(headers(7, POST) + frames.window_update(7, 0), 0.0)
    assert end.words()[-2:] == ["flooded", "failed"]
    assert reactions(end)[-1] == (0, ENHANCE_YOUR_CALM)


def test_malformed_heads_count_as_resets() -> None:
    end = begun(True, OwnSettings(resets=3))
    for stream in range(1, 9, 2):
        end.received(headers(stream, [(b"A", b"b")]), 0.0)
    assert end.words() == ["malformed"] * 4 + ["flooded", "failed"]


def test_empty_data_counts() -> None:
    end = begun(True, OwnSettings(control_frames=10))
    end.received(POST_1 + frame(DATA, 0, 1) * 10, 0.0)
    assert end.words() == ["head"]
    end.received(frame(DATA, PADDED, 1, b"\x01\0"), 0.0)
    assert end.words() == ["head", "flooded", "failed"]


def test_frames_on_a_stream_that_was_reset_are_ignored_within_its_window() -> None:
    end = begun(True)
    end.received(POST_1 + frame(DATA, 0, 1, bytes(16_384)), 0.0)
    end.reset(1, CANCEL)
    end.received(frame(DATA, 0, 1, bytes(16_384)) * 15, 0.0)
    assert not end.is_failed
    end.received(frame(DATA, 0, 1, b"x"), 0.0)
    assert end.seen[-1][:2] == ("failed", FLOW_CONTROL_ERROR)


def test_empty_frames_on_a_stream_that_was_reset_count() -> None:
    end = begun(True, OwnSettings(control_frames=10))
    end.received(POST_1, 0.0)
    end.reset(1, CANCEL)
    end.received(frame(DATA, 0, 1) * 5 + headers(1, [(b"a", b"b")]) * 5, 0.0)
    assert not end.is_failed
    end.received(frame(DATA, 0, 1), 0.0)
    assert end.words()[-2:] == ["flooded", "failed"]


def test_few_streams_that_were_reset_are_remembered() -> None:
    end = begun(True, OwnSettings(resets=0))
    for stream in range(1, 2 * 300, 2):
        end.received(headers(stream, POST), 0.0)
        end.reset(stream, CANCEL)
    assert len(end._reset) == 256
    end.received(frame(DATA, 0, 599, b"x"), 0.0)
    assert not end.is_failed
    end.received(frame(DATA, 0, 1, b"x"), 0.0)
    assert end.is_failed


def test_a_small_block_cannot_make_a_large_list() -> None:
    """One octet for each reference to an entry of 4 KiB, and cookies for which one octet is enough."""
    end = begun(True)
    entry = b"\x40" + b"\x06cookie" + b"\x7f\xa1\x1e" + b"v" * 4_000
    end.received(headers(1, GET)[:0] + frame(HEADERS, END_HEADERS, 1, entry + b"\xbe" * 10_000), 0.0)
    assert end.heads[0].excess == "more than 32768 bytes of header fields"
    assert end.heads[0].fields == []
    end.received(frame(HEADERS, END_HEADERS, 3, block(GET) + b"\x40\x06cookie\x01v" + b"\xbe" * 10_000), 0.0)
    assert end.heads[1].excess == "more than 100 header fields"
    assert len(end._known) <= 32


def test_equal_blocks_are_read_once() -> None:
    end = begun(True)
    for stream in range(1, 11, 2):
        end.received(headers(stream, GET, is_end=True), 0.0)
    assert all(head is end.heads[0] for head in end.heads)
    assert end.n_known == 4
    # An entry changes what the octets of a block mean.
    stored = b"\x82\x86\x84\x41\x01a\x40\x01n\x01"
    reference = b"\x82\x86\x84\xbf\xbe"
    end.received(frame(HEADERS, END_HEADERS | END_STREAM, 11, stored + b"1"), 0.0)
    end.received(frame(HEADERS, END_HEADERS | END_STREAM, 13, reference), 0.0)
    end.received(frame(HEADERS, END_HEADERS | END_STREAM, 15, stored + b"2"), 0.0)
    end.received(frame(HEADERS, END_HEADERS | END_STREAM, 17, reference), 0.0)
    end.received(frame(HEADERS, END_HEADERS | END_STREAM, 19, reference), 0.0)
    lines = [head.lines for head in end.heads[5:]]
    assert lines == [b"n: 1\r\n", b"n: 1\r\n", b"n: 2\r\n", b"n: 2\r\n", b"n: 2\r\n"]
    assert end.heads[-1] is end.heads[-2]


def test_extended_connect_where_it_is_offered() -> None:
    """RFC 8441 section 4."""
    end = begun(True, OwnSettings(websocket=True))
    end.received(request((b":method", b"CONNECT"), (b":protocol", b"websocket")), 0.0)
    assert end.heads[0].protocol == b"websocket"
    end.received(headers(3, (*GET, (b":protocol", b"websocket"))), 0.0)
    assert end.seen[-1] == ("malformed", 3, ":protocol stands with a method that is not CONNECT")


def test_what_has_begun_can_be_seen() -> None:
    """So that who drips a body is told from who is silent."""
    end = RecordingEnd(True)
    assert not end.is_between
    end.received(PREFACE + frames.settings([]), 0.0)
    assert end.is_between
    octets = POST_1 + frame(DATA, 0, 1, b"abc")
    for at in range(1, len(octets)):
        end = begun(True)
        for octet in octets[:at]:
            end.received(bytes([octet]), 0.0)
        inside = at > len(POST_1)
        assert end.is_between == (at == len(POST_1))
        assert end.data_begun == int(inside and at >= len(POST_1) + 9)
        end = begun(True)
        end.received(octets[:at], 0.0)
        assert end.data_begun == int(inside and at >= len(POST_1) + 9)
    end.received(octets[-1:] + HALF_BLOCK, 0.0)
    assert not end.is_between
    assert end.data_begun == 0


def test_a_request_leaves_no_cycle() -> None:
    """The collector of cycles stops all others while it runs."""
    end = H2Connection(True, OwnSettings())
    end.received(PREFACE + frames.settings([]) + frames.settings_ack(), 0.0)
    octets = [
        frame(HEADERS, END_HEADERS, stream, block((*POST, (b"n", b"%d" % stream))) + b"\x40\x01n\x01x")
        + frame(DATA, END_STREAM, stream, b"x" * 100)
        for stream in range(1, 2001, 2)
    ]
    gc.collect()
    gc.disable()
    try:
        for index, read in enumerate(octets):
            stream = 2 * index + 1
            end.received(read, 0.0)
            end.consumed(stream, 100)
            end.send_answer(stream, 200, b"a: b\r\n", b"", False)
            end.send_data(stream, b"x" * 100, False)
            end.send_trailers(stream, b"grpc-status: 0\r\n")
            end.take_output()
        assert not end.n_streams
        assert gc.collect() == 0
    finally:
        gc.enable()


def ended_by(*blocks: bytes, most_fields: int = 100) -> RecordingEnd:
    """A client's end that gets these trailers, each on a stream of its own."""
    end = begun(False, OwnSettings(headers=most_fields))
    for octets in blocks:
        number = end.open_stream()
        end.send_request(number, b"GET", b"http", b"a", b"/", b"", b"", True)
        end.received(headers(number, OK) + frame(HEADERS, END_HEADERS | END_STREAM, number, octets), 0.0)
    return end


def test_equal_trailers_are_decoded_once() -> None:
    same = b"\x00\x0bgrpc-status\x010"
    end = ended_by(same, same, b"\x00\x0bgrpc-status\x012", same)
    assert [entry[2] for entry in end.seen if entry[0] == "trailers"] == [
        ((b"grpc-status", value),) for value in (b"0", b"0", b"2", b"0")
    ]
    assert end.decoder.n_made == 1 + 3 and end.n_known == 3 + 1, "the heads, and these"


def test_trailers_that_change_the_table_are_decoded_each_time() -> None:
    end = ended_by(b"\x40\x01a\x01b", b"\x40\x01a\x01b", b"\xbe", b"\x40\x01a\x01c", b"\xbe")
    assert [entry[2] for entry in end.seen if entry[0] == "trailers"] == [
        ((b"a", value),) for value in (b"b", b"b", b"b", b"c", b"c")
    ]
    assert end.decoder.size == 3 * 34


def test_trailers_that_may_enter_no_table_are_not_kept() -> None:
    end = ended_by(b"\x10\x01a\x01b", b"\x10\x01a\x01b")
    assert end.decoder.n_made == 1 + 2 and end.trailers[0].is_secret
    assert end._trailers_block == b""


def test_trailers_that_are_too_many_are_too_many_each_time() -> None:
    many = b"\x00\x01a\x01b" * 6
    end = ended_by(many, many, most_fields=1)
    assert [entry[2] for entry in end.seen if entry[0] == "malformed"] == [
        "trailers have more than 1 header fields"
    ] * 2
