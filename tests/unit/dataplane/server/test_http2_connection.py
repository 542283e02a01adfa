"""A connection to a server of HTTP/2: many requests at once, and what becomes of them when it, or the server, goes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from lbproxy.dataplane.net.tls_transport import TlsTransport
from lbproxy.dataplane.server.http2_connection import PINGS_APART_S, Http2Connection
from lbproxy.dataplane.server.http2_stream import Http2Stream
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import PUSH_PROMISE
from tests.support.asking import Asked, prepared_by
from tests.support.fake_transport import FakeLb, Peer, post, status_of
from tests.support.h2_ends import frame
from tests.support.h2_servers import H2Server, config
from tests.unit.dataplane.server.http2_helpers import POST, Asking


def test_a_request_and_its_answer_in_one_piece() -> None:
    with Asking() as lb:
        asked = lb.ask()
        server = lb.dialled()
        assert asked.heard == [("dialled", 0.0), "opened"] and asked.pending is None
        asked.begin(prepared_by(lb))
        assert server.read() == [
            ("head", 1, b"GET", b"/a", b"via: 1.1 lbproxy\r\nx-forwarded-for: 192.0.2.1\r\nx-request-id: 1\r\n", True),
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
        lb.loop.run()
        server.peer.fin()
        assert asked.heard[1:] == ["upstream_closed_reused_conn"]


def test_what_has_not_left_was_not_delivered() -> None:
    with Asking() as lb:
        server, _first = lb.server()
        server.answer(1)
        asked = lb.begun()
        lb.loop.run()
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


def test_what_tables_are_asked_is_counted() -> None:
    with Asking() as lb:
        server, _ = lb.server()
        server.answer(1, lines=b"x-a: b\r\n")
        lb.wait(1.0)
        assert lb.of_servers("upstream_h2_table_lookups_total", "received", "miss") > 0
        assert lb.of_servers("upstream_h2_table_lookups_total", "sent", "miss") > 0
        before = lb.of_servers("upstream_h2_table_lookups_total", "sent", "miss")
        lb.wait(1.0)
        assert lb.of_servers("upstream_h2_table_lookups_total", "sent", "miss") == before
        lb.close()


# --- the end of a turn ----------------------------------------------------------------------------------------------


def kept(lb: FakeLb) -> H2Server:
    """A server that has answered a request, and its connection is kept."""
    client = lb.connect()
    client.send(post())
    server = H2Server(lb, lb.accept()).greet()
    server.answer(1)
    assert status_of(client.got()) == 200
    client.fin()
    return server


def begun_at_once(lb: Asking, n: int, body: bytes = b"body") -> list[Asked]:
    """Requests in the same turn of the loop."""
    asked = [lb.ask() for _ in range(n)]
    for one in asked:
        one.begin(prepared_by(lb, POST), body)
    return asked


def ends() -> list[Callable[[Peer], None]]:
    return [lambda peer: peer.fin(turns=False), lambda peer: peer.reset(turns=False)]


def test_what_is_said_in_a_turn_is_one_write() -> None:
    with Asking() as lb:
        server, _first = lb.server()
        server.read()
        n_before = len(server.peer.transport.written)
        asked = begun_at_once(lb, 3)
        asked[0].stream.abort()  # type: ignore[union-attr]
        assert len(server.peer.transport.written) == n_before
        lb.loop.run()
        assert len(server.peer.transport.written) == n_before + 1
        assert [entry[:2] for entry in server.read()] == [
            *[(what, number) for number in (3, 5, 7) for what in ("head", "data")],
            ("reset", 3),
        ]
        server.peer.reset()


def test_what_is_much_does_not_wait() -> None:
    with Asking() as lb:
        server, _first = lb.server()
        server.read()
        n_before = len(server.peer.transport.written)
        begun_at_once(lb, 5, b"b" * 16_000)
        assert len(server.peer.transport.written) == n_before + 1
        server.peer.reset()


@pytest.mark.parametrize("end", ends(), ids=["fin", "reset"])
def test_a_request_that_waits_when_the_connection_dies_goes_elsewhere_once(end: Callable[[Peer], None]) -> None:
    """Even a POST: nothing of it has left, and nothing leaves afterwards."""
    with FakeLb(config(retry="{attempts: 1}")) as lb:
        server = kept(lb)
        server.read()
        clients = [lb.connect() for _ in range(2)]
        for client in clients:
            client.send(post(), turns=False)
        end(server.peer)
        lb.loop.run()
        assert server.read() == []
        other = H2Server(lb, lb.accept()).greet()
        for number in (1, 3):
            other.answer(number)
        assert [status_of(client.got()) for client in clients] == [200, 200]
        assert [entry["attempts"] for entry in lb.log] == [1, 2, 2]
        lb.runtimes[0].retire()


def test_what_the_kernel_did_not_take_is_not_sent_behind_the_end_of_the_server() -> None:
    with Asking() as lb:
        server, _first = lb.server()
        server.answer(1)
        asked = lb.begun(POST, b"body")
        lb.loop.run()
        server.peer.transport.unsent = 1 << 20
        server.peer.fin()
        assert asked.heard[1:] == ["closed_unacked"] and server.peer.saw_reset


@pytest.mark.parametrize("end", ends(), ids=["fin", "reset"])
def test_what_has_left_before_is_not_repeated(end: Callable[[Peer], None]) -> None:
    with Asking() as lb:
        server, _first = lb.server()
        server.answer(1)
        left, waiting = lb.ask(), lb.ask()
        left.begin(prepared_by(lb, POST), b"body")
        lb.loop.run()
        waiting.begin(prepared_by(lb, POST), b"body")
        end(server.peer)
        lb.loop.run()
        assert server.ids() == [3]
        assert waiting.heard[1:] == ["closed_unacked"] and left.heard[1:] != ["closed_unacked"]


def test_the_kernel_of_the_server_has_taken_nothing_of_a_turn() -> None:
    """Both left in one write, of which nothing was acknowledged."""
    with Asking() as lb:
        server, _first = lb.server()
        server.answer(1)
        server.peer.transport.sock.bytes_acked = 1 + len(server.peer.everything)
        asked = begun_at_once(lb, 2)
        lb.loop.run()
        server.peer.fin()
        assert [one.heard[-1] for one in asked] == ["closed_unacked"] * 2


class PretendTls(TlsTransport):
    """Records that are so much longer than what they hold, and no secret."""

    OVERHEAD = 22

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.wire_written = 0

    def write(self, data: Any) -> None:
        self.wire_written += len(data) + self.OVERHEAD
        self._raw.write(data)

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._raw.get_extra_info(name, default)


def test_what_records_add_does_not_make_it_look_as_if_a_request_had_not_left() -> None:
    with Asking() as lb:
        server, _first = lb.server()
        server.answer(1)
        [connection] = lb.endpoint.connections
        tls = connection._transport = PretendTls(server.peer.transport)
        left = lb.begun(POST, b"body")
        lb.loop.run()
        before = tls.wire_written
        held = []
        for _ in range(40):
            held.append(lb.begun(POST, b"body"))
            lb.loop.run()
        server.peer.transport.unsent = tls.wire_written - before
        waiting = lb.begun(POST, b"body")
        server.peer.reset()
        assert left.heard[1:] != ["closed_unacked"]
        assert [one.heard[1:] for one in (*held, waiting)] == [["closed_unacked"]] * 41
