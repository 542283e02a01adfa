"""The server's connection: what a response is, whether the connection may be kept, and how each bad end is named."""

from __future__ import annotations

import errno

import pytest

from lbproxy.dataplane.exchange.attempt import Attempt
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.telemetry.slots import PROCESS
from tests.support import build
from tests.support.fake_transport import GET, FakeLb, FakeTransport, Peer, body_of, ok, post, status_of

# Nothing that a test can hand in fails between these two objects, and compiled code calls methods without a look-up.
sets_methods = pytest.mark.skipif(
    build.is_compiled(), reason="it sets a method of a class, which compiled code ignores"
)
INTERNAL_ERRORS = PROCESS.column("internal_errors_total")


def config(*, keep_alive: str = "{}", limits: str = "{}") -> str:
    return f"""
access_log: {{path: /dev/null}}
listeners: [{{name: web, bind: "127.0.0.1:5000", pool: app}}]
pools:
  app:
    servers: ["127.0.0.1:9001"]
    health_check: off
    retry: {{attempts: 0}}
    keep_alive: {keep_alive}
    limits: {limits}
"""


def asked(lb: FakeLb, request: bytes = GET) -> tuple[Peer, Peer]:
    client = lb.connect()
    return client, lb.exchange(client, request)


# --- the reuse rule -------------------------------------------------------------------------------------------------


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


# --- what is no response --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", "bad_response"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "bad_response"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 11 + b"\r\n", "response_header_too_large"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2000 + b"\r\n\r\n", "response_header_too_large"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2000, "response_header_too_large"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 4, "too_many_interim"),
    ],
)
def test_what_is_no_response_is_502_and_cuts_the_server(answer: bytes, word: str) -> None:
    with FakeLb(config(limits="{head_bytes: 1KiB, headers: 10, interim_responses: 3}")) as lb:
        client, server = asked(lb)
        server.send(answer)
        got = client.got().rpartition(b"HTTP/1.1 103 Early Hints\r\n")[2]
        assert b"502 Bad Gateway" in (got if status_of(got) else client.everything)
        assert server.saw_reset and lb.ends == [word]
        assert lb.runtimes[0].server.errors == 1


def test_interim_answers_over_a_long_time_are_no_flood() -> None:
    """RFC 2518 asked servers for a 102 every 20 s, however long they work."""
    with FakeLb(config(limits="{interim_responses: 3}\n    timeouts: {response_head: 1h}")) as lb:
        client, server = asked(lb)
        for _ in range(30):
            server.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            lb.advance(20)
        server.send(ok(b"hi"))
        assert client.everything.count(b"102 Processing") == 30 and client.everything.endswith(b"\r\n\r\nhi")
        assert lb.ends == ["ok"]


