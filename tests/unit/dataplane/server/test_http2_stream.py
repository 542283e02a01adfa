"""One request and its answer among others on a connection: bodies, windows, trailers, resets."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lbproxy.dataplane.server.http2_stream import Http2Stream
from lbproxy.protocol.h2.codes import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    HEADERS,
    INTERNAL_ERROR,
    NO_ERROR,
    REFUSED_STREAM,
)
from lbproxy.protocol.h2.fields import H2Field
from lbproxy.protocol.h2.settings import OwnSettings
from tests.support.asking import prepared_by
from tests.support.fake_transport import GET, FakeLb
from tests.support.h2_ends import frame
from tests.support.h2_servers import H2Server, config
from tests.support.http2_client import Http2Client
from tests.unit.dataplane.server.http2_helpers import POST, Asking

HEAD = b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"


def test_trailers_of_both() -> None:
    with Asking() as lb:
        server, _first = lb.server()
        server.answer(1)
        asked = lb.ask()
        assert isinstance(asked.stream, Http2Stream)
        asked.stream.begin(
            asked, prepared_by(lb, POST), b"", b"", b"ab", is_done=True, expects=False, trailers=[(b"X-Sum", b"1")]
        )
        assert [entry for entry in server.read() if entry[0] != "head"] == [
            ("data", 3, b"ab", False),
            ("trailers", 3, ((b"x-sum", b"1"),)),
        ]
        server.answer(3, b"cd", trailers=[(b"grpc-status", b"0")])
        assert asked.heard[-1] == (200, b"cd", True) and asked.trailers == [(b"grpc-status", b"0")]
        lb.close()


def test_hop_by_hop_fields_stay_behind_and_te_goes_on() -> None:
    with Asking() as lb:
        server, _ = lb.server()
        server.answer(1)
        asked = lb.begun(POST, b"a")
        (head, *_rest) = server.read()
        lines = head[4]
        assert isinstance(lines, bytes) and b"transfer-encoding" not in lines and b"connection" not in lines
        assert server.end.heads[-1].accepts_trailers and server.end.heads[-1].authority == b"h"
        server.answer(3)
        assert asked.heard[-1] == (200, b"hi", True)
        lb.close()


def test_a_body_waits_for_the_window_and_the_client_is_held_back() -> None:
    with Asking() as lb:
        server, _ = lb.server()
        asked = lb.begun(POST, b"x" * 100_000, is_done=False)
        assert asked.heard == ["opened", "blocked"] and asked.stream is not None
        assert asked.stream.unsent_bytes() == 100_000 - 65_535 and asked.stream.taken_bytes() == 65_535
        other = lb.begun()  # a stream without a body goes on
        assert [entry[0] for entry in server.read()].count("head") == 2
        server.end.consumed(3, 65_535)
        server.end.consumed(3, 600_000)  # the connection's too
        server.say()
        assert asked.heard == ["opened", "blocked", "unblocked"] and asked.stream.unsent_bytes() == 0
        asked.stream.write(b"end", is_done=True, trailers=())
        assert server.read()[-1] == ("data", 3, b"end", True)
        for number in (1, 3, 5):
            server.answer(number)
        assert asked.heard[-1] == other.heard[-1] == (200, b"hi", True)
        lb.close()


def test_a_client_that_takes_no_more_holds_back_its_stream_only() -> None:
    with Asking() as lb:
        server, slow = lb.server()
        server.answer(1, b"", is_end=False)
        assert slow.stream is not None
        slow.stream.pause()
        total = 0
        for _ in range(100):
            n = server.end.sendable(1)
            if not n:
                break
            server.more(1, b"z" * min(n, 16_384))
            total += min(n, 16_384)
            server.read()
        assert total == 256 * 1024  # one window
        other = lb.begun()
        assert server.ids() == [3]
        server.answer(3, b"w" * 60_000)
        assert other.heard[-1] == (200, b"w" * 60_000, True)
        slow.stream.resume()
        server.read()
        assert server.end.sendable(1) >= 128 * 1024
        server.more(1, b"", is_end=True)
        assert slow.heard[-1] == (b"", True)
        lb.close()


def test_a_server_that_says_more_than_its_window_loses_the_stream() -> None:
    """RFC 9113 section 6.9.1. Octets that nobody has taken are not given back."""
    with Asking() as lb:
        server, slow = lb.server()
        server.answer(1, b"", is_end=False)
        assert slow.stream is not None
        slow.stream.pause()
        server.peer.send(*[frame(DATA, 0, 1, bytes(16_384))] * 16)
        assert server.read() == [] and slow.stream is not None
        server.peer.send(frame(DATA, 0, 1, b"x"))
        assert server.read() == [("reset", 1, FLOW_CONTROL_ERROR)]
        other = lb.begun()
        assert server.ids() == [3]
        server.answer(3)
        assert other.heard[-1] == (200, b"hi", True)
        lb.close()


def test_who_leaves_cancels_their_stream_alone() -> None:
    with Asking() as lb:
        server, first = lb.server()
        second = lb.begun()
        server.read()
        assert first.stream is not None
        first.stream.abort()
        assert server.read() == [("reset", 1, CANCEL)] and server.peer.is_open
        server.answer(3)
        assert second.heard[-1] == (200, b"hi", True) and first.heard == []
        lb.close()


def test_an_answer_before_the_end_of_the_request_ends_both() -> None:
    with Asking() as lb:
        server, _ = lb.server()
        server.answer(1)
        asked = lb.begun(POST, b"a", is_done=False)
        server.read()
        server.answer(3, b"no", status=413)
        assert asked.heard[-1] == (413, b"no", True) and server.read() == [("reset", 3, NO_ERROR)]
        assert asked.stream is not None
        asked.stream.write(b"late", is_done=True, trailers=())  # nobody hears of it
        assert server.read() == []
        lb.close()


def test_an_early_answer_that_is_followed_by_a_reset_is_whole() -> None:
    with Asking() as lb:
        server, _ = lb.server()
        server.answer(1)
        asked = lb.begun(POST, b"a", is_done=False)
        server.read()
        server.end.send_answer(3, 200, b"", b"", False)
        server.end.send_data(3, b"early", True)
        server.reset(3, NO_ERROR)
        assert asked.heard[1:] == [(200, b"early", True)]
        lb.close()


@pytest.mark.parametrize(
    ("length", "pieces", "last"),
    [
        (2, (b"ab",), ("data", 3, b"", True)),
        (2, (b"", b"a", b"b"), ("data", 3, b"", True)),
        (0, (b"",), ("data", 3, b"", True)),
        (3, (b"ab",), ("reset", 3, NO_ERROR)),
        (70_000, (bytes(70_000),), ("reset", 3, NO_ERROR)),
        (None, (b"ab",), ("reset", 3, NO_ERROR)),
    ],
)
def test_what_a_server_hears_that_answers_before_the_end(
    length: int | None, pieces: tuple[bytes, ...], last: tuple[object, ...]
) -> None:
    """The end where it has all octets that were declared, else that it gets no more."""
    raw = POST if length is None else b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % length
    with Asking() as lb:
        server, _ = lb.server()
        server.answer(1)
        asked = lb.begun(raw, pieces[0], is_done=False)
        assert asked.stream is not None
        for piece in pieces[1:]:
            asked.stream.write(piece, is_done=False, trailers=())
        server.read()
        server.answer(3)
        assert asked.heard[-1] == (200, b"hi", True)
        assert server.read() == [last]
        asked.stream.write(b"", is_done=True, trailers=())
        assert server.read() == [] and not server.end.has_stream(3)
        lb.close()


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (REFUSED_STREAM, "refused_stream"),
        (CANCEL, "stream_cancelled"),
        (NO_ERROR, "stream_cancelled"),
        (INTERNAL_ERROR, "stream_reset"),
    ],
)
def test_resets_by_the_server(code: int, word: str) -> None:
    with Asking() as lb:
        server, asked = lb.server()
        server.reset(1, code)
        assert asked.heard == [word] and server.peer.is_open
        lb.close()


def test_a_reset_behind_the_head_comes_after_what_came() -> None:
    with Asking() as lb:
        server, asked = lb.server()
        server.end.send_answer(1, 200, b"", b"", False)
        server.end.send_data(1, b"half", False)
        server.reset(1, REFUSED_STREAM)
        assert asked.heard == [(200, b"half", False), "stream_reset"]
        lb.close()


@pytest.mark.parametrize(("lines", "status"), [(b"content-length: 5\r\n", 200), (b"connection: close\r\n", 200)])
def test_a_malformed_answer_ends_its_stream_only(lines: bytes, status: int) -> None:
    with Asking() as lb:
        server, asked = lb.server()
        other = lb.begun()
        server.read()
        server.answer(1, b"hi", lines=lines, status=status)
        assert asked.heard[-1] in ("bad_response", "truncated_body") and server.peer.is_open
        server.answer(3)
        assert other.heard[-1] == (200, b"hi", True)
        lb.close()


@pytest.mark.parametrize(("raw", "status"), [(GET, 304), (GET, 204), (HEAD, 200)])
def test_a_body_where_none_may_be_is_not_passed_on(raw: bytes, status: int) -> None:
    with Asking() as lb:
        server, _ = lb.server()
        asked = lb.ask()
        asked.is_head = raw is HEAD
        asked.begin(prepared_by(lb, raw))
        server.read()
        server.answer(3, b"smuggled", status=status)
        assert asked.heard[-1] == "bad_response"
        server.answer(1)
        lb.close()


def test_a_head_that_is_too_long() -> None:
    with Asking(limits="{headers: 5}") as lb:
        server, asked = lb.server()
        server.answer(1, lines=b"".join([b"x%d: 1\r\n" % n for n in range(9)]))
        assert asked.heard == ["response_header_too_large"]
        lb.close()


def test_interim_answers_and_their_number() -> None:
    with Asking(limits="{interim_responses: 2}") as lb:
        server, asked = lb.server()
        for _ in range(3):
            server.end.send_answer(1, 103, b"", b"", False)
        server.say()
        assert asked.heard == [103, 103, "too_many_interim"]
        lb.close()


def secret_block(*fields: tuple[bytes, bytes]) -> bytes:
    """A block of which the fields that begin with x- are never indexed."""
    pieces = []
    for name, value in fields:
        start = b"\x10" if name.startswith(b"x-") else b"\x00"
        pieces.append(start + bytes([len(name)]) + name + bytes([len(value)]) + value)
    return b"".join(pieces)


def marks(fields: Sequence[H2Field]) -> set[bytes]:
    return {field.name for field in fields if field.is_secret}


def test_never_indexed_marks_go_on_to_servers_and_back_to_clients() -> None:
    """RFC 7541 sections 6.2.3 and 7.1.3."""
    with FakeLb(config()) as lb:
        client = Http2Client(lb)
        server: H2Server | None = None
        for is_marked in (False, True, False, True):
            number = client.end.open_stream()
            pairs = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/"))
            block = secret_block(*pairs, (b"x-token" if is_marked else b"y-token", b"1"), (b"y-other", b"2"))
            client.raw(frame(HEADERS, END_HEADERS | END_STREAM, number, block))
            if server is None:
                server = H2Server(lb, lb.accept()).greet()
            else:
                server.read()
            assert marks(server.end.heads[-1].fields) == ({b"x-token"} if is_marked else set())
            block = secret_block((b":status", b"200"), (b"x-session" if is_marked else b"y-session", b"3"))
            server.peer.send(frame(HEADERS, END_HEADERS | END_STREAM, number, block))
            client.carry()
            assert marks(client.end.heads[-1].fields) == ({b"x-session"} if is_marked else set())
        lb.runtimes[0].retire()
        lb.loop.run()


@pytest.mark.parametrize("waits", [False, True])
def test_never_indexed_marks_of_trailers_go_on_likewise(waits: bool) -> None:
    """Where they come at once, and where what they are behind waits for a window."""
    body = bytes(70_000) if waits else b"body"
    with FakeLb(config()) as lb:
        client = Http2Client(lb, OwnSettings(stream_window=65_535, connection_window=1 << 20), gives_back=False)
        server: H2Server | None = None
        for number, is_marked in ((1, True), (3, False), (5, True)):
            assert client.begin("POST") == number
            server = server or H2Server(lb, lb.accept()).greet()
            client.end.send_data(number, body, False)
            client.carry()
            block = secret_block((b"x-sum" if is_marked else b"y-sum", b"1"), (b"y-other", b"2"))
            client.raw(frame(HEADERS, END_HEADERS | END_STREAM, number, block))
            server.read()
            if waits:
                server.end.consumed(number, 70_000)
                server.say()
                server.read()
            assert marks(server.end.trailers) == ({b"x-sum"} if is_marked else set())
            server.answer(number, body[:65_535], is_end=False)
            server.more(number, body[65_535:])
            block = secret_block((b"x-left" if is_marked else b"y-left", b"3"), (b"y-more", b"4"))
            server.peer.send(frame(HEADERS, END_HEADERS | END_STREAM, number, block))
            client.carry()
            client.take(number, 65_535)
            assert marks(client.end.trailers) == ({b"x-left"} if is_marked else set())
        lb.runtimes[0].retire()
        lb.loop.run()


def test_heads_that_differ_in_their_marks_only_are_not_taken_for_each_other() -> None:
    with FakeLb(config()) as lb:
        client = Http2Client(lb)
        pairs = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/"))
        server: H2Server | None = None
        for is_marked in (False, False, True, False):
            number = client.end.open_stream()
            token = secret_block((b"x-token", b"1"))
            block = secret_block(*pairs) + (token if is_marked else b"\x00" + token[1:])
            client.raw(frame(HEADERS, END_HEADERS | END_STREAM, number, block))
            server = server or H2Server(lb, lb.accept()).greet()
            server.read()
            assert marks(server.end.heads[-1].fields) == ({b"x-token"} if is_marked else set())
            server.answer(number)
            client.carry()
        lb.runtimes[0].retire()
        lb.loop.run()


def test_equal_heads_are_read_once_and_what_ends_there_is_told_apart() -> None:
    with Asking() as lb:
        server, _ = lb.server()
        server.answer(1)
        asked = [lb.begun() for _ in range(5)]
        heads = []
        for number, body in enumerate((b"a", b"b", b"c", b"d", b"", b"")):
            one = asked[number] if number < 5 else lb.begun()
            server.read()
            server.answer(3 + 2 * number, body, lines=b"content-type: application/grpc\r\ngrpc-status: 5\r\n")
            assert one.head is not None
            heads.append(one.head)
        # The first ones changed the table that the block stands on.
        assert heads[2] is heads[3] and heads[3] is not heads[4] and heads[4] is heads[5]
        assert [head.grpc_status for head in heads] == [-1, -1, -1, -1, 5, 5]
        assert all(head.is_grpc for head in heads)
        lb.close()
