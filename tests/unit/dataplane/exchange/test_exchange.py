"""One request and its response: whatever happens in whatever phase, everything it held is given back exactly once.

FakeLb checks the books when each block ends, and a second release of a lease would be reported as a defect.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, cast

import pytest

from lbproxy.domain.states import Admin
from tests.support.fake_transport import GET, SWITCHING, UPGRADE, FakeLb, Peer, body_of, ok, post, status_of

TIMEOUTS = "timeouts: {connect: 1s, response_head: 2s, read: 3s, write: 4s, tunnel: 5s, half_closed: 2s}"
ONE = f"""
access_log: {{path: /dev/null}}
listeners: [{{name: web, bind: "127.0.0.1:5000", pool: app, timeouts: {{request_body: 1s, write: 4s}}}}]
pools: {{app: {{servers: ["127.0.0.1:9001"], health_check: off, retry: {{attempts: 0}}, {TIMEOUTS}}}}}
"""


def two(**pool: str) -> str:
    extra = "".join(f", {key}: {value}" for key, value in pool.items())
    return f"""
access_log: {{path: /dev/null}}
listeners: [{{name: web, bind: "127.0.0.1:5000", pool: app}}]
pools:
  app: {{servers: ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"], strategy: round_robin, health_check: off,
        {TIMEOUTS}{extra}}}
"""


# --- every phase times every end ------------------------------------------------------------------------------------

Ends = Callable[[FakeLb, Peer, Peer | None], None]


def connecting(lb: FakeLb) -> tuple[Peer, Peer | None]:
    client = lb.connect()
    client.send(GET)
    return client, None


def connected_unseen(lb: FakeLb) -> tuple[Peer, Peer | None]:
    """The connection was made in this turn; the dialling task has not run yet."""
    client = lb.connect()
    client.send(GET)
    return client, lb.accept(turns=False)


def sending(lb: FakeLb) -> tuple[Peer, Peer | None]:
    client = lb.connect()
    client.send(post(b"0123456789")[:-5])
    return client, lb.accept()


def waiting(lb: FakeLb) -> tuple[Peer, Peer | None]:
    client = lb.connect()
    client.send(GET)
    return client, lb.accept()


def waiting_kept(lb: FakeLb) -> tuple[Peer, Peer | None]:
    client, server = waiting(lb)
    assert server is not None
    server.send(ok())
    client.send(GET)
    lb.writer.lines.clear()
    client.got()
    return client, server


def streaming(lb: FakeLb) -> tuple[Peer, Peer | None]:
    client, server = waiting(lb)
    assert server is not None
    server.send(ok(b"0123456789")[:-5])
    return client, server


def early_answer(lb: FakeLb) -> tuple[Peer, Peer | None]:
    """The response began while the request's body is still coming."""
    client, server = sending(lb)
    assert server is not None
    server.send(ok(b"0123456789")[:-5])
    return client, server


def tunnel(lb: FakeLb) -> tuple[Peer, Peer | None]:
    client = lb.connect()
    server = lb.exchange(client, UPGRADE)
    server.send(SWITCHING)
    return client, server


def client_fin(lb: FakeLb, client: Peer, server: Peer | None) -> None:
    client.fin()


def client_reset(lb: FakeLb, client: Peer, server: Peer | None) -> None:
    client.reset()


def server_fin(lb: FakeLb, client: Peer, server: Peer | None) -> None:
    assert server is not None
    server.fin()


def server_reset(lb: FakeLb, client: Peer, server: Peer | None) -> None:
    assert server is not None
    server.reset()


def silence(lb: FakeLb, client: Peer, server: Peer | None) -> None:
    lb.advance(6.0)


def shutdown(lb: FakeLb, client: Peer, server: Peer | None) -> None:
    lb.services.is_draining = True
    for item in list(lb.services.swept):
        item.shut_down()
    lb.loop.run()


def garbage(lb: FakeLb, client: Peer, server: Peer | None) -> None:
    assert server is not None
    server.send(b"\x00\r\n\r\n")


Phase = Callable[[FakeLb], tuple[Peer, Peer | None]]


