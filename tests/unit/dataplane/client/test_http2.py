"""A client's connection of HTTP/2: how it begins, what bounds it, and how it ends."""

from __future__ import annotations

import gc

import pytest

from lbproxy.dataplane.client.http2 import DRAIN_S, MOST_UNTAKEN, Http2Connection
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import (
    CONTINUATION,
    DATA,
    ENHANCE_YOUR_CALM,
    HEADERS,
    MAX_STREAM_ID,
    NO_ERROR,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
)
from lbproxy.telemetry.slots import PROCESS
from tests.support.fake_transport import GET, FakeLb, ok, status_of
from tests.support.h2_ends import frame, headers
from tests.support.http2_client import Http2Client
from tests.unit.dataplane.client.helpers import CONFIG

REQUEST = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/here")]
BEGIN = PREFACE + frames.settings([]) + headers(1, REQUEST, is_end=True)


def limited(limits: str, protocols: str = "[h1, h2]") -> str:
    return f"""
access_log: {{path: /dev/null}}
listeners:
- name: web
  bind: "127.0.0.1:5000"
  protocols: {protocols}
  limits: {{h2: {{{limits}}}}}
  timeouts: {{request_head: 2s, request_body: 3s, keep_alive: 40s, write: 5s}}
  routes:
  - {{match: {{path: /here}}, respond: {{status: 200, body: here}}}}
  - {{match: {{path_prefix: /}}, pool: app}}
pools: {{app: {{servers: ["127.0.0.1:9001"], health_check: off}}}}
"""


def connection_of(lb: FakeLb) -> Http2Connection:
    """The only one."""
    [found] = [item for item in lb.services.swept if isinstance(item, Http2Connection)]
    return found


# --- how it begins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, len(BEGIN)))
def test_it_may_begin_in_pieces(cut: int) -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(BEGIN[:cut], BEGIN[cut:])
        assert client.got().endswith(frame(DATA, 1, 1, b"here"))
        assert client.is_open
        assert lb.log[0]["protocol"] == "HTTP/2"


def test_octet_by_octet() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(*[BEGIN[at : at + 1] for at in range(len(BEGIN))])
        assert client.got().endswith(frame(DATA, 1, 1, b"here"))


@pytest.mark.parametrize("first", [GET, b"GET / HTTP/1.1\r\n"])
def test_only_what_comes_first_decides(first: bytes) -> None:
    """The preface behind a request of HTTP/1, or within one, is no HTTP/2."""
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(first + PREFACE)
        if first == GET:
            lb.accept().send(ok())
        assert client.got().rstrip(b"\n").endswith(b"}"), "an error of HTTP/1"


def test_what_only_looks_like_the_preface_is_refused() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
        assert client.got().endswith(b"does not begin with the preface of HTTP/2")
        assert client.saw_fin
        assert lb.of_listener("h2_goaways_total", "error") == 1


def test_a_listener_without_http_2_refuses_it() -> None:
    with FakeLb(limited("", "h1")) as lb:
        client = lb.connect()
        client.send(BEGIN)
        assert status_of(client.got()) == 505


def test_a_listener_of_http_2_only_refuses_others() -> None:
    with FakeLb(limited("", "h2")) as lb:
        client = lb.connect()
        client.send(b"GET /here HTTP/1.1\r\nHost: h\r\n\r\n")
        assert status_of(client.got()) == 505
        assert lb.ends == ["bad_version"]
        assert Http2Client(lb).begin("GET", "/here") == 1
        assert lb.ends == ["bad_version", "ok"]


