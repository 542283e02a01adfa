"""What a client's connection reads: heads in any pieces, pipelining, bodies, refusals."""

from __future__ import annotations

import itertools
import json
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.dataplane.client.http1 import Http1Connection
from tests.support.fake_transport import GET, FakeLb, Peer, body_of, ok, post, status_of
from tests.unit.dataplane.client.helpers import CHUNKED, CONFIG, HEAD, OLD, PLAIN


def test_a_host_that_was_made_up_is_that_of_its_own_connection() -> None:
    """The memo must not give the address of one local interface to a client of another."""
    with FakeLb(PLAIN) as lb:
        for _ in range(3):
            client = lb.connect()
            cast(Http1Connection, client.transport.protocol).facts._local_host = "10.0.0.1:5000"
            server = lb.exchange(client, OLD)
            assert b"Host: 10.0.0.1:5000\r\n" in server.got()
            server.send(ok(b"", "Connection: close"))
        client = lb.connect()
        cast(Http1Connection, client.transport.protocol).facts._local_host = "10.0.0.2:5000"
        server = lb.exchange(client, OLD)
        assert b"Host: 10.0.0.2:5000\r\n" in server.got()
        server.send(ok())


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


def test_an_empty_line_before_a_request_is_ignored() -> None:
    with FakeLb() as lb:
        client = lb.connect()
        client.send(b"\r\n", b"\r\n" + GET)
        lb.accept().send(ok())
        assert status_of(client.got()) == 200


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