@pytest.mark.parametrize(
    ("phase", "end", "word", "status"),
    [
        (connecting, client_fin, "client_abort", 499),
        (connecting, client_reset, "client_abort", 499),
        (connecting, silence, "connect_timeout", 504),
        (connecting, shutdown, "draining", 503),
        (connected_unseen, client_fin, "client_abort", 499),
        (connected_unseen, client_reset, "client_abort", 499),
        (connected_unseen, server_fin, "closed_unsent", 502),
        (connected_unseen, server_reset, "closed_unsent", 502),
        (connected_unseen, shutdown, "draining", 503),
        (sending, client_fin, "client_abort", 499),
        (sending, client_reset, "client_abort", 499),
        (sending, server_fin, "closed_early", 502),
        (sending, server_reset, "reset", 502),
        (sending, silence, "body_timeout", 408),
        (sending, shutdown, "draining", 503),
        (sending, garbage, "bad_response", 502),
        (waiting, client_fin, "client_abort", 499),
        (waiting, client_reset, "client_abort", 499),
        (waiting, server_fin, "closed_early", 502),
        (waiting, server_reset, "reset", 502),
        (waiting, silence, "response_timeout", 504),
        (waiting, shutdown, "draining", 503),
        (waiting, garbage, "bad_response", 502),
        (waiting_kept, client_fin, "client_abort", 499),
        (waiting_kept, client_reset, "client_abort", 499),
        (waiting_kept, silence, "response_timeout", 504),
        (waiting_kept, garbage, "bad_response", 502),
        (streaming, client_fin, "client_abort", 499),
        (streaming, client_reset, "client_abort", 499),
        (streaming, server_fin, "truncated_body", 200),
        (streaming, server_reset, "truncated_body", 200),
        (streaming, silence, "idle_timeout", 200),
        (streaming, shutdown, "shutdown", 200),
        (early_answer, client_fin, "client_abort", 499),
        (early_answer, client_reset, "client_abort", 499),
        (early_answer, server_fin, "truncated_body", 200),
        (early_answer, server_reset, "truncated_body", 200),
        (early_answer, shutdown, "shutdown", 200),
        (tunnel, client_reset, "client_abort", 101),
        (tunnel, server_reset, "reset", 101),
        (tunnel, silence, "tunnel_timeout", 101),
        (tunnel, shutdown, "shutdown", 101),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_nothing_is_held_after_any_end_of_any_phase(phase: Phase, end: Ends, word: str, status: int) -> None:
    with FakeLb(ONE) as lb:
        client, server = phase(lb)
        assert lb.inflight == 1
        client.got()
        end(lb, client, server)
        assert lb.ends == [word]
        assert lb.log[0]["status"] == status
        assert lb.inflight == 0
        assert not lb.loop.dials
        if server is not None:
            assert not server.is_open
        if status in (200, 101):  # the truncation shows
            assert client.saw_reset is (end is not client_reset)
        elif status != 499:
            assert status_of(client.got()) == status


@pytest.mark.parametrize("phase", [sending, waiting, waiting_kept, streaming, early_answer])
def test_a_server_whose_client_left_sees_a_reset(phase: Phase) -> None:
    with FakeLb(ONE) as lb:
        client, server = phase(lb)
        client.fin()
        assert server is not None and server.saw_reset


@pytest.mark.parametrize(
    ("phase", "name"),
    [
        (sending, "request_body"),
        (connecting, "connecting"),
        (waiting, "waiting"),
        (streaming, "streaming"),
        (tunnel, "tunnel"),
    ],
)
def test_a_client_that_left_is_counted_by_phase(phase: Phase, name: str) -> None:
    with FakeLb(ONE) as lb:
        client, _ = phase(lb)
        client.reset()
        assert lb.of_pool("client_aborts_total", name) == 1
        assert lb.runtimes[0].server.errors == 0


def test_a_dial_that_succeeds_after_its_time_out_is_closed_and_not_used() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        client.send(GET)
        dial = lb.loop.dials[0]
        lb.advance(2.0)
        assert lb.ends == ["connect_timeout"]
        assert dial not in lb.loop.dials
        assert status_of(client.got()) == 504


# --- early answers --------------------------------------------------------------------------------------------------


def test_an_early_complete_answer_ends_both_connections() -> None:
    with FakeLb(ONE) as lb:
        client, server = sending(lb)
        assert server is not None
        server.send(ok(b"no", status="413 Content Too Large"))
        assert status_of(client.got()) == 413
        assert client.saw_fin and client.is_open  # a lingering close: the client can still read
        assert server.saw_reset  # the request was not finished
        client.send(b"56789")
        assert lb.ends == ["ok"]


def test_a_request_that_finishes_under_a_running_answer_is_a_whole_exchange() -> None:
    with FakeLb(ONE) as lb:
        client, server = early_answer(lb)
        assert server is not None
        server.got()
        client.send(b"56789")
        assert server.got() == b"56789"
        server.send(b"56789")
        assert body_of(client.got()) == b"0123456789"
        assert lb.ends == ["ok"]


def test_413_in_mid_body_cuts_the_server_and_answers_the_client() -> None:
    config = ONE.replace("timeouts: {request_body", "limits: {body_bytes: 8}, timeouts: {request_body", 1)
    with FakeLb(config) as lb:
        client = lb.connect()
        client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        server = lb.accept()
        assert server.got().endswith(b"\r\n\r\n5\r\nhello\r\n")
        client.send(b"5\r\nhello\r\n")
        assert status_of(client.got()) == 413
        assert server.saw_reset
        assert lb.ends == ["body_too_large"]
        assert lb.of_listener("rejected_total", "body_too_large") == 1
        assert lb.runtimes[0].server.errors == 0


def test_413_after_the_answer_began_is_a_cut() -> None:
    config = ONE.replace("timeouts: {request_body", "limits: {body_bytes: 8}, timeouts: {request_body", 1)
    with FakeLb(config) as lb:
        client = lb.connect()
        client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        server = lb.accept()
        server.send(ok(b"0123456789")[:-5])
        client.send(b"5\r\nhello\r\n")
        assert client.saw_reset and server.saw_reset
        assert lb.ends == ["body_too_large"]


# --- retries --------------------------------------------------------------------------------------------------------


def test_a_refused_dial_goes_to_another_server_for_any_method() -> None:
    with FakeLb(two()) as lb:  # no connection, nothing sent
        client = lb.connect()
        client.send(post())
        first = lb.loop.dials[0].address
        lb.refuse()
        assert lb.loop.dials[0].address != first
        server = lb.accept()
        assert body_of(server.got()) == b"hello"
        server.send(ok())
        assert status_of(client.got()) == 200
        assert lb.log[0]["attempts"] == 2
        assert lb.of_pool("retries_total", "connect", "success") == 1
        assert lb.dial_faults[0][1].word == "connect_refused"


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.EPERM])
def test_other_dial_failures_are_retried_too(number: int) -> None:
    with FakeLb(two()) as lb:
        client = lb.connect()
        client.send(post())
        lb.refuse(number)
        lb.accept().send(ok())
        assert status_of(client.got()) == 200


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EADDRNOTAVAIL])
def test_being_out_of_local_resources_is_neither_retried_nor_blamed(number: int) -> None:
    with FakeLb(two()) as lb:
        client = lb.connect()
        client.send(GET)
        lb.refuse(number)
        assert status_of(client.got()) == 503
        assert not lb.dial_faults and not lb.loop.dials
        assert sum(runtime.server.errors for runtime in lb.runtimes) == 0


