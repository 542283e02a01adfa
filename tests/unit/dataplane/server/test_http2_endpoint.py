"""Who asks a server of HTTP/2 gets a stream of a connection that is there, or waits for one that is made."""

from __future__ import annotations

import errno

import pytest

from lbproxy.dataplane.server.http2_connection import MOST_STREAMS
from lbproxy.dataplane.server.http2_endpoint import Wait
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import MAX_CONCURRENT_STREAMS
from tests.support.asking import Asked, prepared_by
from tests.support.fake_transport import FakeLb
from tests.support.h2_servers import H2Server, config
from tests.unit.dataplane.server.http2_helpers import POST, Asking


def begin_all(lb: Asking, asked: list[Asked]) -> list[Asked]:
    """Those who have a stream by now, who send their requests on it."""
    begun = [one for one in asked if one.stream is not None]
    for one in begun:
        one.begin(prepared_by(lb))
    return begun


def drop_all(lb: Asking, asked: list[Asked]) -> None:
    for one in asked:
        if one.stream is not None:
            one.stream.abort()
        elif one.pending is not None:
            one.pending.cancel()
    lb.close()


def test_one_that_stands_at_once_needs_no_task() -> None:
    with Asking() as lb:
        lb.services.dialer.at_once = lb.servers  # type: ignore[attr-defined]
        asked = lb.ask()
        assert asked.heard == [("dialled", 0.0), "opened"] and asked.pending is None
        drop_all(lb, [asked])


def test_before_the_server_has_spoken_there_is_one_stream_and_the_others_wait_for_its_word() -> None:
    with Asking() as lb:
        asked = [lb.ask() for _ in range(4)]
        assert len(lb.loop.dials) == 1 and all(isinstance(one.pending, Wait) for one in asked)
        server = lb.dialled(streams=3)
        assert [one.heard for one in asked] == [[("dialled", 0.0), "opened"], [], [], []]
        begin_all(lb, asked[:1])
        server.greet()
        assert [one.stream is not None for one in asked] == [True, True, True, False]
        begin_all(lb, asked[1:])
        assert server.ids() == [3, 5]
        server.answer(3)  # a place for who waits
        assert asked[3].stream is not None and lb.endpoint.capacity == 3
        asked[3].begin(prepared_by(lb))
        assert server.ids() == [7]
        drop_all(lb, asked)


def test_what_the_server_allowed_is_remembered_for_its_next_connection() -> None:
    with Asking() as lb:
        server, first = lb.server(streams=2)
        second = lb.begun()
        more = [lb.ask() for _ in range(5)]
        assert len(lb.loop.dials) == 3  # two on each
        lb.dialled()
        assert [one.stream is not None for one in more] == [True, True, False, False, False]
        lb.dialled()
        lb.dialled()
        assert all(one.stream is not None for one in more)
        begin_all(lb, more)
        drop_all(lb, [first, second, *more])
        assert server.peer.saw_fin


def test_the_next_connection_is_dialled_ahead() -> None:
    with Asking() as lb:
        server, first = lb.server(streams=10)
        asked = [lb.begun() for _ in range(6)]
        assert lb.loop.dials == []
        asked.append(lb.begun())
        assert len(lb.loop.dials) == 1
        asked.append(lb.begun())
        assert len(lb.loop.dials) == 1
        other = lb.dialled(streams=10).greet()
        assert server.ids() == [3, 5, 7, 9, 11, 13, 15, 17] and other.ids() == []
        asked += [lb.begun() for _ in range(3)]
        assert (server.ids(), other.ids()) == ([19], [1, 3])
        drop_all(lb, [first, *asked])


def test_a_server_that_wants_no_streams_is_not_dialled_again_and_again() -> None:
    with Asking() as lb:
        server, first = lb.server(streams=5)
        server.answer(1)
        server.peer.send(frames.settings([(MAX_CONCURRENT_STREAMS, 0)]))
        asked = [lb.ask() for _ in range(3)]
        assert lb.loop.dials == [] and all(one.stream is None for one in asked)
        server.peer.send(frames.settings([(MAX_CONCURRENT_STREAMS, 2)]))
        assert [one.stream is not None for one in asked] == [True, True, False]
        drop_all(lb, [first, *asked])


def test_any_number_of_streams_is_not_too_many() -> None:
    with Asking() as lb:
        _server, first = lb.server(streams=1 << 20)
        assert lb.endpoint.connections[0].capacity == MOST_STREAMS
        drop_all(lb, [first])


def test_a_fresh_one_is_one_that_is_made_for_it() -> None:
    with Asking() as lb:
        server, _first = lb.server()
        lb.clock.now += 1.0
        asked = lb.ask(wants_fresh=True)
        assert asked.stream is None and len(lb.loop.dials) == 1
        server.answer(1)
        assert asked.stream is None
        other = lb.dialled().greet()
        assert asked.stream is not None
        asked.begin(prepared_by(lb))
        assert other.ids() == [1] and server.ids() == []
        drop_all(lb, [asked])


