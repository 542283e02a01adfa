"""A connection to a server of HTTP/2: many requests at once, and what becomes of them when it, or the server, goes."""

from __future__ import annotations

import gc

import pytest

from lbproxy.dataplane.server.http2_connection import PINGS_APART_S, Http2Connection
from lbproxy.dataplane.server.http2_endpoint import Http2Endpoint
from lbproxy.dataplane.server.http2_stream import Http2Stream
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import CANCEL, INTERNAL_ERROR, NO_ERROR, PUSH_PROMISE, REFUSED_STREAM
from tests.support.asking import Asked, prepared_by
from tests.support.fake_transport import GET, FakeLb
from tests.support.h2_ends import frame
from tests.support.h2_servers import H2Server, config

POST = b"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: TE\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"


class Asking(FakeLb):
    """The endpoint of the one server, and who asks it."""

    def __init__(self, **keys: str) -> None:
        super().__init__(config(**keys))
        endpoint = self.runtimes[0].endpoint
        assert isinstance(endpoint, Http2Endpoint)
        self.endpoint = endpoint

    def ask(self, *, wants_fresh: bool = False) -> Asked:
        asked = Asked()
        self.endpoint.open(asked, self.services, self.clock(), wants_fresh=wants_fresh)
        self.loop.run()
        return asked

    def dialled(self, *, streams: int = 100) -> H2Server:
        """The dial succeeds."""
        return H2Server(self, self.accept(), streams=streams)

    def begun(self, raw: bytes = GET, body: bytes = b"", *, is_done: bool = True) -> Asked:
        """A request on a stream that is there at once."""
        asked = self.ask()
        assert asked.stream is not None, asked.heard
        asked.sent_at = self.clock()
        asked.begin(prepared_by(self, raw), body, is_done=is_done)
        return asked

    def server(self, *, streams: int = 100) -> tuple[H2Server, Asked]:
        """A server with one request, and no word of it yet but SETTINGS."""
        asked = self.ask()
        server = self.dialled(streams=streams)
        asked.sent_at = self.clock()
        asked.begin(prepared_by(self))
        server.greet()
        asked.heard.clear()
        return server, asked

    def close(self) -> None:
        """What is idle goes."""
        self.runtimes[0].retire()
        self.loop.run()
        assert self.runtimes[0].n_connections == 0 and self.endpoint.connections == []

    def open_streams(self) -> list[Http2Stream]:
        return [stream for connection in self.endpoint.connections for stream in connection.streams.values()]

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.runtimes[0].sweep(self.clock.now)
        self.loop.run()


def test_a_request_and_its_answer_in_one_piece() -> None:
    with Asking() as lb:
        asked = lb.ask()
        server = lb.dialled()
        assert asked.heard == [("dialled", 0.0), "opened"] and asked.pending is None
        asked.begin(prepared_by(lb))
        assert server.read() == [
            ("head", 1, b"GET", b"/a", b"via: 1.1 lbproxy\r\nx-request-id: 1\r\n", True),
        ]
        server.say()
        server.answer(1, b"hello", lines=b"server: x\r\n")
        assert asked.heard[2:] == [(200, b"hello", True)]
        assert lb.runtimes[0].n_idle == 1 and lb.runtimes[0].n_active == 0
        lb.close()
        assert server.read()[-1][0] == "goaway" and server.peer.saw_fin


def test_many_at_once_on_one_connection_in_any_order() -> None:
    with Asking() as lb:
        server, first = lb.server()
        others = [lb.begun() for _ in range(3)]
        assert server.ids() == [3, 5, 7] and len(lb.servers) == 1
        for number in (5, 1, 7, 3):
            server.answer(number, b"%d" % number)
        assert [asked.heard[-1] for asked in (first, *others)] == [(200, b"%d" % n, True) for n in (1, 3, 5, 7)]
        lb.close()