def test_when_the_last_server_refuses_the_answer_is_503() -> None:
    with FakeLb(two()) as lb:
        client = lb.connect()
        client.send(GET)
        for _ in range(3):
            lb.refuse()
        answer = client.got()
        assert status_of(answer) == 503 and b"Retry-After: 10\r\n" in answer
        assert lb.ends == ["no_server"]


def test_a_connection_that_is_lost_at_once_is_retried_for_any_method() -> None:
    with FakeLb(two()) as lb:
        client = lb.connect()
        client.send(post())
        lb.accept(turns=False).fin()
        server = lb.accept()
        server.send(ok())
        assert status_of(client.got()) == 200
        assert lb.log[0]["attempts"] == 2


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
EXPECTING = post(b"hello", "Expect: 100-continue")[:-5]


def kept(lb: FakeLb) -> tuple[Peer, Peer]:
    """A client whose first request left one kept connection."""
    client = lb.connect()
    server = lb.exchange(client, GET)
    server.send(ok())
    assert status_of(client.got()) == 200
    server.got()
    lb.writer.lines.clear()
    return client, server


KEPT_ONE = ONE.replace("retry: {attempts: 0}", "retry: {attempts: 1}")


def test_a_kept_connection_that_died_is_replaced_before_anything_is_sent() -> None:
    with FakeLb(KEPT_ONE) as lb:  # found dead before writing
        client, server = kept(lb)
        server.transport.sock.hang_up()
        fresh = lb.exchange(client, post())
        assert server.got() == b"" and not server.is_open
        fresh.send(ok())
        assert status_of(client.got()) == 200
        assert lb.log[0]["attempts"] == 1
        assert lb.of_servers("stale_connections_total") == 1


def test_fin_and_nothing_acknowledged_is_retried_for_any_method() -> None:
    with FakeLb(KEPT_ONE) as lb:  # FIN and nothing acknowledged
        client, server = kept(lb)
        server.transport.sock.bytes_acked = 1 + sum(map(len, server.transport.written))
        client.send(post())
        server.fin()
        fresh = lb.accept()
        assert body_of(fresh.got()) == b"hello"
        fresh.send(ok())
        assert status_of(client.got()) == 200
        assert lb.of_pool("retries_total", "stale", "success") == 1
        assert lb.runtimes[0].server.errors == 0


@pytest.mark.parametrize("counted", [0, 1, 10], ids=["no SYN", "the SYN", "less than was answered"])
def test_a_kernel_that_does_not_count_proves_nothing(counted: int) -> None:
    """gVisor and sockets in a sockmap leave tcpi_bytes_acked alone: the server may have executed the request."""
    with FakeLb(KEPT_ONE) as lb:
        client, server = kept(lb)
        client.send(post())
        server.transport.sock.bytes_acked = counted
        server.fin()
        assert not lb.loop.dials
        assert status_of(client.got()) == 502
        assert lb.ends == ["upstream_closed_reused_conn"]


def test_a_kernel_that_does_not_count_proves_nothing_for_idempotent_requests_either() -> None:
    with FakeLb(KEPT_ONE) as lb:
        client, server = kept(lb)
        client.send(GET)
        server.transport.sock.bytes_acked = 1
        server.fin()
        lb.accept().send(ok())
        assert status_of(client.got()) == 200


