"""How a client's connection lives and ends: kept, lingering, half-closed, reset."""

from __future__ import annotations

import pytest

from tests.support.fake_transport import GET, FakeLb, ok, post, status_of
from tests.unit.dataplane.client.helpers import CONFIG, PLAIN

CLOSING = post(b"hello", "Connection: close")


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


@pytest.mark.parametrize(
    ("request_bytes", "is_last_word"),
    [
        (CLOSING, True),
        (CLOSING + b"\r\n", False),  # some clients' CR LF behind a body
        (CLOSING.replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (CLOSING.replace(b"/a", b"/no/such/route"), False),
        (CLOSING.replace(b"Content-Length: 5", b"Content-Length: 9"), False),
        (CLOSING.replace(b"Connection: close\r\n", b""), False),
    ],
    ids=["said so", "and went on", "HTTP/1.0", "refused", "its body is not all there", "the server ends it"],
)
def test_a_client_that_says_it_sends_no_more_is_not_waited_for(request_bytes: bytes, is_last_word: bool) -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(request_bytes)
        if lb.loop.dials:
            lb.services.is_draining = b"close" not in request_bytes
            lb.accept().send(ok())
        assert status_of(client.got()) in (200, 404)
        assert client.transport.calls == ["expect_nothing", "write_eof"] if is_last_word else ["write_eof"]
        client.fin()


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


def test_a_part_of_a_request_is_the_peer_s_own_whoever_asked_before() -> None:
    with FakeLb("trusted_proxies: [192.0.2.0/24]" + PLAIN) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.5\r\n\r\n"))
        server.send(ok())
        client.send(b"GET /b HT")
        client.fin()
        assert [entry["client"] for entry in lb.log] == ["203.0.113.5", "192.0.2.7"]


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
