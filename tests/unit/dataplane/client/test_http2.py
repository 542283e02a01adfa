"""A client's connection of HTTP/2: how it begins, what comes on it, and what bounds that."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest

from lbproxy.dataplane.client.http2 import _MOST_TEMPLATES
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
    REFUSED_STREAM,
)
from tests.support.fake_transport import GET, FakeLb, ok, status_of
from tests.support.h2_ends import frame, headers
from tests.support.h2_servers import H2Server
from tests.support.h2_servers import config as h2_config
from tests.support.http2_client import Http2Client
from tests.unit.dataplane.client.helpers import CONFIG, PLAIN, connection_of, limited

REQUEST = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/here")]
BEGIN = PREFACE + frames.settings([]) + headers(1, REQUEST, is_end=True)


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


@pytest.mark.parametrize(("size", "end"), [(4, "client_abort"), (9, "body_timeout"), (12, "body_timeout")])
def test_data_that_stops_within_a_frame_is_too_late(size: int, end: str) -> None:
    """Four octets could be the begin of anything, which may take as long as a head."""
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        number = client.begin("POST")
        client.server()
        client.raw(frame(DATA, 1, number, b"x" * 10)[:size])
        lb.advance(5.0)
        client.carry()
        assert lb.ends == [end]


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


# --- heads that differ in what says nothing to a gateway ------------------------------------------------------------


def test_fields_that_are_new_each_time_go_on() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        server = None
        for at in range(6):
            new = [f"traceparent: 00-{at}", f"grpc-timeout: {at}S"] if at != 4 else [f"tracestate: {at}"]
            number = client.begin("GET", "/a", "user-agent: u", "accept: a", *new)
            server = server or client.server()
            lines = server.got().decode().split("\r\n")
            assert lines[:4] == ["GET /a HTTP/1.1", "Host: h", "user-agent: u", "accept: a"]
            assert lines[4 : 4 + len(new)] == new
            assert lines[4 + len(new)] == "Via: 2 lbproxy"
            client.answered_by(server, ok())
            assert client.answer(number).is_whole
        assert len(connection_of(lb)._templates) == 1
        assert lb.ends == ["ok"] * 6


def test_other_settings_hold_for_the_next_head_of_a_shape() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        server = None
        for at in range(5):
            client.begin("GET", "/a", "user-agent: u", f"traceparent: 00-{at}")
            server = server or client.server()
            client.answered_by(server, ok())
        assert connection_of(lb)._templates
        lb.listener.renew(replace(lb.listener.runtime, methods=frozenset({"POST"})))
        number = client.begin("GET", "/a", "user-agent: u", "traceparent: 00-5")
        assert client.answer(number).status == 405


def test_how_many_templates_a_connection_has_is_bounded() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        for path in range(2 * _MOST_TEMPLATES):
            for at in range(4):
                client.begin("GET", "/here", f"accept: {path}", f"traceparent: 00-{at}")
        assert 0 < len(connection_of(lb)._templates) <= _MOST_TEMPLATES


@pytest.mark.parametrize("kind", ["application/json", "application/grpc"])
def test_they_go_on_to_a_server_of_http2_but_for_the_time_of_a_call(kind: str) -> None:
    is_call = kind == "application/grpc"
    with FakeLb(h2_config()) as lb:
        client = Http2Client(lb)
        server: H2Server | None = None
        for at in range(12):
            new = [f"traceparent: 00-{at}", f"grpc-timeout: {at + 1}S", f"x-mine: {'m' * 40 * at}"]
            if at % 3 == 2:
                new.pop(1)
            front = ["user-agent: u", f"content-type: {kind}"]
            number = client.begin("POST", "/a", *front, "te: trailers", *new, body=b"b")
            server = server or H2Server(lb, client.server())
            (head,) = [entry for entry in server.read() if entry[0] == "head"]
            server.say()
            assert isinstance(head[4], bytes)
            lines = head[4].decode("latin-1").split("\r\n")
            times = [line for line in new if line.startswith("grpc-timeout")]
            passed = [line for line in new if not is_call or line not in times]
            assert lines[: len(passed) + 3] == [*front, *passed, "via: 2 lbproxy"]
            left = [f"grpc-timeout: {at + 1}000m"] if is_call and times else times
            assert [line for line in lines if line.startswith("grpc-timeout")] == left
            server.answer(2 * at + 1, b"done")
            client.carry()
            assert client.answer(number).body == b"done"
        begins = connection_of(lb)._codec._shapes._begins
        assert begins and begins[0].octets
        assert lb.ends == ["ok"] * 12
        for runtime in lb.runtimes:
            runtime.retire()
        lb.loop.run()


def test_where_a_field_that_is_new_says_which_server_it_does() -> None:
    """However the request came."""
    hashed = 'strategy: {name: consistent_hash, key: "header:x-session"}'
    config = PLAIN.replace('["127.0.0.1:9001"]', '["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"], ' + hashed)
    chosen: dict[bool, list[str]] = {}
    for is_http2 in (False, True):
        with FakeLb(config) as lb:
            client = Http2Client(lb) if is_http2 else None
            for at in range(20):
                if client is not None:
                    client.begin("GET", "/a", "user-agent: u", f"x-session: {at}")
                else:
                    lb.connect().send(b"GET /a HTTP/1.1\r\nHost: h\r\nuser-agent: u\r\nx-session: %d\r\n\r\n" % at)
            if client is not None:
                assert connection_of(lb)._templates
            chosen[is_http2] = [str(runtime.server.inflight) for runtime in lb.runtimes]
    assert chosen[False] == chosen[True] and chosen[True].count("0") == 0