def test_fin_after_the_request_was_acknowledged_is_not_retried_for_post() -> None:
    with FakeLb(KEPT_ONE) as lb:  # may have been executed
        client, server = kept(lb)
        client.send(post())
        server.transport.sock.bytes_acked = 1 + sum(map(len, server.transport.written))
        server.fin()
        assert status_of(client.got()) == 502
        assert lb.ends == ["upstream_closed_reused_conn"]


def test_rst_on_a_kept_connection_proves_nothing() -> None:
    with FakeLb(KEPT_ONE) as lb:  # may have been executed: after RST a delta of 0 may be a delayed ACK
        client, server = kept(lb)
        server.transport.sock.bytes_acked = 1 + sum(map(len, server.transport.written))
        client.send(post())
        server.reset()
        assert lb.ends == ["upstream_closed_reused_conn"]
        assert status_of(client.got()) == 502


def test_unacked_off_takes_a_fin_for_delivered() -> None:
    with FakeLb(KEPT_ONE.replace("attempts: 1", "attempts: 1, unacked: off")) as lb:
        client, server = kept(lb)
        server.transport.sock.bytes_acked = 1 + sum(map(len, server.transport.written))
        client.send(post())
        server.fin()
        assert lb.ends == ["upstream_closed_reused_conn"]


@pytest.mark.parametrize("is_fin", [True, False])
@pytest.mark.parametrize("sent", [0, 1])
def test_what_has_not_left_this_process_was_not_delivered(is_fin: bool, sent: int) -> None:
    with FakeLb(KEPT_ONE.replace("attempts: 1", "attempts: 1, unacked: off")) as lb:
        client, server = kept(lb)
        acknowledged = 1 + sum(map(len, server.transport.written))
        client.send(post())
        size = 1 + sum(map(len, server.transport.written)) - acknowledged
        server.transport.unsent = size - sent
        server.transport.sock.bytes_acked = acknowledged + sent
        server.fin() if is_fin else server.reset()
        if sent:
            assert lb.ends == ["upstream_closed_reused_conn"]
            return
        lb.accept().send(ok())
        assert status_of(client.got()) == 200
        if is_fin:
            assert server.transport.calls[-1] == "abort"  # closing would send it


def test_an_idempotent_request_is_repeated_on_a_fresh_connection_to_the_same_server() -> None:
    with FakeLb(KEPT_ONE) as lb:  # may have been executed for GET; not an attempt against retry.attempts
        client, server = kept(lb)
        client.send(GET)
        server.reset()
        lb.accept().fin()  # a new connection that closed: now the one retry is used
        lb.accept().send(ok())
        assert status_of(client.got()) == 200
        assert lb.log[0]["attempts"] == 3


def test_a_stale_retry_never_takes_another_kept_connection() -> None:
    with FakeLb(ONE.replace("attempts: 0", "attempts: 2")) as lb:
        clients = [lb.connect(), lb.connect()]
        servers = [lb.exchange(client, GET) for client in clients]
        for server in servers:
            server.send(ok())
        assert lb.n_idle == 2
        clients[0].send(GET)
        servers[1].reset()
        assert len(lb.loop.dials) == 1 and lb.n_idle == 1
        lb.accept().send(ok())
        assert lb.ends == ["ok"] * 3


def test_a_fresh_connection_closed_without_an_answer() -> None:
    with FakeLb(two()) as lb:  # a new connection that closed
        client = lb.connect()
        lb.exchange(client, GET).fin()
        lb.accept().send(ok())
        assert status_of(client.got()) == 200
        lb.exchange(client, post()).fin()
        assert status_of(client.got()) == 502
        assert lb.ends == ["ok", "closed_early"]


def test_the_config_may_say_that_requests_are_idempotent() -> None:
    with FakeLb(two(retry="{idempotent: true}")) as lb:
        client = lb.connect()
        lb.exchange(client, post()).reset()
        server = lb.accept()
        assert body_of(server.got()) == b"hello"
        server.send(ok())
        assert status_of(client.got()) == 200


@pytest.mark.parametrize(
    "part",
    [b"HTTP/1.1 200", HINTS + b"HTTP/1.1 200", ok(b"12345")[:-2]],
    ids=["half a head", "half a head after an interim one", "half a body"],
)
def test_a_partial_answer_is_never_retried(part: bytes) -> None:
    with FakeLb(two(retry="{idempotent: true}")) as lb:  # a part of the answer came
        client = lb.connect()
        server = lb.exchange(client, GET)
        server.send(part)
        server.fin()
        assert not lb.loop.dials
        assert lb.ends[0] in ("truncated_head", "truncated_body")
        assert lb.log[0]["attempts"] == 1