def test_upgrade_to_h2c_is_not_taken() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(
            b"GET /here HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        assert status_of(client.got()) == 200
        assert lb.log[0]["protocol"] == "HTTP/1.1"


@pytest.mark.parametrize("sent", [PREFACE[:20], PREFACE, PREFACE + frames.settings([]) + BEGIN[-10:][:5]])
def test_a_client_that_begins_and_stops_has_not_long(sent: bytes) -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(sent)
        lb.advance(2.5)
        assert client.saw_fin
        assert lb.of_listener("h2_goaways_total", "timeout") == 1


def test_a_head_that_is_dripped_has_not_long() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        client.begin("GET", "/here")
        lb.advance(1.0)
        head = headers(3, REQUEST, is_end=True)
        client.raw(head[:12])
        lb.advance(1.5)
        client.raw(head[12:13])
        lb.advance(1.0)
        assert client.peer.saw_fin


def test_data_may_come_slowly() -> None:
    """A frame of DATA that takes longer than a head may, while its octets come."""
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        number = client.begin("POST")
        server = client.server()
        data = frame(DATA, 1, number, b"x" * 10)
        client.raw(data[:9])
        for octet in range(9, len(data)):
            client.raw(data[octet : octet + 1])
            lb.advance(1.0)
        client.answered_by(server, ok())
        assert client.answer(number).is_whole


@pytest.mark.parametrize("size", [4, 9, 12])
def test_data_that_stops_within_a_frame_is_too_late(size: int) -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        number = client.begin("POST")
        client.server()
        client.raw(frame(DATA, 1, number, b"x" * 10)[:size])
        lb.advance(5.0)
        client.carry()
        assert client.answer(number).status == 408 or client.peer.saw_fin
        assert lb.ends in (["body_timeout"], ["client_abort"])


def test_whoever_comes_while_lbproxy_stops_is_told_at_once() -> None:
    with FakeLb(CONFIG) as lb:
        lb.services.is_draining = True
        client = Http2Client(lb)
        client.begin("GET", "/here")
        assert (MAX_STREAM_ID, NO_ERROR) in client.goaways


# --- many requests --------------------------------------------------------------------------------------------------


def test_more_streams_than_allowed_are_refused_and_come_again() -> None:
    with FakeLb(limited("streams: 2")) as lb:
        client = Http2Client(lb)
        numbers = [client.begin() for _ in range(3)]
        assert client.answer(numbers[2]).reset == REFUSED_STREAM
        assert lb.listener.n_streams == 2
        client.answered_by(client.server(), ok())
        client.answered_by(client.server(), ok())
        assert lb.listener.n_streams == 0
        assert client.answer(client.begin("GET", "/here")).status == 200


def test_forwarding_fields_of_a_trusted_peer_are_believed() -> None:
    config = CONFIG.replace("access_log:", "trusted_proxies: [192.0.2.0/24]\naccess_log:")
    with FakeLb(config) as lb:
        client = Http2Client(lb)
        number = client.begin("GET", "/a", "x-forwarded-for: 198.51.100.9", "x-request-id: mine")
        server = client.server()
        assert b"X-Request-ID: mine\r\n" in server.got()
        client.answered_by(server, ok())
        assert client.answer(number).is_whole
        assert (lb.log[0]["client"], lb.log[0]["request_id"]) == ("198.51.100.9", "mine")


def test_no_reference_cycles_are_left() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        client.begin("GET", "/here")
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                client.begin("GET", "/here")
            assert gc.collect() == 0
        finally:
            gc.enable()


# --- floods ---------------------------------------------------------------------------------------------------------


def flood_of(what: str, count: int) -> bytes:
    head = headers(1, [*REQUEST[:3], (b":path", b"/a")])
    if what == "resets":
        return b"".join(
            headers(number, [*REQUEST[:3], (b":path", b"/a")]) + frames.rst_stream(number, 8)
            for number in range(1, 2 * count, 2)
        )
    if what == "made to reset":
        bad = [(b":method", b"GET"), (b"A", b"b")]
        return b"".join(headers(number, bad) for number in range(1, 2 * count, 2))
    if what == "settings":
        return frames.settings([]) * count
    if what == "priority":
        return frame(PRIORITY, 0, 3, bytes(5)) * count
    if what == "empty data":
        return head + frame(DATA, 0, 1) * count
    if what == "windows":
        return head + frames.window_update(1, 1) * count
    assert what == "ping"
    return frames.ping(bytes(8), False) * count


@pytest.mark.parametrize("what", ["resets", "made to reset", "settings", "priority", "empty data", "windows", "ping"])
def test_floods_end_the_connection(what: str) -> None:
    with FakeLb(limited("resets: 20 in 10s, control_frames: 50 in 10s")) as lb:
        client = Http2Client(lb)
        client.raw(flood_of(what, 200))
        assert b"ENHANCE_YOUR_CALM: too many" in client.peer.everything
        assert lb.of_listener("h2_goaways_total", "flood") == 1
        assert lb.of_listener("rejected_total", "h2_flood") == 1
        assert client.peer.saw_fin
        assert lb.listener.n_streams == 0 and lb.inflight == 0
        client.raw(flood_of(what, 200))  # is discarded, and does not make it last longer
        lb.advance(1.5)
        assert client.peer.transport.is_lost


@pytest.mark.parametrize("what", ["resets", "ping"])
def test_what_is_within_the_limits_is_served(what: str) -> None:
    with FakeLb(limited("resets: 20 in 10s, control_frames: 50 in 10s")) as lb:
        client = Http2Client(lb)
        client.raw(flood_of(what, 10))
        assert client.goaways == []
        lb.loop.run()


def test_continuation_without_end_is_ended() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        client.raw(frame(HEADERS, 1, 1, b"") + frame(CONTINUATION, 0, 1, b"") * 20)
        assert client.goaways[-1][1] == ENHANCE_YOUR_CALM


def test_a_head_with_too_many_fields_is_431_and_others_go_on() -> None:
    with FakeLb(limited("").replace("limits: {", "limits: {headers: 10, ")) as lb:
        client = Http2Client(lb)
        number = client.begin("GET", "/here", *[f"x{count}: y" for count in range(20)])
        assert client.answer(number).status == 431
        assert lb.ends == ["header_too_large"]
        assert client.answer(client.begin("GET", "/here")).status == 200


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


# --- how it ends ----------------------------------------------------------------------------------------------------


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
        assert client.got().startswith(frames.goaway(MAX_STREAM_ID, NO_ERROR, b"stop"))
        lb.advance(DRAIN_S / 2)
        assert client.got() == b""
        lb.advance(DRAIN_S)
        assert client.got() == frames.goaway(0, NO_ERROR, b"stop")
        assert client.saw_fin


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
        lb.gate.limit_to(2)
        lb.gate.make_room()
        idle.carry()
        assert not idle.peer.is_open
        assert idle.goaways == [(0, NO_ERROR)]
        lb.gate.limit_to(1)
        lb.gate.make_room()
        busy.carry()
        assert busy.goaways[0] == (MAX_STREAM_ID, NO_ERROR)
        busy.answered_by(server, ok())
        assert busy.answer(number).is_whole
        assert lb.of_listener("client_connections_evicted_total", "idle") == 1
        assert lb.of_listener("client_connections_evicted_total", "answered") == 1


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
        connection_of(lb)._streams[first].broke(ZeroDivisionError("on purpose"))
        client.carry()
        assert client.answer(first).status == 500
        client.answered_by(servers[1], ok())
        assert client.answer(second).is_whole
        column = PROCESS.column("internal_errors_total")
        assert lb.services.row[column] == 1
        lb.services.row[column] = 0


def test_what_waits_is_counted() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        client.begin()
        server = client.server()
        client.peer.stop_reading(1000)
        client.lb.loop.run()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"x" * 5000)
        assert connection_of(lb).buffered_bytes() >= 6000