def test_trailers_of_both() -> None:
    with Asking() as lb:
        server, _first = lb.server()
        server.answer(1)
        asked = lb.ask()
        assert isinstance(asked.stream, Http2Stream)
        asked.stream.begin(
            asked, prepared_by(lb, POST), b"", b"ab", is_done=True, expects=False, trailers=[(b"X-Sum", b"1")]
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


def test_streams_take_turns_when_the_kernel_takes_more_again() -> None:
    with Asking() as lb:
        server, _ = lb.server()
        server.peer.stop_reading(100_000)
        connection = lb.endpoint.connections[0]
        assert not connection.has_room()
        server.peer.read_again()
        asked = [lb.begun(POST, b"", is_done=False) for _ in range(2)]
        server.peer.stop_reading(100_000)
        for one in asked:
            assert one.stream is not None
            one.stream.write(b"y" * 30_000, is_done=True, trailers=())
        server.read()
        server.peer.read_again()
        order = [entry[1] for entry in server.read() if entry[0] == "data"]
        assert order == [3, 5, 3, 5]
        for number in (1, 3, 5):
            server.answer(number)
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


def test_goaway_gives_back_what_was_not_processed() -> None:
    with Asking() as lb:
        server, first = lb.server()
        second, third = lb.begun(), lb.begun()
        server.read()
        server.go_away(3)
        assert (first.heard, second.heard[1:], third.heard[1:]) == ([], [], ["goaway_unprocessed"])
        assert lb.ask().stream is None  # another connection is needed
        other = lb.dialled().greet()
        server.answer(1)
        assert server.peer.is_open
        server.answer(3)
        assert not server.peer.is_open and first.heard[-1] == second.heard[-1] == (200, b"hi", True)
        assert other.peer.is_open
        for asked in lb.open_streams():
            asked.abort()
        lb.close()


@pytest.mark.parametrize("is_fin", [True, False])
def test_the_end_of_the_connection(is_fin: bool) -> None:
    with Asking() as lb:
        server, waiting = lb.server()
        streaming = lb.begun()
        server.read()
        server.answer(3, b"some", is_end=False)
        if is_fin:
            server.peer.fin()
        else:
            server.peer.reset()
        assert streaming.heard[1:] == [(200, b"some", False), "truncated_body"]
        assert waiting.heard == ["closed_early" if is_fin else "reset"]
        assert lb.runtimes[0].n_connections == 0


def test_one_that_was_kept_and_is_closed_as_it_is_used() -> None:
    with Asking() as lb:
        server, _first = lb.server()
        server.answer(1)
        lb.clock.now += 1.0
        asked = lb.begun()
        server.peer.fin()
        assert asked.heard[1:] == ["upstream_closed_reused_conn"]


def test_what_has_not_left_was_not_delivered() -> None:
    with Asking() as lb:
        server, _first = lb.server()
        server.answer(1)
        asked = lb.begun()
        server.peer.transport.unsent = 1 << 20
        server.peer.reset()
        assert asked.heard[1:] == ["closed_unacked"]


def test_a_server_that_breaks_the_rules_is_told_so() -> None:
    with Asking() as lb:
        server, asked = lb.server()
        server.peer.send(frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2"))
        assert asked.heard == ["h2_protocol"] and not server.peer.is_open
        assert server.read()[-1][0] == "goaway"


def test_one_that_speaks_http1() -> None:
    with Asking() as lb:
        asked = lb.ask()
        peer = lb.accept()
        asked.begin(prepared_by(lb))
        peer.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        assert asked.heard[2:] == ["h2_protocol"] and asked.details == ["it speaks HTTP/1 there"]


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


def test_a_ping_in_silence_and_what_follows_if_there_is_no_answer() -> None:
    with Asking(keep_alive="{ping: 30s}") as lb:
        server, asked = lb.server()
        server.read()
        lb.wait(29.0)
        assert server.peer.got() == b""
        lb.wait(1.0)
        assert server.peer.got() == frames.ping(b"lbproxy?", False)
        lb.wait(9.0)
        assert asked.heard == []
        lb.wait(1.0)
        assert asked.heard == ["ping_timeout"] and not server.peer.is_open


def test_pings_of_one_silence_are_few() -> None:
    with Asking(keep_alive="{ping: 30s}") as lb:
        server, asked = lb.server()
        server.read()
        pings = []
        while lb.clock.now < 2000.0 + 100.0:
            lb.wait(1.0)
            got = server.peer.got()
            if got:
                pings.append(lb.clock.now - 1000.0)
                server.end.received(got, 0.0)
                server.say()
        assert pings == [30.0, 60.0, 90.0, 400.0, 710.0, 1020.0] and PINGS_APART_S > 300.0
        server.answer(1)
        assert asked.heard == [(200, b"hi", True)]
        lb.close()


def test_no_ping_where_nothing_is_under_way() -> None:
    with Asking(keep_alive="{ping: 30s, idle_timeout: 100s}") as lb:
        server, _ = lb.server()
        server.answer(1)
        server.read()
        lb.wait(99.0)
        assert server.peer.got() == b"" and server.peer.is_open
        lb.wait(1.0)
        assert not server.peer.is_open and server.read()[0][0] == "goaway"


def test_age_and_number_of_requests_end_it_when_the_last_is_done() -> None:
    with Asking(keep_alive="{max_age: 50s}") as lb:
        server, asked = lb.server()
        lb.wait(50.0)
        assert server.peer.is_open and lb.endpoint.connections == []
        server.read()
        server.answer(1)
        assert asked.heard == [(200, b"hi", True)] and not server.peer.is_open
    with Asking(keep_alive="{max_requests: 1}") as lb:
        server, asked = lb.server()
        other = lb.ask()
        assert other.stream is None and len(lb.loop.dials) == 1
        server.answer(1)
        assert not server.peer.is_open
        lb.dialled()
        assert isinstance(other.stream, Http2Stream)
        other.stream.abort()  # the server has heard nothing of it
        lb.loop.run()
        assert lb.runtimes[0].n_connections == 0


def test_a_server_that_does_not_take_the_answers_it_asks_for_is_left() -> None:
    with Asking() as lb:
        server, asked = lb.server()
        server.peer.stop_reading(600_000)
        server.peer.send(frames.ping(b"12345678", False))
        assert asked.heard == ["h2_protocol"] and not server.peer.is_open


def test_no_request_leaves_a_cycle() -> None:
    with Asking() as lb:
        server, _ = lb.server()
        server.answer(1)
        del _
        gc.collect()
        gc.disable()
        try:
            for number in range(3, 203, 2):
                asked = lb.begun()
                server.read()
                server.answer(number)
                assert asked.heard[-1] == (200, b"hi", True)
            del asked
            gc.collect()
            left = [thing for thing in gc.get_objects() if isinstance(thing, Http2Stream)]
        finally:
            gc.enable()
        assert left == []
        lb.close()


def test_what_a_connection_knows_is_let_go() -> None:
    with Asking() as lb:
        server, asked = lb.server()
        server.answer(1)
        lb.close()
        asked.stream = None
        lb.servers.clear()
        del server
        gc.collect()
        assert not [thing for thing in gc.get_objects() if isinstance(thing, Http2Connection)]