@pytest.mark.parametrize("end", ["fin", "reset"])
@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("part", [b"HTTP/1.1 100 Continue\r\n\r\n", HINTS, HINTS * 2], ids=["100", "103", "103 twice"])
def test_an_interim_answer_is_no_answer(part: bytes, is_kept: bool, end: str) -> None:
    """Whatever may be repeated without one may be repeated after one; a POST has reached the server for certain."""
    with FakeLb(KEPT_ONE) as lb:
        client = lb.connect()
        if is_kept:
            client, server = kept(lb)
            server.transport.sock.bytes_acked = 1 + sum(map(len, server.transport.written))
            client.send(GET)
        else:
            server = lb.exchange(client, GET)
        server.send(part)
        getattr(server, end)()
        server = lb.accept()
        server.send(ok(b"second"))
        assert body_of(client.got()[len(part) if part.startswith(HINTS) else 0 :]) == b"second"
        assert lb.of_servers("stale_connections_total") == 0
        lb.writer.lines.clear()
        server.transport.sock.bytes_acked = 1 + sum(map(len, server.transport.written))
        client.send(post())
        server.send(part)
        getattr(server, end)()
        assert not lb.loop.dials
        assert lb.ends == ["closed_early" if end == "fin" else "reset"]


def test_a_retry_after_100_expects_nothing_and_gives_no_second_one() -> None:
    with FakeLb(two(retry="{idempotent: true}")) as lb:
        client = lb.connect()
        server = lb.exchange(client, EXPECTING)
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.got() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"he")
        server.fin()
        server = lb.accept()
        client.send(b"llo")
        message = server.got()
        assert b"Expect" not in message and body_of(message) == b"hello"
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n" + ok())
        assert client.got().startswith(b"HTTP/1.1 200 OK\r\n")


def test_nothing_is_retried_for_a_client_that_left() -> None:
    with FakeLb(two()) as lb:  # the client is gone
        client = lb.connect()
        client.send(GET)
        client.reset()
        assert not lb.loop.dials
        assert lb.ends == ["client_abort"]


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_a_client_that_leaves_before_the_next_attempt_ends_it(end: str) -> None:
    with FakeLb(two()) as lb:
        client = lb.connect()
        lb.exchange(client, GET).reset()
        getattr(client, end)()
        lb.advance(1.0)
        assert not lb.loop.dials and lb.inflight == 0
        assert lb.ends == ["client_abort"]


def test_shutting_down_before_the_next_attempt_answers_503() -> None:
    with FakeLb(two()) as lb:
        client = lb.connect()
        lb.exchange(client, GET).reset()
        shutdown(lb, client, None)
        lb.advance(1.0)
        assert status_of(client.got()) == 503
        assert not lb.loop.dials and lb.ends == ["draining"]


def test_a_body_over_retry_body_bytes_makes_a_request_final_once_it_is_sent() -> None:
    with FakeLb(two(retry="{idempotent: true, body_bytes: 4}")) as lb:
        client = lb.connect()
        client.send(post(b"hello"))
        lb.refuse()  # nothing was sent: still held
        lb.accept().reset()
        assert not lb.loop.dials
        assert lb.ends == ["reset"]


def test_a_body_that_came_in_parts_is_replayed_whole() -> None:
    with FakeLb(two(retry="{idempotent: true}")) as lb:
        client = lb.connect()
        client.send(post(b"0123456789")[:-8])
        server = lb.accept()
        client.send(b"2345")
        assert body_of(server.got()) == b"012345"
        server.reset()
        server = lb.accept()
        assert body_of(server.got()) == b"012345"
        client.send(b"6789")
        assert server.got() == b"6789"
        server.send(ok())
        assert status_of(client.got()) == 200


def test_a_chunked_body_is_replayed_with_its_end() -> None:
    with FakeLb(two(retry="{idempotent: true}")) as lb:
        client = lb.connect()
        client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        lb.accept().reset()
        server = lb.accept()
        assert body_of(server.got()) == b"3\r\nabc\r\n0\r\n\r\n"
        server.send(ok())
        assert status_of(client.got()) == 200


# --- Expect: 100-continue -------------------------------------------------------------------------------------------


def test_the_server_s_100_is_passed_on_and_then_the_body() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        server = lb.exchange(client, EXPECTING)
        assert b"Expect: 100-continue\r\n" in server.got()
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.got() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        assert server.got() == b"hello"
        server.send(ok())
        assert status_of(client.got()) == 200


def test_nobody_waits_for_100_longer_than_a_second() -> None:
    with FakeLb(two()) as lb:
        client = lb.connect()
        server = lb.exchange(client, EXPECTING)
        server.got()
        lb.advance(0.9)
        assert client.got() == b""
        lb.advance(0.3)
        assert client.got() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        assert server.got() == b"hello"
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n" + ok())  # a late 100 is swallowed
        assert status_of(client.got()) == 200


def test_a_client_that_does_not_wait_for_100_is_served() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        server = lb.exchange(client, EXPECTING)
        client.send(b"hello")
        assert body_of(server.got()) == b"hello"
        server.send(ok())
        assert status_of(client.got()) == 200


def test_a_final_answer_instead_of_100_leaves_the_body_unsent() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        server = lb.exchange(client, EXPECTING)
        server.send(ok(b"no", status="403 Forbidden"))
        assert status_of(client.got()) == 403
        assert body_of(server.got()) == b""
        assert not server.is_open
        assert client.saw_fin