def test_a_dial_that_fails_is_told_to_all_who_wait_for_it() -> None:
    with Asking() as lb:
        asked = [lb.ask() for _ in range(3)]
        lb.refuse(errno.ECONNREFUSED)
        assert [one.heard for one in asked] == [["connect_refused"]] * 3
        assert all(one.pending is None for one in asked)
        assert lb.of_servers("upstream_connects_total", "refused") == 1


def test_who_does_not_wait_any_more_hears_nothing_and_the_connection_is_kept() -> None:
    with Asking() as lb:
        asked = lb.ask()
        assert asked.pending is not None
        asked.pending.cancel()
        lb.dialled().greet()
        assert asked.heard == [] and lb.runtimes[0].n_idle == 1
        drop_all(lb, [])


def test_one_who_has_waited_too_long_is_counted_once_with_its_dial() -> None:
    with Asking() as lb:
        asked = [lb.ask() for _ in range(2)]
        for one in asked:
            assert one.pending is not None
            one.pending.expire()
        assert lb.of_servers("upstream_connects_total", "timeout") == 1
        lb.dialled().greet()
        assert [one.heard for one in asked] == [[], []]
        drop_all(lb, [])


def test_a_dial_that_takes_too_long_ends() -> None:
    with Asking() as lb:
        asked = lb.ask()
        lb.endpoint._dials[0].deadline = lb.clock() + 3.0
        lb.wait(3.0)
        assert asked.heard == ["connect_timeout"] and lb.loop.dials == []
        assert lb.of_servers("upstream_connects_total", "timeout") == 1


def test_a_dial_that_ends_as_the_connection_is_made_leaves_nothing() -> None:
    with Asking() as lb:
        asked = lb.ask()
        lb.endpoint._dials[0].deadline = lb.clock()
        server = lb.accept(turns=False)
        lb.wait(0.0)
        assert asked.heard == ["connect_timeout"] and not server.is_open and lb.runtimes[0].n_connections == 0


def test_one_that_ends_before_it_has_said_anything() -> None:
    with Asking() as lb:
        asked = [lb.ask() for _ in range(2)]
        lb.accept(turns=False).reset(turns=False)
        lb.loop.run()
        assert [one.heard[-1] for one in asked] == ["closed_unsent", "closed_unsent"]
        asked = [lb.ask() for _ in range(2)]
        server = lb.dialled()
        begin_all(lb, asked)
        lb.loop.run()
        server.peer.fin()
        assert [one.heard[-1] for one in asked] == ["closed_early", "closed_unsent"]


def test_idle_connections_beyond_the_limit_are_closed() -> None:
    with Asking(keep_alive="{idle: 1}") as lb:
        server, _first = lb.server(streams=1)
        asked = [lb.ask() for _ in range(2)]
        others = [lb.dialled(streams=1).greet() for _ in range(2)]
        begin_all(lb, asked)
        for one in (server, *others):
            one.read()
            one.answer(1)
        assert lb.runtimes[0].n_idle == 3
        lb.wait(0.1)
        assert lb.runtimes[0].n_idle == 1 and server.peer.is_open
        drop_all(lb, [])


def test_a_server_that_goes_ends_what_is_under_way_in_peace() -> None:
    with Asking() as lb:
        server, asked = lb.server()
        lb.runtimes[0].retire()
        lb.loop.run()
        assert server.peer.is_open
        server.answer(1)
        assert asked.heard == [(200, b"hi", True)] and not server.peer.is_open


# --- with whole exchanges ---------------------------------------------------------------------------------------------

TWO = '["127.0.0.1:9001", "127.0.0.1:9002"]'


@pytest.mark.parametrize("how", ["refused", "goaway"])
def test_what_was_not_processed_goes_elsewhere_whatever_its_method(how: str) -> None:
    with FakeLb(config(servers=TWO, retry="{}")) as lb:
        client = lb.connect()
        client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        server = H2Server(lb, lb.accept()).greet()
        if how == "refused":
            server.reset(1, 7)
        else:
            server.go_away(0)
        lb.advance(0.3)
        other = H2Server(lb, lb.accept()).greet()
        other.answer(1, b"done", lines=b"content-type: text/plain\r\n")
        got = client.got()
        assert got.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n") and got.endswith(
            b"4\r\ndone\r\n0\r\n\r\n"
        )
        assert lb.of_pool("retries_total", "unprocessed", "success") == 1
        for runtime in lb.runtimes:
            assert runtime.server.inflight == 0
            runtime.retire()
        client.reset()


def test_a_server_that_dies_takes_only_what_may_not_be_repeated_with_it() -> None:
    with FakeLb(config(servers=TWO, retry="{}")) as lb:
        server = None
        clients = [lb.connect() for _ in range(2)]
        clients[0].send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        server = H2Server(lb, lb.accept()).greet()
        clients[1].send(POST.replace(b"TE: trailers\r\nConnection: TE\r\n", b"") + b"0\r\n\r\n")
        other = H2Server(lb, lb.accept()).greet()
        server.peer.fin()
        other.peer.fin()
        lb.advance(0.3)
        third = H2Server(lb, lb.accept()).greet()
        third.answer(1, b"again")
        assert b"again" in clients[0].got()
        assert clients[1].got().startswith(b"HTTP/1.1 502 ")
        for runtime in lb.runtimes:
            runtime.retire()