def test_a_lenient_pool_is_lenient_to_heads_in_pieces() -> None:
    answer = b"HTTP/1.1 200 OK\nX : y\nContent-Length: 2\n\nhi"
    for step in (1, 2, 7, len(answer)):
        with FakeLb(config(limits="{}\n    lenient: true")) as lb:
            client, server = asked(lb)
            for start in range(0, len(answer), step):
                server.send(answer[start : start + step])
            assert b"\r\nX: y\r\n" in client.everything and client.everything.endswith(b"\r\n\r\nhi")
            assert lb.ends == ["ok"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nX: y\nZ: 1", b"HTTP/1.1 200 OK\nX: y\r", b"garbage\n"])
def test_a_lenient_pool_does_not_wait_for_the_end_of_a_bad_head(answer: bytes) -> None:
    with FakeLb(config(limits="{}\n    lenient: true")) as lb:
        client, server = asked(lb)
        server.send(answer)
        assert status_of(client.got()) == 502 and server.saw_reset
        assert lb.ends == ["bad_response"]


def test_a_bad_chunk_in_the_body_cuts_both() -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        server.send(b"xx\r\n")
        assert client.saw_reset and server.saw_reset
        assert lb.ends == ["response_bad_chunk"]


@pytest.mark.parametrize("end", ["fin", "reset"])
@pytest.mark.parametrize("sent", [b"HTTP/1.1 2", b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 2"])
def test_an_answer_that_ends_in_its_head(end: str, sent: bytes) -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        server.send(sent)
        getattr(server, end)()
        assert b"HTTP/1.1 502 Bad Gateway\r\n" in client.got()
        assert lb.ends == ["truncated_head"]


@pytest.mark.parametrize(
    "answer", [ok(b"hello")[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"]
)
def test_a_truncated_body_is_a_reset_for_the_client(answer: bytes) -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        server.send(answer)
        server.fin()
        assert client.saw_reset
        assert not body_of(client.got()).endswith(b"0\r\n\r\n")
        assert lb.ends == ["truncated_body"]


# --- an answer in front of a failed write ---------------------------------------------------------------------------


def test_an_answer_that_came_before_the_reset_counts() -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb, post(b"0123456789")[:-5])
        server.send(ok(b"too much", status="413 Content Too Large"))
        server.reset()
        assert status_of(client.got()) == 413
        assert lb.ends == ["ok"] and client.saw_fin


def test_a_reset_is_named_reset_and_a_fin_closed_early() -> None:
    for end, word in (("reset", "reset"), ("fin", "closed_early")):
        with FakeLb(config()) as lb:
            client, server = asked(lb, post())
            getattr(server, end)()
            assert status_of(client.got()) == 502
            assert lb.ends == [word]


# --- the memo of response heads -------------------------------------------------------------------------------------


def test_equal_heads_share_a_parse_but_never_a_body() -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        for body in (b"ab", b"cd", b"ef"):
            server.send(ok(body))
            assert body_of(client.got()) == body
            client.send(GET)
        server.send(ok(b"gh"))
        assert len(lb.pool.response_memo._known) == 1


def test_a_known_head_of_a_get_is_no_head_s_answer() -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        server.send(ok(b"ab"))
        client.got()
        client.send(b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n")
        server.send(ok(b""))
        server_head = ok(b"ab")[:-2]
        assert body_of(client.got()) == b""
        client.send(b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n")
        server.send(server_head)
        assert body_of(client.got()) == b""
        assert lb.n_idle == 1


def test_answers_that_never_repeat_are_not_remembered() -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        for number in range(20):
            server.send(ok(b"", f"X-Id: {number}"))
            assert b"X-Id: %d\r\n" % number in client.got()
            client.send(GET)
        server.send(ok())
        assert lb.pool.response_memo._known == {}


# --- large bodies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("piece", [1_000, 60_000, 700_000])
def test_a_large_answer_passes_unchanged(chunked: bool, piece: int) -> None:
    body = bytes(range(256)) * 4096
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        answer = ok(body)
        if chunked:
            answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        server.send(*[answer[at : at + piece] for at in range(0, len(answer), piece)])
        got = body_of(client.got())
        if chunked:
            data = b""
            while not got.startswith(b"0\r\n"):
                size, _, got = got.partition(b"\r\n")
                data, got = data + got[: int(size, 16)], got[int(size, 16) + 2 :]
            got = data
        assert got == body
        client.send(GET)  # and the connection reads on as before
        server.send(ok())
        assert lb.ends == ["ok", "ok"] and lb.n_idle == 1


@pytest.mark.parametrize("piece", [1_000, 60_000, 700_000])
def test_a_large_request_passes_unchanged(piece: int) -> None:
    body = bytes(range(256)) * 4096
    with FakeLb(config()) as lb:
        client = lb.connect()
        request = post(body)
        client.send(request[:piece])
        server = lb.accept()
        client.send(*[request[at : at + piece] for at in range(piece, len(request), piece)])
        assert body_of(server.got()) == body
        server.send(ok())
        client.send(GET)
        server.send(ok())
        assert lb.ends == ["ok", "ok"]


def test_being_out_of_descriptors_is_not_the_server_s_fault() -> None:
    with FakeLb(config()) as lb:
        client = lb.connect()
        client.send(GET)
        lb.refuse(errno.EMFILE)
        assert status_of(client.got()) == 503
        assert lb.runtimes[0].server.errors == 0


def hurt(lb: FakeLb) -> int:
    """Internal errors since the last call."""
    count, lb.services.row[INTERNAL_ERRORS] = lb.services.row[INTERNAL_ERRORS], 0
    return count


def test_a_defect_when_it_is_connected_is_a_connection_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeLb(config()) as lb:
        client = lb.connect()
        client.send(GET)
        monkeypatch.setattr(FakeTransport, "set_write_buffer_limits", broken)
        lb.accept()
        monkeypatch.undo()
        assert hurt(lb) == 1
        assert status_of(client.got()) == 502 and lb.inflight == 0


@sets_methods
@pytest.mark.parametrize("name", ["upstream_blocked", "upstream_unblocked"])
def test_a_defect_in_flow_control_is_500(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        monkeypatch.setattr(Attempt, name, broken)
        protocol = server.transport.get_protocol()
        assert isinstance(protocol, UpstreamConnection)
        protocol.pause_writing() if name == "upstream_blocked" else protocol.resume_writing()
        monkeypatch.undo()
        lb.loop.run()
        assert hurt(lb) == 1
        assert status_of(client.got()) == 500 and lb.inflight == 0 and not server.is_open


def broken(*args: object, **kwargs: object) -> None:
    raise ZeroDivisionError("on purpose")


@sets_methods
def test_a_defect_behind_a_whole_answer_does_not_leave_the_connection_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection was kept already when the request failed."""
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        monkeypatch.setattr(Attempt, "response_received", broken)
        server.send(ok())
        monkeypatch.undo()
        assert hurt(lb) == 1
        assert status_of(client.got()) == 500
        assert lb.n_idle == 0 and lb.inflight == 0 and not server.is_open