def test_after_our_own_100_a_retry_expects_nothing() -> None:
    with FakeLb(two(retry="{idempotent: true}")) as lb:
        client = lb.connect()
        server = lb.exchange(client, EXPECTING)
        lb.advance(1.3)
        client.send(b"hello")
        server.reset()
        server = lb.accept()
        message = server.got()
        assert b"Expect" not in message and body_of(message) == b"hello"
        server.send(ok())
        assert status_of(client.got().removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")) == 200


# --- interim answers, upgrade ---------------------------------------------------------------------------------------


def test_103_is_passed_on_to_http_1_1_only() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        lb.exchange(client, GET).send(HINTS + ok())
        assert client.got().startswith(HINTS + b"HTTP/1.1 200 OK\r\n")
        old = lb.connect()
        old.send(b"GET /a HTTP/1.0\r\n\r\n")
        lb.servers[0].send(HINTS + ok())
        assert old.got().startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_100_that_nobody_asked_for_is_swallowed() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        lb.exchange(client, GET).send(b"HTTP/1.1 100 Continue\r\n\r\n" + ok())
        assert client.got().startswith(b"HTTP/1.1 200 OK\r\n")


def test_after_a_retry_a_server_that_takes_nothing_holds_the_upload_back() -> None:
    """Reading is paused while the second connection is opened; what is sent on it at once may be too much already."""
    with FakeLb(two(retry="{idempotent: true}")) as lb:
        client = lb.connect()
        client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n" + bytes(100_000))
        first = lb.accept()
        first.stop_reading()
        assert client.transport.is_paused
        first.reset()
        second = lb.accept(turns=False)
        transport = cast(Any, second.transport)
        write = transport.write

        def write_and_block(data: bytes) -> None:
            write(data)
            transport.unsent += len(data)
            transport.protocol.pause_writing()

        transport.write = write_and_block
        lb.loop.run()
        assert transport.unsent > 100_000
        assert client.transport.is_paused, "nothing holds the client back"


def test_101_that_nobody_asked_for_is_a_fault() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        server.send(SWITCHING)
        assert status_of(client.got()) == 502
        assert server.saw_reset
        assert lb.ends == ["bad_upgrade"]


@pytest.mark.parametrize(
    ("offered", "chosen", "is_right"),
    [
        ("irc, chat/2", "chat/2", True),
        ("irc, chat/2", "Chat/2, IRC", True),
        ("irc, chat/2", "chat", False),
        ("irc, chat/2", "irc, websocket", False),
        ("irc, other", "other", False),  # offered by the client, but not allowed
        ("irc", "", False),
    ],
)
def test_a_101_may_choose_among_the_protocols_that_were_passed_on(offered: str, chosen: str, is_right: bool) -> None:
    with FakeLb(ONE.replace("pool: app,", "pool: app, upgrade: [irc, chat],", 1)) as lb:
        client = lb.connect()
        server = lb.exchange(
            client, f"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: {offered}\r\n\r\n".encode()
        )
        server.send(f"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: {chosen}\r\n\r\n".encode())
        assert status_of(client.got()) == (101 if is_right else 502)
        client.reset()
        assert lb.ends == ["client_abort" if is_right else "bad_upgrade"]


def test_a_declined_upgrade_is_an_ordinary_answer() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        server = lb.exchange(client, UPGRADE)
        server.send(ok())
        assert status_of(client.got()) == 200
        client.send(GET)
        assert server.got().endswith(b"\r\n\r\n")
        server.send(ok())
        assert lb.ends == ["ok", "ok"]


# --- back-pressure --------------------------------------------------------------------------------------------------


def test_a_client_that_does_not_read_stops_the_server() -> None:
    with FakeLb(ONE) as lb:
        client, server = streaming(lb)
        assert server is not None
        client.stop_reading()
        assert server.transport.is_paused
        lb.advance(3.5)  # the read time-out does not run while we do not read
        assert lb.inflight == 1
        client.read_again()
        assert not server.transport.is_paused
        server.send(b"56789")
        assert lb.ends == ["ok"]


def test_a_server_that_does_not_read_stops_the_client_and_its_leaving_is_seen() -> None:
    with FakeLb(ONE) as lb:
        client, server = sending(lb)
        assert server is not None
        server.stop_reading()
        assert client.transport.is_paused
        lb.advance(2.0)  # the body time-out does not run while we do not read
        assert lb.inflight == 1
        client.leave_unseen()
        assert lb.ends == ["client_abort"]
        assert server.saw_reset


def test_a_server_that_reads_again_lets_the_client_go_on() -> None:
    with FakeLb(ONE) as lb:
        client, server = sending(lb)
        assert server is not None
        server.got()
        server.stop_reading()
        client.send(b"56789")
        assert server.got() == b""
        server.read_again()
        assert server.got() == b"56789"
        server.send(ok())
        assert lb.ends == ["ok"]


def test_a_pause_watches_the_end_of_the_client_and_no_longer() -> None:
    with FakeLb(ONE) as lb:
        client, server = sending(lb)
        assert server is not None
        for piece in (b"56", b"789"):
            server.stop_reading()
            assert client.transport.sees_end and client.transport.on_fin is not None
            server.read_again()
            assert not client.transport.sees_end
            client.send(piece)
        server.send(ok())
        assert lb.ends == ["ok"]


def test_a_server_that_never_reads_is_given_up() -> None:
    with FakeLb(ONE) as lb:
        client, server = sending(lb)
        assert server is not None
        server.stop_reading()
        lb.advance(4.5)
        assert lb.ends == ["upstream_write_timeout"]
        assert status_of(client.got()) == 504
        assert server.saw_reset


def test_a_client_that_sends_before_it_reads_is_not_stuck() -> None:
    """The answer comes while it is still sending; many clients read nothing before they have sent all."""
    with FakeLb(ONE) as lb:
        client = lb.connect()
        client.send(post(bytes(40))[:-40])
        server = lb.accept()
        server.send(ok(b"hi")[:-2])
        client.stop_reading()
        for _ in range(20):
            client.send(b"xx")
            lb.advance(0.9)  # of 4 s for `timeouts.write`
        assert lb.inflight == 1, lb.ends
        lb.advance(5.0)
        assert lb.ends == ["client_write_timeout"]


def test_a_client_that_never_reads_is_reset() -> None:
    with FakeLb(ONE) as lb:
        client, server = streaming(lb)
        assert server is not None
        client.stop_reading()
        lb.advance(4.5)
        assert lb.ends == ["client_write_timeout"]
        assert client.saw_reset and server.saw_reset
        assert lb.of_pool("client_aborts_total", "write_timeout") == 1


# --- overload --------------------------------------------------------------------------------------------------------


REPEATABLE = two(retry="{idempotent: true, on: [connect, reset], status: [503], backoff: {base: 0, max: 0}}")
BODY = bytes(200_000)
NO_MEMORY = 230 << 20  # of 256 MiB: copies are given up


def test_a_copy_for_a_retry_goes_when_memory_is_short_and_the_request_goes_on() -> None:
    with FakeLb(REPEATABLE) as lb:
        client = lb.connect()
        request = post(BODY)
        client.send(request[:-5])
        server = lb.accept()
        (item,) = lb.services.swept
        assert item.buffered_bytes() > 190_000
        lb.services.pressure.count(NO_MEMORY)
        assert item.buffered_bytes() == 0
        client.send(request[-5:])
        assert body_of(server.got()) == BODY
        server.send(ok())
        assert status_of(client.got()) == 200
        lb.advance(0.2)
        assert lb.services.pressure.buffered == 0


@pytest.mark.parametrize(("n_octets", "counted"), [(1_000, 0), (20_000, 40_000)])
def test_a_long_head_counts_as_buffered_while_it_is_held(n_octets: int, counted: int) -> None:
    with FakeLb(REPEATABLE) as lb:
        client = lb.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: %b\r\n\r\n" % (b"x" * n_octets))
        server = lb.accept()
        assert server.got()
        lb.advance(0.2)
        assert counted <= lb.services.pressure.buffered <= counted * 1.02
        server.send(ok())
        assert status_of(client.got()) == 200
        lb.advance(0.2)
        assert lb.services.pressure.buffered == 0


def test_without_its_copy_a_request_is_not_repeated() -> None:
    with FakeLb(REPEATABLE) as lb:
        client = lb.connect()
        client.send(post(BODY))
        server = lb.accept()
        lb.services.pressure.count(NO_MEMORY)
        server.reset()
        assert status_of(client.got()) == 502


@pytest.mark.parametrize("end", ["whole", "cut"])
def test_without_its_copy_an_answer_that_was_held_back_goes_to_the_client(end: str) -> None:
    """Half a request must never be sent again."""
    with FakeLb(REPEATABLE) as lb:
        client = lb.connect()
        client.send(post(BODY))
        server = lb.accept()
        answer = ok(b"0123456789", status="503 Busy")
        server.send(answer[:-5])
        lb.services.pressure.count(NO_MEMORY)
        if end == "whole":
            server.send(answer[-5:])
        else:
            server.reset()
        assert status_of(client.got()) == (503 if end == "whole" else 502)


def test_a_body_that_still_waits_for_its_server_is_not_given_up() -> None:
    with FakeLb(REPEATABLE) as lb:
        client = lb.connect()
        client.send(post(BODY[:50_000]))
        lb.services.pressure.count(NO_MEMORY)
        assert body_of(lb.accept().got()) == BODY[:50_000]


def test_a_server_may_be_silent_while_it_is_given_something_to_read() -> None:
    """Its head comes early and its body when it has read the whole upload; haproxy and nginx count both directions."""
    with FakeLb(ONE.replace("request_body: 1s", "request_body: 5s")) as lb:
        client = lb.connect()
        client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 300\r\n\r\n" + bytes(100))
        server = lb.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        for _ in range(100):
            lb.advance(1.5)
            client.send(b"x")
        client.send(bytes(100))
        lb.advance(1.5)
        server.send(b"hi")
        assert client.got().endswith(b"\r\n\r\nhi") and lb.ends == ["ok"]


def test_silence_in_both_directions_is_too_long_behind_an_early_head() -> None:
    with FakeLb(ONE.replace("request_body: 1s", "request_body: 5s")) as lb:
        client = lb.connect()
        client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 300\r\n\r\n" + bytes(100))
        server = lb.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        lb.advance(1.5)
        client.send(b"x")
        lb.advance(1.5)
        assert lb.ends == []
        lb.advance(2)
        assert lb.ends == ["idle_timeout"] and client.saw_reset


def test_the_copy_goes_when_the_answer_has_begun() -> None:
    """There is no retry after it; a stream of minutes would keep its prompt for nothing."""
    with FakeLb(REPEATABLE) as lb:
        client = lb.connect()
        client.send(post(BODY))
        server = lb.accept()
        answer = ok(b"0123456789")
        server.send(answer[:-5])
        (item,) = lb.services.swept
        assert item.buffered_bytes() == 0 and lb.services.pressure.buffered == 0
        server.send(answer[-5:])
        assert body_of(client.got()) == b"0123456789"


def test_what_a_server_has_not_taken_counts_also_without_the_copy() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        client.send(post(BODY)[:-5])
        server = lb.accept()
        lb.services.pressure.count(NO_MEMORY)
        server.stop_reading(60_000)
        (item,) = lb.services.swept
        assert item.buffered_bytes() == 60_000
        client.reset()


def test_times_are_of_the_attempt_that_counted() -> None:
    with FakeLb(two()) as lb:
        client = lb.connect()
        client.send(GET)
        lb.advance(0.5)
        lb.refuse(errno.EHOSTUNREACH)
        lb.advance(0.25)
        server = lb.accept()
        lb.advance(0.5)
        server.send(ok(b"12345")[:-1])
        lb.advance(1.0)
        server.send(b"5")
        entry = lb.log[0]
        assert (entry["connect_ms"], entry["ttfb_ms"], entry["total_ms"]) == (250.0, 500.0, 2250.0)


# --- maintenance with an end ----------------------------------------------------------------------------------------


def take_into_maintenance(lb: FakeLb, *, after_s: float) -> None:
    server = lb.runtimes[0].server
    lb.pool.pool.set_admin(server, Admin.MAINT, "", lb.clock())
    server.cut_at = lb.clock() + after_s


def test_what_is_not_done_in_time_is_cut_and_may_be_repeated_elsewhere() -> None:
    with FakeLb(two()) as lb:
        client = lb.connect()
        client.send(GET)
        old = lb.accept()
        take_into_maintenance(lb, after_s=1.0)
        lb.advance(0.9)
        assert old.is_open
        lb.advance(0.5)
        assert old.saw_reset
        lb.accept().send(ok(b"from the other"))
        assert body_of(client.got()) == b"from the other"
        assert lb.log[0]["tries"][0]["reason"] == "maintenance"
        assert lb.of_servers("upstream_errors_total", "maintenance") == 1
        assert lb.runtimes[0].server.errors == 0, "it is not to blame"


def test_what_may_have_been_executed_gets_502() -> None:
    with FakeLb(two()) as lb:
        client = lb.connect()
        client.send(post())
        old = lb.accept()
        take_into_maintenance(lb, after_s=0.0)
        lb.advance(0.5)
        assert old.saw_reset and status_of(client.got()) == 502
        assert lb.ends == ["maintenance"] and lb.of_servers("upstream_errors_total", "maintenance") == 1


def test_a_half_sent_answer_ends_with_a_reset() -> None:
    with FakeLb(two()) as lb:
        client = lb.connect()
        client.send(GET)
        old = lb.accept()
        old.send(ok(b"0123456789")[:-5])
        take_into_maintenance(lb, after_s=0.0)
        lb.advance(0.5)
        assert old.saw_reset and client.saw_reset
        assert lb.ends == ["maintenance"]


def test_one_that_is_being_dialled_goes_elsewhere() -> None:
    with FakeLb(two()) as lb:
        client = lb.connect()
        client.send(GET)
        take_into_maintenance(lb, after_s=0.0)
        lb.advance(0.5)
        lb.accept().send(ok())
        assert status_of(client.got()) == 200


def test_whoever_is_made_ready_in_time_keeps_what_it_has() -> None:
    with FakeLb(two()) as lb:
        client = lb.connect()
        client.send(GET)
        old = lb.accept()
        take_into_maintenance(lb, after_s=1.0)
        lb.pool.pool.set_admin(lb.runtimes[0].server, Admin.READY, "", lb.clock())
        lb.advance(1.5)
        old.send(ok())
        assert status_of(client.got()) == 200
