"""Deadlines of a client's connection, uploads that are too slow, and stopping."""

from __future__ import annotations

import pytest

from tests.support.fake_transport import GET, FakeLb, Peer, body_of, ok, post, status_of
from tests.unit.dataplane.client.helpers import CHUNKED, CONFIG


def test_while_draining_the_answer_says_close() -> None:
    with FakeLb() as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        lb.services.is_draining = True
        server.send(ok())
        assert b"Connection: close\r\n" in client.got()
        assert client.saw_fin and not server.is_open


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("when", ["then", "pipelined", "never"])
def test_whose_answer_began_before_draining_is_told_with_the_next_one(framing: str, when: str) -> None:
    """It was promised a kept connection, so a close at the end of the body could meet its next request."""
    with FakeLb() as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        whole = ok(b"0123456789") if framing == "length" else CHUNKED + b"a\r\n0123456789\r\n0\r\n\r\n"
        cut = whole.index(b"5678")
        server.send(whole[:cut])
        assert b"Connection:" not in client.got()
        lb.services.is_draining = True
        for item in list(lb.services.swept):
            item.begin_drain(lb.clock())
        if when == "pipelined":
            client.send(GET)
        server.send(whole[cut:])
        assert client.is_open and not client.saw_fin
        if when == "never":
            lb.advance(0.8)
            assert client.is_open
            lb.advance(0.5)
            assert not client.is_open and not client.saw_reset
            return
        if when == "then":
            client.send(GET)
        client.got()
        lb.accept().send(ok(b"next"))
        assert b"Connection: close\r\n" in client.got()
        assert client.saw_fin


@pytest.mark.parametrize("how", ["kept", "close", "draining"])
def test_a_client_is_idle_when_it_has_been_sent_its_answer_and_not_before(how: str) -> None:
    """Its requests may wait behind the answer, and a close would cut that."""
    with FakeLb(CONFIG.replace("write: 5s", "write: 60s")) as lb:
        client = lb.connect()
        request = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if how == "close" else GET
        server = lb.exchange(client, request)
        client.stop_reading(1000)
        server.send(ok(bytes(1000)))
        if how == "draining":
            lb.services.is_draining = True
            for item in list(lb.services.swept):
                item.begin_drain(lb.clock())
        lb.advance(50.0)
        assert client.is_open and not client.saw_reset
        client.read_again()
        lb.advance({"kept": 3.0, "close": 4.0, "draining": 0.6}[how])
        assert client.is_open
        lb.advance(2.0)
        assert not client.is_open and not client.saw_reset


@pytest.mark.parametrize("unsent", [0, 1000])
def test_an_answer_that_has_not_left_when_grace_is_over_is_cut_and_counted(unsent: int) -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        client.stop_reading(unsent)
        server.send(ok(bytes(1000)))
        for item in list(lb.services.swept):
            item.shut_down()
        lb.loop.run()
        assert not client.is_open
        assert client.saw_reset is bool(unsent) and lb.services.n_cut == bool(unsent)


def test_an_idle_connection_gets_a_second_when_draining_begins() -> None:
    with FakeLb() as lb:
        client = lb.connect()
        for item in list(lb.services.swept):
            item.begin_drain(lb.clock())
        lb.advance(0.8)
        assert client.is_open
        lb.advance(0.5)
        assert not client.is_open and not client.saw_reset


def test_a_client_that_sends_nothing_is_closed_in_silence() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        lb.advance(2.3)
        assert client.got() == b"" and client.saw_fin and not client.saw_reset
        assert not lb.log


def test_a_head_that_trickles_gets_408() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"GET /a HTTP/1.1\r\n")
        for _ in range(8):
            lb.advance(0.3)
            client.send(b"X: y\r\n")
        assert status_of(client.got()) == 408
        assert lb.ends == ["header_timeout"]


def test_a_body_that_stalls_gets_408_but_not_one_that_trickles() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        server = lb.exchange(client, post(b"0123456789")[:-10])
        for _ in range(5):
            lb.advance(2.0)
            client.send(b"x")
        assert client.got() == b""
        lb.advance(3.3)
        assert status_of(client.got()) == 408 and server.saw_reset
        assert lb.ends == ["body_timeout"]


