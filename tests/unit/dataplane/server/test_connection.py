"""May a server's connection be kept, and for how long?"""

from __future__ import annotations

import pytest

from tests.support.fake_transport import GET, FakeLb, body_of, ok, post, status_of
from tests.unit.dataplane.server.helpers import asked, config


@pytest.mark.parametrize(
    ("request_", "answer", "kept"),
    [
        (GET, ok(), True),
        (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", True),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (GET, b"HTTP/1.1 304 Not Modified\r\n\r\n", True),
        (b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", True),
        (GET, ok(status="500 Internal Server Error"), True),
        (GET, ok(b"hi", "Connection: close"), False),
        (GET, ok(b"hi", "connection: Foo, CLOSE"), False),
        (GET, ok().replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (GET, ok(b"hi", "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"), True),
        (GET, ok() + b"!", False),
        (GET, ok() + ok(), False),
        (b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n", ok(b"hello"), False),  # a body where none may be
        (GET, b"HTTP/1.1 204 No Content\r\n\r\nhello", False),
        (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n!", False),
    ],
)
def test_a_connection_is_kept_if_the_end_of_the_answer_is_beyond_doubt(
    request_: bytes, answer: bytes, kept: bool
) -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb, request_)
        server.send(answer)
        assert status_of(client.got()) in (200, 204, 304, 500)
        assert lb.n_idle == kept and server.is_open is kept
        assert not server.saw_reset
        assert lb.ends == ["ok"]


def test_a_connection_whose_server_has_not_taken_the_whole_request_is_not_kept() -> None:
    """The next request would stand behind the rest of this one, in a buffer that grows."""
    with FakeLb(config()) as lb:
        client, server = asked(lb, post(bytes(100_000)))
        server.stop_reading()
        server.send(ok(b"early"))
        assert body_of(client.got()) == b"early"
        assert lb.n_idle == 0 and server.saw_reset
        client.send(GET)
        lb.accept().send(ok(b"next"))
        assert body_of(client.got()) == b"next"
        assert lb.ends == ["ok", "ok"]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\nno"])
def test_a_server_that_ended_and_does_not_take_the_rest_of_the_request_is_reset(answer: bytes) -> None:
    """Closing would wait for it, with a descriptor that nobody counts."""
    with FakeLb(config()) as lb:
        client, server = asked(lb, post(bytes(100_000)))
        server.stop_reading()
        if answer:
            server.send(answer)
        server.fin()
        assert server.saw_reset and not server.is_open
        assert status_of(client.got()) == (413 if answer else 502)


def test_surplus_bytes_never_answer_the_next_request() -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        server.send(ok(b"mine") + ok(b"poison"))
        assert body_of(client.got()) == b"mine"
        client.send(GET)
        lb.accept().send(ok(b"next"))
        assert body_of(client.got()) == b"next"
        assert lb.of_servers("upstream_errors_total", "extra_data") == 1


def test_bytes_on_an_idle_connection_close_it() -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        server.send(ok())
        server.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        assert not server.is_open and lb.n_idle == 0
        assert lb.of_servers("upstream_errors_total", "extra_data") == 1
        assert status_of(client.got()) == 200
        assert lb.ends == ["ok"]


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_an_idle_connection_that_the_server_ends_is_forgotten(end: str) -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        server.send(ok())
        getattr(server, end)()
        assert lb.n_idle == 0 and not server.is_open
        client.send(GET)
        lb.accept().send(ok())
        assert lb.ends == ["ok", "ok"]
        assert sum(runtime.server.errors for runtime in lb.runtimes) == 0


def test_keep_alive_off_says_close_and_closes() -> None:
    with FakeLb(config(keep_alive="off")) as lb:
        _, server = asked(lb)
        assert b"Connection: close\r\n" in server.got()
        server.send(ok())
        assert not server.is_open and lb.n_idle == 0


def test_max_requests_and_max_age_end_a_connection() -> None:
    with FakeLb(config(keep_alive="{max_requests: 2}")) as lb:
        client, server = asked(lb)
        server.send(ok())
        client.send(GET)
        server.send(ok())
        assert not server.is_open and lb.ends == ["ok", "ok"]
    with FakeLb(config(keep_alive="{max_age: 3s, idle_timeout: 60s}")) as lb:
        client, server = asked(lb)
        lb.advance(2.0)
        server.send(ok())
        assert lb.n_idle == 1
        lb.advance(1.3)
        assert lb.n_idle == 0 and not server.is_open


def test_the_server_s_keep_alive_time_out_is_undercut() -> None:
    with FakeLb(config(keep_alive="{idle_timeout: 60s}")) as lb:
        _, server = asked(lb)
        server.send(ok(b"hi", "Connection: keep-alive", "Keep-Alive: timeout=5"))
        lb.advance(3.7)
        assert lb.n_idle == 1
        lb.advance(0.6)
        assert lb.n_idle == 0 and not server.is_open


@pytest.mark.parametrize(
    ("field", "is_kept"),
    [
        ("timeout=0", False),
        ("timeout=00, max=9", False),
        ("timeout=5, max=0", False),
        ("max=00", False),
        ("timeout=1", True),
        ("timeout=5, max=1", True),
        ("timeout=5, max=01", True),
        ("max=100", True),
        ("timeout", True),
    ],
)
def test_nought_is_a_promise_to_close_at_once(field: str, is_kept: bool) -> None:
    with FakeLb(config(keep_alive="{idle_timeout: 60s}")) as lb:
        _, server = asked(lb)
        server.send(ok(b"hi", "Connection: keep-alive", f"Keep-Alive: {field}"))
        assert (lb.n_idle == 1) is is_kept and server.is_open is is_kept


def closed_after(lb: FakeLb, silence_s: float) -> None:
    """One request, and then the server closes its connection after so much silence."""
    client, server = asked(lb)
    server.send(ok())
    client.got()
    while silence_s > 0.2:
        lb.advance(0.2)
        silence_s -= 0.2
    lb.advance(silence_s)
    assert server.is_open
    server.fin()
    client.fin()
    lb.advance(1.0)


def test_connections_are_retired_before_the_server_closes_them() -> None:
    with FakeLb(config(keep_alive="{idle_timeout: 60s}")) as lb:
        for _ in range(2):
            closed_after(lb, 2.0)
        learned = lb.runtimes[0].server.idle_timeout.learned_s
        assert 1.9 < learned < 2.2
        _, server = asked(lb)
        server.send(ok())
        lb.advance(1.4)
        assert lb.n_idle == 1
        lb.advance(0.5)
        assert lb.n_idle == 0 and not server.is_open


def crossed(lb: FakeLb, silence_s: float, *, is_acked: bool) -> None:
    """A request goes out on a kept connection while the server's FIN is on its way."""
    client, server = asked(lb)
    server.send(ok())
    lb.advance(silence_s)
    sock = server.transport.sock
    sock.bytes_acked = 1 + sum(map(len, server.transport.written))
    client.send(GET)
    if is_acked:
        sock.bytes_acked = 1 + sum(map(len, server.transport.written))
    server.fin()
    client.fin()
    lb.advance(1.0)


@pytest.mark.parametrize("is_acked", [False, True])
def test_a_fin_that_crosses_a_request_tells_the_age_too(is_acked: bool) -> None:
    """If the server had taken the request in, its FIN was no idle time-out."""
    with FakeLb(config(keep_alive="{idle_timeout: 60s}")) as lb:
        for _ in range(2):
            crossed(lb, 2.0, is_acked=is_acked)
        learned = lb.runtimes[0].server.idle_timeout.learned_s
        assert (1.9 < learned < 2.2) is not is_acked
        assert bool(learned) is not is_acked


@pytest.mark.parametrize("end", ["idle", "reset", "crossed"])
def test_a_server_that_closes_after_each_answer_gets_one_request_a_connection(end: str) -> None:
    """It does not say so, and closes some milliseconds later: whoever asks again at once is lost."""
    with FakeLb(config(keep_alive="{idle_timeout: 60s}")) as lb:
        client = lb.connect()
        for _ in range(2):
            server = lb.exchange(client, GET)
            server.send(ok())
            lb.advance(0.005)
            if end != "idle":
                server.transport.sock.bytes_acked = 1 + sum(map(len, server.transport.written))
                client.send(post())
            server.reset() if end == "reset" else server.fin()
            lb.advance(0.001)
        client.got()
        assert lb.runtimes[0].most_requests == 1
        for _ in range(3):
            server = lb.exchange(client, post())
            server.send(ok())
            assert status_of(client.got()) == 200
            assert not server.is_open and server.saw_fin
        # ... and now and then it is looked at what the server does, which costs no request.
        lb.advance(11.0)
        server = lb.exchange(client, post())
        server.send(ok())
        assert server.is_open and lb.n_idle == 1
        lb.exchange(client, post()).send(ok())
        lb.advance(0.005)
        server.fin()
        assert lb.runtimes[0].most_requests == 1 and lb.n_idle == 0
        lb.advance(30.0)
        client = lb.connect()
        server = lb.exchange(client, post())
        server.send(ok())
        lb.advance(1.5)
        assert not server.is_open
        lb.exchange(client, post()).send(ok())
        assert lb.n_idle == 1, "it keeps connections now"


def test_a_server_that_crashes_on_requests_still_has_its_connections_kept() -> None:
    """It takes a while over each: so it was not the end of an idle connection that the request met."""
    with FakeLb(config(keep_alive="{idle_timeout: 60s}")) as lb:
        client = lb.connect()
        for _ in range(4):
            server = lb.exchange(client, GET)
            server.send(ok())
            client.send(post())
            lb.advance(0.3)
            server.reset()
        assert lb.runtimes[0].most_requests > 1 << 30
        assert lb.runtimes[0].server.idle_timeout.learned_s == 0.0


def test_a_restart_that_closes_everything_at_once_teaches_nothing() -> None:
    with FakeLb(config(keep_alive="{idle_timeout: 60s}")) as lb:
        servers = [asked(lb)[1] for _ in range(5)]
        for server in servers:
            server.send(ok())
        lb.advance(3.0)
        for server in servers:
            server.fin()
        assert lb.n_idle == 0
        assert lb.runtimes[0].server.idle_timeout.learned_s == 0.0


def test_no_more_idle_connections_than_the_limit() -> None:
    with FakeLb(config(keep_alive="{idle: 1}")) as lb:
        servers = [asked(lb)[1] for _ in range(2)]
        for server in servers:
            server.send(ok())
        assert lb.n_idle == 1 and [server.is_open for server in servers] == [True, False]
