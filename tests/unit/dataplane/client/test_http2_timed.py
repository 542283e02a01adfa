"""What time does to a client's connection of HTTP/2, and how it makes way and stops."""

from __future__ import annotations

from lbproxy.protocol.h2.codes import MAX_STREAM_ID, NO_ERROR
from tests.support.fake_transport import FakeLb, ok
from tests.support.h2_servers import H2Server, config
from tests.support.http2_client import Http2Client
from tests.unit.dataplane.client.helpers import CONFIG, connection_of, limited


def test_a_client_that_takes_nothing_is_reset() -> None:
    with FakeLb(limited("")) as lb:
        client = Http2Client(lb)
        number = client.begin()
        server = client.server()
        client.peer.stop_reading()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 1000)
        lb.advance(6.0)
        assert client.peer.saw_reset and number
        assert lb.ends == ["client_write_timeout"]


def test_an_idle_connection_is_ended() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        client.begin("GET", "/here")
        lb.advance(3.5)
        assert client.peer.is_open
        lb.advance(1.0)
        client.carry()
        assert client.goaways == [(1, NO_ERROR)]
        assert client.peer.saw_fin
        assert lb.of_listener("h2_goaways_total", "idle") == 1
        client.peer.fin()
        assert client.peer.transport.is_lost


def test_a_connection_with_a_request_is_not_idle() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        number = client.begin()
        server = client.server()
        lb.advance(30.0)
        client.answered_by(server, ok())
        assert client.answer(number).is_whole


def test_an_old_connection_is_ended_and_its_requests_are_not() -> None:
    with FakeLb(limited("max_age: 10s")) as lb:
        client = Http2Client(lb)
        number = client.begin()
        server = client.server()
        lb.advance(8.5)
        client.carry()
        assert client.goaways == []
        lb.advance(2.0)
        client.carry()
        assert client.goaways[0] == (MAX_STREAM_ID, NO_ERROR)
        assert lb.of_listener("h2_goaways_total", "max_age") == 1
        client.answered_by(server, ok())
        assert client.answer(number).is_whole
        assert client.peer.saw_fin


def test_a_client_that_stops_within_a_head_while_it_is_told_to_leave_ends_its_requests() -> None:
    with FakeLb(limited("")) as lb:
        client = Http2Client(lb)
        number = client.begin()
        server = client.server()
        connection_of(lb).begin_drain(lb.clock())
        client.carry()
        assert client.goaways[-1] == (number, NO_ERROR)
        client.raw(b"\0\0")
        lb.advance(2.5)
        assert client.peer.saw_fin and not server.is_open
        assert lb.ends == ["client_abort"]


def test_when_the_grace_is_over_what_is_left_is_cut() -> None:
    with FakeLb(limited("")) as lb:
        client = Http2Client(lb)
        begun, waiting = client.begin(), client.begin()
        server = client.server()
        client.server()
        client.answered_by(server, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")
        for item in list(lb.services.swept):
            item.shut_down()
        lb.loop.run()
        client.end.received(client.peer.got(), lb.clock())
        assert not client.answer(begun).is_whole and client.answer(begun).reset is not None
        assert client.answer(waiting).status == 503
        assert lb.services.n_cut == 2
        assert sorted(lb.ends) == ["draining", "shutdown"]


def test_an_idle_one_makes_way_and_a_busy_one_takes_no_more() -> None:
    with FakeLb(limited("")) as lb:
        idle, busy = Http2Client(lb), Http2Client(lb)
        number = busy.begin()
        server = busy.server()
        lb.advance(2.0)
        lb.gate.limit_to(2, 2)
        lb.gate.make_room()
        idle.carry()
        assert not idle.peer.is_open
        assert idle.goaways == [(0, NO_ERROR)]
        lb.gate.limit_to(1, 1)
        lb.gate.make_room()
        busy.carry()
        assert busy.goaways[0] == (MAX_STREAM_ID, NO_ERROR)
        busy.answered_by(server, ok())
        assert busy.answer(number).is_whole
        assert lb.of_listener("client_connections_evicted_total", "idle") == 1
        assert lb.of_listener("client_connections_evicted_total", "answered") == 1


def test_what_waits_is_counted() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        client.begin()
        server = client.server()
        client.peer.stop_reading(1000)
        client.lb.loop.run()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"x" * 5000)
        assert connection_of(lb).buffered_bytes() >= 6000


def test_a_stream_of_a_day_is_not_cut() -> None:
    """Messages in both directions, with pauses; every time-out is as it is by default, and all of them mean silence."""
    pause_s, n_pauses = 20.0, 24 * 180
    with FakeLb(config()) as lb:
        client = Http2Client(lb)
        number = client.begin("POST", "/long", "content-type: application/grpc", "te: trailers")
        server = H2Server(lb, lb.accept()).greet()
        client.carry()
        upstream = 1
        server.end.gives_back = True
        server.answer(upstream, b"", lines=b"content-type: application/grpc\r\n", is_end=False)
        for turn in range(n_pauses):
            assert client.data(number, b"%06d" % turn) == 6
            server.read()
            server.more(upstream, b"%06d" % turn)
            client.carry()
            lb.clock.now += pause_s - 1.0  # without all the sweeps of that time
            lb.advance(1.0)
            server.read()
            server.say()  # answers to PINGs
            client.carry()
            if turn % 500 == 0:
                assert client.answer(number).reset is None and lb.ends == []
        client.data(number, b"", is_end=True)
        server.read()
        server.end.send_trailers(upstream, b"grpc-status: 0\r\n")
        server.say()
        client.carry()
        answer = client.answer(number)
        assert answer.is_whole and answer.trailers == {"grpc-status": "0"}
        assert len(answer.body) == 6 * n_pauses
        assert lb.ends == ["ok"]
        assert lb.clock() > 24 * 3600
        server.peer.fin()
        lb.loop.run()