RATED = CONFIG.replace("limits: {body_bytes: 1KiB,", "limits: {min_rate: 100, body_bytes: 64KiB,")
HEADER = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n"


def trickle(lb: FakeLb, client: Peer, seconds: int, per_s: int) -> None:
    for _ in range(seconds):
        lb.advance(1.0)
        client.send(b"x" * per_s)


def test_an_upload_below_min_rate_gets_408_after_the_grace() -> None:
    with FakeLb(RATED) as lb:
        client = lb.connect()
        server = lb.exchange(client, HEADER)
        trickle(lb, client, 9, 90)
        assert client.got() == b"" and server.is_open
        trickle(lb, client, 2, 90)
        answer = client.got()
        assert status_of(answer) == 408 and b"urn:lbproxy:fault:body_too_slow" in answer
        assert server.saw_reset and client.saw_fin
        assert lb.ends == ["body_too_slow"]
        assert lb.of_listener("rejected_total", "body_too_slow") == 1


def test_an_early_answer_is_not_cut_when_the_upload_becomes_too_slow() -> None:
    with FakeLb(RATED.replace("request_body: 3s", "request_body: 300s")) as lb:
        client = lb.connect()
        client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\n" + bytes(100))
        server = lb.accept()
        server.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 40\r\n\r\n")
        for _ in range(4):
            lb.advance(10.0)
            server.send(bytes(10))
        assert body_of(client.got()) == bytes(40)
        assert client.saw_fin and not client.saw_reset
        assert lb.ends == ["ok"]


def test_an_upload_at_min_rate_is_served() -> None:
    with FakeLb(RATED) as lb:
        client = lb.connect()
        server = lb.exchange(client, HEADER)
        client.send(b"x" * 100)
        trickle(lb, client, 40, 100)
        client.send(b"x" * (60000 - 4100))
        server.send(ok())
        assert status_of(client.got()) == 200


def test_time_in_which_lbproxy_does_not_read_an_upload_is_not_the_client_s() -> None:
    slow_server = RATED.replace("retry: {attempts: 0}", "retry: {attempts: 0}, timeouts: {write: 100s}")
    with FakeLb(slow_server) as lb:
        client = lb.connect()
        server = lb.exchange(client, HEADER)
        server.stop_reading()
        client.send(b"x" * 300)
        lb.advance(60.0)
        assert client.got() == b"", "408 although it was the server that did not read"
        server.read_again()
        trickle(lb, client, 2, 300)
        client.send(b"x" * (60000 - 900))
        server.send(ok())
        assert status_of(client.got()) == 200


def test_a_client_that_waits_for_100_is_not_slow() -> None:
    queued = RATED.replace("retry: {attempts: 0}", "retry: {attempts: 0}, max_inflight: 1, queue: {timeout: 60s}")
    with FakeLb(queued) as lb:
        first, client = lb.connect(), lb.connect()
        server = lb.exchange(first, GET)
        client.send(HEADER.replace(b"Host: h", b"Host: h\r\nExpect: 100-continue"))
        lb.advance(30.0)
        assert client.got() == b"", "408 although it had to wait for its 100"
        server.send(ok())
        assert server.got().endswith(b"Expect: 100-continue\r\n\r\n")
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.got() == b"HTTP/1.1 100 Continue\r\n\r\n"
        trickle(lb, client, 11, 90)
        assert status_of(client.got()) == 408
        assert lb.ends == ["ok", "body_too_slow"]


def test_after_100_a_body_that_does_not_come_has_stalled() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        server = lb.exchange(client, post(b"0123456789", "Expect: 100-continue")[:-10])
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.got() == b"HTTP/1.1 100 Continue\r\n\r\n"
        lb.advance(2.7)
        assert client.got() == b""
        lb.advance(0.6)
        assert status_of(client.got()) == 408
        assert lb.ends == ["body_timeout"]


def test_a_kept_connection_is_closed_after_keep_alive() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        lb.exchange(client, GET).send(ok())
        lb.advance(3.9)
        assert client.is_open
        lb.advance(0.4)
        assert client.saw_fin and not client.saw_reset
