"""The client's connection: framing towards the client, keep-alive or close, pipelining, deadlines, one answer each."""

from __future__ import annotations

import itertools
import json
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.dataplane.client.downstream import Downstream
from tests.support.fake_transport import GET, FakeLb, Peer, body_of, ok, post, status_of

CONFIG = """
access_log: {path: /dev/null}
listeners:
- name: web
  bind: "127.0.0.1:5000"
  timeouts: {request_head: 2s, request_body: 3s, keep_alive: 4s, write: 5s}
  limits: {body_bytes: 1KiB, head_bytes: 1KiB, connections_per_ip: 2}
  routes:
  - {match: {path: /here}, respond: {status: 200, body: here}}
  - {match: {path: /gone}, redirect: {status: 301, location: /there}}
  - {match: {path_prefix: /}, pool: app}
pools: {app: {servers: ["127.0.0.1:9001"], health_check: off, retry: {attempts: 0}}}
"""
PLAIN = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools: {app: {servers: ["127.0.0.1:9001"], health_check: off}}
"""
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
OLD = b"GET /a HTTP/1.0\r\n\r\n"
OLD_KEPT = b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
HEAD = b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n"


def fields_of(answer: bytes) -> list[bytes]:
    """The field lines of the first head, without the ones that differ each time."""
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return [line for line in lines if not line.startswith((b"X-Request-ID:", b"Date:"))]


# --- framing of the answer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "answer", "fields", "body", "kept"),
    [
        (GET, ok(b"hi"), [b"Content-Length: 2"], b"hi", True),
        (GET, ok(b""), [b"Content-Length: 0"], b"", True),
        (GET, CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", [b"Transfer-Encoding: chunked"], b"2\r\nhi\r\n0\r\n\r\n", True),
        (GET, CHUNKED + b"2;x=y\r\nhi\r\n0\r\nA: b\r\n\r\n", [b"Transfer-Encoding: chunked"], None, True),
        (GET, CHUNKED + b"0\r\n\r\n", [b"Transfer-Encoding: chunked"], b"0\r\n\r\n", True),
        (GET, ok(b"hi", "Connection: close"), [b"Content-Length: 2"], b"hi", True),
        (OLD, ok(b"hi"), [b"Content-Length: 2", b"Connection: close"], b"hi", False),
        (OLD, CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", [b"Connection: close"], b"hi", False),
        (OLD_KEPT, ok(b"hi"), [b"Content-Length: 2", b"Connection: keep-alive"], b"hi", True),
        (OLD_KEPT, CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", [b"Connection: close"], b"hi", False),
        (HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", [b"Content-Length: 9"], b"", True),
        (HEAD, CHUNKED, [b"Transfer-Encoding: chunked"], b"", True),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n", [], b"", True),
        (GET, b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", [], b"", True),
        (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", [b"Content-Length: 7"], b"", True),
        (GET, b"HTTP/1.1 304 Not Modified\r\n\r\n", [], b"", True),
        (
            GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
            ok(b"hi"),
            [b"Content-Length: 2", b"Connection: close"],
            b"hi",
            False,
        ),
    ],
)
def test_the_answer_is_framed_for_this_client(
    request_: bytes, answer: bytes, fields: list[bytes], body: bytes | None, kept: bool
) -> None:
    with FakeLb() as lb:
        client = lb.connect()
        lb.exchange(client, request_).send(answer)
        got = client.got()
        assert got.startswith(answer.partition(b"\r\n")[0] + b"\r\n")
        assert fields_of(got) == fields
        assert body_of(got) == (body if body is not None else b"2\r\nhi\r\n0\r\n\r\n")
        assert client.saw_fin is not kept
        assert lb.ends == ["ok"]


@pytest.mark.parametrize(
    ("request_", "fields", "body", "kept"),
    [
        (GET, [b"Transfer-Encoding: chunked"], b"2\r\nhi\r\n3\r\nyou\r\n0\r\n\r\n", True),
        (OLD, [b"Connection: close"], b"hiyou", False),
        (OLD_KEPT, [b"Connection: close"], b"hiyou", False),
        (HEAD, [b"Transfer-Encoding: chunked"], b"", True),
    ],
)
def test_an_answer_that_ends_with_its_connection(request_: bytes, fields: list[bytes], body: bytes, kept: bool) -> None:
    with FakeLb() as lb:
        client = lb.connect()
        server = lb.exchange(client, request_)
        server.send(UNTIL_CLOSE + b"hi" if request_ != HEAD else UNTIL_CLOSE)
        if request_ != HEAD:
            server.send(b"you")
            assert not lb.ends
            server.fin()
        got = client.got()
        assert (fields_of(got), body_of(got)) == (fields, body)
        assert client.saw_fin is not kept
        assert not server.is_open
        assert lb.ends == ["ok"]


def test_a_body_without_length_that_is_reset_is_a_reset_for_the_client() -> None:
    with FakeLb() as lb:
        client = lb.connect()
        server = lb.exchange(client, OLD)
        server.send(UNTIL_CLOSE + b"hi")
        server.reset()
        assert client.saw_reset
        assert lb.ends == ["truncated_body"]


def test_trailers_reach_a_client_that_accepts_them() -> None:
    with FakeLb(PLAIN) as lb:
        client = lb.connect()
        accepting = GET.replace(b"\r\n\r\n", b"\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
        answer = CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nSet-Cookie: a\r\n\r\n"
        server = lb.exchange(client, accepting)
        assert b"TE: trailers\r\n" in server.got()
        server.send(answer)
        assert body_of(client.got()) == b"2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"
        client.send(GET)
        server.send(answer)
        assert body_of(client.got()) == b"2\r\nhi\r\n0\r\n\r\n"


# --- keep-alive -----------------------------------------------------------------------------------------------------


def test_connections_are_kept_on_both_sides() -> None:
    with FakeLb(PLAIN) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        for number in range(3):
            server.send(ok())
            assert status_of(client.got()) == 200
            client.send(GET)
            assert server.everything.count(b"GET /a") == number + 2
        server.send(ok())
        assert len(lb.servers) == 1 and lb.runtimes[0].server.requests == 4


def test_a_host_that_was_made_up_is_that_of_its_own_connection() -> None:
    """The memo must not give the address of one local interface to a client of another."""
    with FakeLb(PLAIN) as lb:
        for _ in range(3):
            client = lb.connect()
            cast(Downstream, client.transport.protocol).facts.local_host = "10.0.0.1:5000"
            server = lb.exchange(client, OLD)
            assert b"Host: 10.0.0.1:5000\r\n" in server.got()
            server.send(ok(b"", "Connection: close"))
        client = lb.connect()
        cast(Downstream, client.transport.protocol).facts.local_host = "10.0.0.2:5000"
        server = lb.exchange(client, OLD)
        assert b"Host: 10.0.0.2:5000\r\n" in server.got()
        server.send(ok())


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


def test_what_pipelines_behind_an_answer_that_leaves_slowly_is_served() -> None:
    with FakeLb(CONFIG.replace("write: 5s", "write: 60s")) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        client.send(GET)
        client.stop_reading(1000)
        server.send(ok(bytes(1000)))
        lb.services.is_draining = True
        for item in list(lb.services.swept):
            item.begin_drain(lb.clock())
        lb.advance(50.0)
        assert client.got().count(b"HTTP/1.1 200") == 1
        client.read_again()
        server.send(ok())
        assert b"Connection: close\r\n" in client.got()
        assert client.saw_fin


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


def test_the_lingering_close_reads_on_until_the_client_ends() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\n")
        assert status_of(client.got()) == 413
        for _ in range(5):
            client.send(bytes(1000))
            lb.advance(4.0)
        assert client.transport.calls == ["write_eof"]
        client.fin()
        assert client.transport.calls == ["write_eof", "close"]


@pytest.mark.parametrize(("chatty", "seconds"), [(False, 5.0), (True, 30.0)])
def test_the_lingering_close_is_bounded(chatty: bool, seconds: float) -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\n")
        at = lb.clock()
        while client.is_open and lb.clock() < at + 60:
            if chatty:
                client.send(b"x")
            lb.advance(0.5)
        assert seconds <= lb.clock() - at <= seconds + 1.0


# --- pipelining -----------------------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_one_by_one_in_order() -> None:
    with FakeLb(PLAIN) as lb:
        client = lb.connect()
        client.send(b"".join(GET.replace(b"/a", b"/%d" % number) for number in range(3)))
        server = lb.accept()
        for number in range(3):
            assert server.got().startswith(b"GET /%d " % number)
            server.send(ok(b"%d" % number))
            assert body_of(client.got()) == b"%d" % number
        assert lb.ends == ["ok"] * 3 and not lb.loop.dials


def test_a_pipelined_request_behind_a_body() -> None:
    with FakeLb(PLAIN) as lb:
        client = lb.connect()
        client.send(post(b"hello") + post(b"you"))
        server = lb.accept()
        assert body_of(server.got()) == b"hello"
        server.send(ok(b"1"))
        assert body_of(server.got()) == b"you"
        server.send(ok(b"2"))
        assert client.got().count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("blocked", [False, True])
def test_a_pipelined_body_longer_than_what_is_read_ahead_arrives(framing: str, blocked: bool) -> None:
    size = 100_000
    body = bytes(range(250)) * (size // 250)
    with FakeLb(PLAIN) as lb:
        client = lb.connect()
        client.send(GET)
        server = lb.accept()
        if framing == "length":
            head, sent = b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size, body
        else:
            head = b"POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            sent = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
        client.send(head + sent[:70_000])
        assert client.transport.is_paused, "the test sends less than is read ahead"
        server.got()
        if blocked:
            server.send(ok(b"", "Connection: close"))
            assert client.transport.is_paused, "no server takes it yet, so nothing may be read for it"
            server = lb.accept()
        else:
            server.send(ok())
        assert not client.transport.is_paused
        client.send(sent[70_000:])
        server.send(ok(b"thanks"))
        assert len(server.got()) >= size
        assert body_of(client.got().partition(b"\r\n\r\n")[2]) == b"thanks"
        assert lb.ends == ["ok", "ok"]


def test_an_early_answer_is_not_cut_when_the_upload_stops() -> None:
    """RFC 9110 section 9.3: a client may stop sending when it sees that its request is refused."""
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\n" + bytes(100))
        server = lb.accept()
        server.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 40\r\n\r\n" + bytes(10))
        for _ in range(3):
            lb.advance(4.0)
            server.send(bytes(10))
        assert body_of(client.got()) == bytes(40)
        assert client.saw_fin and not client.saw_reset
        assert lb.ends == ["ok"]


def test_nothing_behind_a_last_request_is_looked_at() -> None:
    with FakeLb() as lb:
        client = lb.connect()
        client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET)
        server = lb.accept()
        client.send(bytes(100_000))
        assert not client.transport.is_paused and not any(item.buffered_bytes() for item in lb.services.swept)
        server.send(ok())
        assert client.got().count(b"HTTP/1.1") == 1
        assert client.saw_fin and not lb.loop.dials
        assert lb.ends == ["ok"]


def test_reading_ahead_is_bounded_and_goes_on_later() -> None:
    with FakeLb(CONFIG.replace("respond: {status: 200, body: here}", "pool: app")) as lb:
        client = lb.connect()
        client.send(GET * 40)
        server = lb.accept()
        assert client.transport.is_paused
        for _ in range(40):
            server.send(ok())
        assert not client.transport.is_paused
        assert lb.ends == ["ok"] * 40
        assert client.got().count(b"HTTP/1.1 200") == 40


def test_many_local_answers_in_one_segment_do_not_recurse() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"GET /here HTTP/1.1\r\nHost: h\r\n\r\n" * 2000)
        assert client.got().count(b"\r\n\r\nhere") == 2000


def test_a_client_that_pipelines_and_does_not_read_is_not_served_further() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.stop_reading()
        client.send(b"GET /here HTTP/1.1\r\nHost: h\r\n\r\n" * 10)
        assert client.got() == b""
        client.read_again()
        assert client.got().count(b"\r\n\r\nhere") == 10


def test_a_client_that_has_not_taken_its_answer_is_held_back() -> None:
    """Neither is its next request begun, whose answer nothing would bound, nor is what it sends kept without end."""
    with FakeLb(PLAIN) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        client.stop_reading()
        server.send(ok(b"first"))
        client.send(post(bytes(200_000)))
        server.got()
        assert client.transport.is_paused
        client.send(bytes(100_000))
        assert sum(item.buffered_bytes() for item in lb.services.swept) < (1 << 20) + 250_000
        client.read_again()
        assert b"POST /a" in server.got()
        server.send(ok(b"second"))
        assert client.got().count(b"HTTP/1.1 200") == 2


# --- refusals and the routes' own answers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "status", "word", "closes"),
    [
        (b"GET /a HTTP/1.1\r\n\r\n", 400, "bad_host", True),
        (b"GET  /a HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request", True),
        (b"GET /a HTTP/2.0\r\nHost: h\r\n\r\n", 505, "bad_version", True),
        (b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", 405, "method_not_allowed", True),
        (b"GET /../x HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_path", False),
        (b"GET /a HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 1100 + b"\r\n\r\n", 431, "header_too_large", True),
        (b"GET /a HTTP/1.1\r\nHost: h\r\nX: \x00\r\n\r\n", 400, "bad_request", True),
        (b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2000\r\n\r\n", 413, "body_too_large", True),
        (b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400, "bad_framing", True),
        (b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "bad_transfer_coding", True),
    ],
)
def test_a_refused_head_gets_problem_json(head: bytes, status: int, word: str, closes: bool) -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(head)
        answer = client.got()
        assert status_of(answer) == status
        problem = json.loads(body_of(answer))
        assert problem["type"] == f"urn:lbproxy:fault:{word}" and problem["status"] == status
        assert (b"Connection: close\r\n" in answer) is closes and client.saw_fin is closes
        assert lb.of_listener("rejected_total", word) == 1
        assert not lb.loop.dials
        assert lb.ends == [word]


def test_a_bad_chunk_in_mid_body_resets_the_server_and_answers_400() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        server = lb.exchange(client, b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"2\r\nab\r\n")
        client.send(b"zz\r\n")
        assert status_of(client.got()) == 400
        assert server.saw_reset and lb.ends == ["bad_chunk"]


def test_the_answer_to_head_that_is_refused_has_no_body() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"HEAD /../x HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = client.got()
        assert status_of(answer) == 400 and body_of(answer) == b"" and b"Content-Length: " in answer


def test_the_routes_own_answers() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"GET /here HTTP/1.1\r\nHost: h\r\n\r\n")
        assert body_of(client.got()) == b"here"
        client.send(b"GET /gone HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = client.got()
        assert status_of(answer) == 301 and b"Location: /there\r\n" in answer
        client.send(b"OPTIONS * HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n")
        assert status_of(client.got()) == 404  # "*" is no path: no route, so nobody to ask about
        client.send(post(b"a body that nobody reads", target="/here"))
        assert body_of(client.got()) == b"here"
        assert [entry["status"] for entry in lb.log][:2] == [200, 301]


def test_a_local_answer_to_an_unfinished_request_closes() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(post(b"hello", target="/here")[:-1])
        assert b"Connection: close\r\n" in client.got()
        assert client.saw_fin


def test_too_many_connections_of_an_address() -> None:
    with FakeLb(CONFIG) as lb:
        first, second, third = (lb.connect() for _ in range(3))
        assert status_of(third.got()) == 429
        assert first.is_open and second.is_open
        other = lb.connect(("192.0.2.8", 1))
        assert other.got() == b""
        first.reset()
        third.fin()
        assert lb.connect().got() == b""


# --- deadlines ------------------------------------------------------------------------------------------------------


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


def test_an_empty_line_before_a_request_is_ignored() -> None:
    with FakeLb() as lb:
        client = lb.connect()
        client.send(b"\r\n", b"\r\n" + GET)
        lb.accept().send(ok())
        assert status_of(client.got()) == 200


# --- a client that ends its side ------------------------------------------------------------------------------------


def test_half_close_answer_serves_a_client_that_shut_down_writing() -> None:
    config = CONFIG.replace('bind: "127.0.0.1:5000"', 'bind: "127.0.0.1:5000"\n  half_close: answer')
    with FakeLb(config) as lb:
        client = lb.connect()
        client.send(GET)
        client.fin()
        lb.accept().send(ok())
        assert status_of(client.got()) == 200
        assert not client.is_open and not client.saw_reset
        assert lb.ends == ["ok"]


HALF_CLOSE = CONFIG.replace('bind: "127.0.0.1:5000"', 'bind: "127.0.0.1:5000"\n  half_close: answer')
HERE = b"GET /here HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize("queued", ["GET /a HTTP/1.1", "GET /here HTTP/1.1", "POST /a HTTP/1.1"])
def test_half_close_answer_serves_all_that_was_asked_before_the_fin(queued: str) -> None:
    """From the server and by routes; the last answer is followed by the end."""
    body = "Content-Length: 2\r\n\r\nhi" if queued.startswith("POST") else "\r\n"
    other = f"{queued}\r\nHost: h\r\n{body}".encode()
    with FakeLb(HALF_CLOSE) as lb:
        client = lb.connect()
        client.send(GET + other * 3 + HERE)
        client.fin()
        server = lb.accept()
        assert client.is_open
        server.send(ok(b"one"))
        if "/here" not in queued:
            for number in range(3):
                assert client.is_open
                server.send(ok(b"%d" % number))
        answers = client.got()
        assert answers.count(b"HTTP/1.1 200") == 5 and answers.endswith(b"\r\n\r\nhere")
        assert lb.ends == ["ok"] * 5
        assert client.transport.calls[-1] == "close" and not client.saw_reset


def test_half_close_answer_to_a_fin_between_two_requests() -> None:
    """The first answer has not left when the FIN comes, and the second request is not begun."""
    with FakeLb(HALF_CLOSE) as lb:
        client = lb.connect()
        client.stop_reading()
        client.send(HERE + HERE)
        client.fin()
        assert client.is_open
        client.read_again()
        assert client.got().count(b"\r\n\r\nhere") == 2
        assert not client.is_open and not client.saw_reset


@pytest.mark.parametrize("part", [b"GE", HERE[:-1], post(b"12345")[:-1]])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_part_of_a_request_before_the_fin_is_dropped_and_logged(part: bytes, is_first: bool) -> None:
    with FakeLb(HALF_CLOSE) as lb:
        client = lb.connect()
        if not is_first:
            client.send(GET)
        client.send(part)
        if is_first and part.startswith(b"POST"):
            lb.accept()
        client.fin()
        if not is_first:
            lb.accept().send(ok())
        assert client.got().count(b"HTTP/1.1") == (0 if is_first else 1)
        assert lb.ends == [*([] if is_first else ["ok"]), "client_abort"]
        assert lb.log[-1]["status"] == 499
        assert not client.is_open


@pytest.mark.parametrize("is_behind_fin", [True, False])
def test_a_reset_is_seen_while_nothing_is_read(is_behind_fin: bool) -> None:
    with FakeLb(HALF_CLOSE) as lb:
        client = lb.connect()
        if is_behind_fin:
            client.send(GET)
            client.fin()
        else:
            client.send(GET + b"x" * 70_000)
            assert client.transport.is_paused
            client.leave_unseen()  # a FIN is no end here
            assert lb.ends == []
        server = lb.accept()
        client.leave_unseen(by_reset=True)
        assert lb.ends == ["client_abort"] and server.saw_reset


def test_a_client_that_ends_between_answers_while_it_is_not_read() -> None:
    """What it asked in advance is not begun: in HTTP a FIN says that it has left."""
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.stop_reading()
        client.send(HERE * 40)
        assert client.transport.is_paused
        client.leave_unseen()
        assert not client.is_open and not client.saw_reset and lb.ends == []


def test_reading_does_not_flap_at_the_bound() -> None:
    """One pause for a row of answers, not one for each."""
    with FakeLb(PLAIN) as lb:
        client = lb.connect()
        client.send(GET * 34)
        server = lb.accept()
        for _ in range(16):
            server.send(ok())
            assert client.transport.is_paused
        for _ in range(18):
            server.send(ok())
        assert client.transport.calls.count("pause_reading") == 1 and not client.transport.is_paused


# --- however it is cut ----------------------------------------------------------------------------------------------

REQUESTS = st.lists(
    st.sampled_from(
        [
            GET,
            post(b"hello"),
            post(b""),
            HEAD,
            b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2;x=1\r\nde\r\n0\r\nT: 1\r\n\r\n",
            b"PUT /b?c HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nxyz",
        ]
    ),
    min_size=1,
    max_size=4,
)


def cuts(data: bytes, points: list[int]) -> list[bytes]:
    places = sorted({point % (len(data) + 1) for point in points} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def served(stream: list[bytes], answers: list[bytes]) -> tuple[list[bytes], bytes, list[str]]:
    """The requests as the server got them, what the client got, and how each ended."""
    with FakeLb(PLAIN) as lb:
        client = lb.connect()
        client.send(*stream)
        seen: list[bytes] = []
        for answer in answers:
            server = lb.accept() if lb.loop.dials else lb.servers[-1]
            message = server.got()
            seen.append(_without_id(message))
            server.send(answer)
        return seen, _without_id(client.got()), lb.ends


def _without_id(message: bytes) -> bytes:
    return b"\r\n".join(line for line in message.split(b"\r\n") if not line.startswith((b"X-Request-ID: ", b"Date: ")))


@given(REQUESTS, st.lists(st.integers(0, 1000), max_size=12))
def test_requests_mean_the_same_however_they_are_cut(requests: list[bytes], points: list[int]) -> None:
    stream = b"".join(requests)
    answers = [ok(b"%d" % number) if requests[number] != HEAD else ok(b"") for number in range(len(requests))]
    whole = served([stream], answers)
    assert whole[2] == ["ok"] * len(requests)
    pieces = served(cuts(stream, points), answers)
    assert pieces[1:] == whole[1:]
    # A chunked body is chunked anew as it comes, and a body may follow its head: compare what it carries.
    assert [_payload(message) for message in pieces[0]] == [_payload(message) for message in whole[0]]


def _payload(message: bytes) -> tuple[bytes, bytes]:
    head, _, body = message.partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" not in head:
        return head.replace(b"\r\nExpect: 100-continue", b""), body
    data = b""
    while not body.startswith(b"0\r\n"):
        size, _, body = body.partition(b"\r\n")
        data += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    assert body == b"0\r\n\r\n"
    return head, data


def test_a_request_byte_by_byte() -> None:
    for request in (GET, post(b"hello"), HEAD):
        answers = [ok(b"") if request == HEAD else ok()]
        whole = served([request], answers)
        assert served([bytes((octet,)) for octet in request], answers) == whole


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (GET, ok(b"hello")),
        (GET, CHUNKED + b"2\r\nhi\r\n3;a=b\r\nyou\r\n0\r\nT: 1\r\n\r\n"),
        (GET, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok(b"hello")),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        (OLD, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"),
    ],
)
def test_an_answer_byte_by_byte_is_the_answer(request_: bytes, answer: bytes) -> None:
    def received(pieces: list[bytes]) -> bytes:
        with FakeLb() as lb:
            client = lb.connect()
            server: Peer = lb.exchange(client, request_)
            server.send(*pieces)
            assert lb.ends == ["ok"]
            return _without_id(client.got())

    whole = received([answer])
    pieces = received([bytes((octet,)) for octet in answer])
    if b"Transfer-Encoding" in whole:
        assert _payload(pieces) == _payload(whole)
    else:
        assert pieces == whole
