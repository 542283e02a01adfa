"""The life of a client's connection of HTTP/2, and its end: GOAWAY, defects, clients that take nothing."""

from __future__ import annotations

from lbproxy.dataplane.client.http2_connection import (
    DRAIN_S,
    MOST_UNTAKEN,
    READS_HEADS,
    READS_SUSPECT,
    SUSPECT_S,
)
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import DATA, MAX_STREAM_ID, NO_ERROR, PREFACE, PROTOCOL_ERROR
from lbproxy.telemetry.slots import PROCESS
from tests.support.fake_transport import FakeLb, ok
from tests.support.h2_ends import frame, headers
from tests.support.http2_client import Http2Client
from tests.unit.dataplane.client.helpers import CONFIG, connection_of, limited


def test_a_peer_that_does_not_take_its_replies_is_not_read() -> None:
    with FakeLb(limited("")) as lb:
        client = Http2Client(lb)
        client.peer.stop_reading(MOST_UNTAKEN + 1)
        client.peer.send(frames.ping(bytes(8), False))
        assert client.peer.transport.is_paused
        client.peer.read_again()
        assert not client.peer.transport.is_paused
        client.carry()
        assert ("pong", bytes(8)) in client.end.seen


def test_a_stop_is_told_twice_and_what_is_under_way_is_served() -> None:
    with FakeLb(limited("")) as lb:
        client = Http2Client(lb)
        number = client.begin()
        server = client.server()
        connection_of(lb).begin_drain(lb.clock())
        connection_of(lb).begin_drain(lb.clock())
        late = client.begin("GET", "/here", turns=False)  # on its way when the first GOAWAY came
        client.carry()
        assert client.goaways == [(MAX_STREAM_ID, NO_ERROR), (late, NO_ERROR)]
        assert client.answer(late).status == 200
        assert client.peer.is_open and not client.peer.saw_fin
        client.answered_by(server, ok())
        assert client.answer(number).is_whole
        assert client.peer.saw_fin
        assert lb.of_listener("h2_goaways_total", "stop") == 1


def test_who_does_not_answer_the_first_goaway_gets_the_second_a_second_later() -> None:
    with FakeLb(limited("")) as lb:
        client = lb.connect()
        client.send(PREFACE + frames.settings([]))
        client.got()
        lb.listener.leave(lb.clock())
        lb.loop.run()
        assert client.got().startswith(frames.goaway(MAX_STREAM_ID, NO_ERROR, b"stop"))
        lb.advance(DRAIN_S / 2)
        assert client.got() == b""
        lb.advance(DRAIN_S)
        assert client.got() == frames.goaway(0, NO_ERROR, b"stop")
        assert client.saw_fin


def test_a_broken_rule_ends_all_its_requests() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        client.begin()
        server = client.server()
        client.raw(frame(DATA, 0, 0, b"x"))
        assert client.goaways == [(1, PROTOCOL_ERROR)]
        assert not server.is_open
        assert lb.ends == ["h2_connection"]
        assert lb.of_listener("h2_goaways_total", "error") == 1


def test_a_defect_ends_one_request() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        first, second = client.begin(), client.begin()
        servers = [client.server(), client.server()]
        broken = connection_of(lb)._streams.get(first)
        assert broken is not None
        broken.broke(ZeroDivisionError("on purpose"))
        client.carry()
        assert client.answer(first).status == 500
        client.answered_by(servers[1], ok())
        assert client.answer(second).is_whole
        column = PROCESS.column("internal_errors_total")
        assert lb.services.row[column] == 1
        lb.services.row[column] = 0


def test_what_tables_are_asked_is_counted() -> None:
    """When it is swept, and when it ends."""
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        for _ in range(4):
            client.begin("GET", "/here", "x-a: b")
        assert lb.of_listener("h2_table_lookups_total", "received", "miss") == 0
        lb.advance(1.0)
        counted = [lb.of_listener("h2_table_lookups_total", "received", word) for word in ("known", "hit", "miss")]
        assert counted[0] >= 1 and counted[1] > counted[2] > 0
        client.begin("GET", "/here", "x-a: c")
        client.peer.reset()
        assert lb.of_listener("h2_table_lookups_total", "received", "miss") == counted[2] + 1


# --- the end of a turn ----------------------------------------------------------------------------------------------


def test_answers_of_a_turn_are_one_write() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        n_before = len(client.peer.transport.written)
        numbers = []
        for _ in range(3):
            numbers.append(client.begin(path="/here", turns=False))
            client.peer.send(client.end.take_output(), turns=False)
        assert len(client.peer.transport.written) == n_before
        client.carry()
        assert len(client.peer.transport.written) == n_before + 1
        assert all(client.answer(number).is_whole for number in numbers)


def test_what_was_said_in_the_turn_in_which_the_client_ends_leaves() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        number = client.begin(path="/here", turns=False)
        client.peer.send(client.end.take_output(), turns=False)
        client.peer.fin(turns=False)
        client.end.received(client.peer.got(), lb.clock())
        assert client.answer(number).is_whole
        lb.loop.run()
        assert not client.peer.is_open and client.peer.got() == b""


def test_what_was_said_in_the_turn_in_which_the_client_is_seen_to_have_left_goes_too() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        client.peer.stop_reading(MOST_UNTAKEN + 1)
        client.begin(path="/here", turns=False)
        client.peer.send(client.end.take_output())
        transport = client.peer.transport
        assert transport.is_paused and transport.on_fin is not None
        connection_of(lb).codec.ping(b"12345678")
        connection_of(lb).written()
        transport.on_fin()
        assert transport.written[-1] == frames.ping(b"12345678", False)
        lb.loop.run()
        assert not client.peer.is_open


def test_nothing_is_written_behind_a_reset() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        client.begin(path="/here", turns=False)
        client.peer.send(client.end.take_output(), turns=False)
        n_before = len(client.peer.transport.written)
        client.peer.reset()
        assert len(client.peer.transport.written) == n_before and lb.ends == ["ok"]


def test_little_is_read_at_once_until_a_body_comes() -> None:
    """What ten connections send in heads that are refused must not keep others waiting for longer than that takes."""
    with FakeLb(limited("")) as lb:
        client = Http2Client(lb)
        assert client.peer.transport.reads_at_most == READS_HEADS
        number = client.begin("POST", "/a", "content-length: 12")
        assert client.peer.transport.reads_at_most == READS_HEADS
        client.data(number, b"body")
        assert client.peer.transport.reads_at_most == 0, "as much as there is room for"


def test_whose_heads_are_refused_is_read_in_small_pieces_for_a_while() -> None:
    with FakeLb(limited("")) as lb:
        client = Http2Client(lb)
        number = client.begin("POST", "/a", "content-length: 12")
        client.data(number, b"body")
        client.raw(headers(client.end.open_stream(), [(b":method", b"GET")], is_end=True))
        assert client.peer.transport.reads_at_most == READS_SUSPECT
        client.data(number, b"more")
        assert client.peer.transport.reads_at_most == READS_SUSPECT, "a body does not end that"
        lb.advance(SUSPECT_S)
        client.begin("POST", body=b"more")
        assert client.peer.transport.reads_at_most == 0


def test_so_is_whose_heads_are_too_large() -> None:
    with FakeLb(limited("").replace("limits: {", "limits: {headers: 10, ")) as lb:
        client = Http2Client(lb)
        number = client.begin("GET", "/here", *[f"x{count}: y" for count in range(20)])
        assert client.answer(number).status == 431
        assert client.peer.transport.reads_at_most == READS_SUSPECT
