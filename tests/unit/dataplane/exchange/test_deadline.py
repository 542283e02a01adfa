"""What a trusted peer says of its patience is kept, passed on as what is left, and believed from nobody else."""

from __future__ import annotations

import re

import pytest

from lbproxy.dataplane.exchange.deadline import NEVER, take_deadlines
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.protocol.field_lines import lines_of
from lbproxy.protocol.http1 import RequestHead
from lbproxy.telemetry.slots import PROCESS
from tests.support.fake_transport import FakeLb, ok, status_of

NAMES = frozenset((b"x-request-timeout", b"grpc-timeout"))
BAD = PROCESS.column("headers_dropped_total", "bad_deadline")
CONFIG = """
{trusted}
listeners:
- {{name: web, bind: "127.0.0.1:0", pool: app, deadline_header: {name}}}
pools:
  app: {{servers: ["127.0.0.1:5001"], health_check: off, {more}}}
"""
SPLIT = """
trusted_proxies: [127.0.0.0/8]
listeners:
- {name: web, bind: "127.0.0.1:0", deadline_header: X-Request-Timeout, routes: [{split: {app: 1, canary: 1}}]}
pools:
  app: {servers: ["127.0.0.1:5001"], health_check: off}
  canary: {servers: ["127.0.0.1:5002"], health_check: off}
"""


def lb(*, trusted: bool = True, name: str = "X-Request-Timeout", more: str = "max_inflight: 1") -> FakeLb:
    networks = "trusted_proxies: [10.0.0.0/8, 127.0.0.0/8, 192.0.2.0/24]" if trusted else ""
    return FakeLb(CONFIG.format(trusted=networks, name=name, more=more))


def get(*fields: str) -> bytes:
    return ("\r\n".join(["GET /x HTTP/1.1", "Host: a", *fields]) + "\r\n\r\n").encode()


def sent(data: bytes, name: str) -> list[str]:
    return re.findall(rf"(?m)^{name}: (.*?)\r$", data.decode())


def head_with(*fields: tuple[bytes, bytes]) -> RequestHead:
    head = RequestHead()
    head.lines = lines_of(fields)
    return head


def test_a_head_without_such_a_field_is_left_alone() -> None:
    head = head_with((b"A", b"1"))
    assert take_deadlines(head, NAMES) is None and head.fields == [(b"A", b"1")]


def test_the_shortest_counts_and_all_are_taken_out() -> None:
    head = head_with((b"X-Request-Timeout", b"2"), (b"A", b"1"), (b"Grpc-Timeout", b"500m"))
    found = take_deadlines(head, NAMES)
    assert found is not None
    assert (found.timeout_s, found.n_unreadable) == (0.5, 0)
    assert found.fields == [(b"X-Request-Timeout", b""), (b"Grpc-Timeout", b"m")]
    assert head.fields == [(b"A", b"1")]
    assert found.lines(0.4, frozenset(), b"") == b"X-Request-Timeout: 0.400\r\nGrpc-Timeout: 400m\r\n"
    assert found.lines(0.4, frozenset((b"grpc-timeout",)), b"Z: 1\r\n") == b"X-Request-Timeout: 0.400\r\nZ: 1\r\n"


@pytest.mark.parametrize("values", [(b"soon",), (b"1", b"2"), (b"1", b"1"), (b"",)])
def test_what_cannot_be_read_is_taken_out_and_counted(values: tuple[bytes, ...]) -> None:
    head = head_with(*((b"X-Request-Timeout", value) for value in values))
    found = take_deadlines(head, NAMES)
    assert found is not None
    assert (found.timeout_s, found.fields, found.n_unreadable) == (NEVER, [], len(values))
    assert head.fields == []


def test_a_trusted_peers_time_ends_the_request_and_the_server_is_told_what_is_left() -> None:
    with lb() as proxy:
        client = proxy.connect()
        client.send(get("X-Request-Timeout: 1.5"))
        server = proxy.accept()
        assert sent(server.got(), "X-Request-Timeout") == ["1.500"]
        proxy.advance(1.2)
        assert not client.got()
        proxy.advance(0.3)
        proxy.advance(0.3)
        assert status_of(client.got()) == 504 and proxy.ends == ["total_timeout"]


def test_a_queued_request_tells_what_the_wait_left() -> None:
    with lb() as proxy:
        first, second = proxy.connect(), proxy.connect()
        first.send(get())
        second.send(get("X-Request-Timeout: 5s"))
        server = proxy.accept()
        proxy.advance(2.0)
        server.got()
        server.send(ok())
        (left,) = sent(server.got(), "X-Request-Timeout")
        assert 2.9 < float(left.removesuffix("s")) <= 3.1 and left.endswith("s")
        server.send(ok())
        assert status_of(second.got()) == 200


def test_the_pools_time_holds_if_it_is_shorter() -> None:
    with lb(more="timeouts: {total: 1s}") as proxy:
        client = proxy.connect()
        client.send(get("X-Request-Timeout: 60"))
        assert sent(proxy.accept().got(), "X-Request-Timeout") == ["1.000"]
        proxy.advance(1.3)
        assert status_of(client.got()) == 504


def test_no_time_left_is_504_and_no_server_is_asked() -> None:
    with lb() as proxy:
        client = proxy.connect()
        client.send(get("X-Request-Timeout: 0"))
        assert status_of(client.got()) == 504 and not proxy.servers
        assert proxy.ends == ["total_timeout"]


def test_from_others_it_means_nothing_and_is_passed_on() -> None:
    with lb(trusted=False) as proxy:
        client = proxy.connect()
        client.send(get("X-Request-Timeout: 0", "grpc-timeout: soon"))
        server = proxy.accept()
        got = server.got()
        assert sent(got, "X-Request-Timeout") == ["0"] and sent(got, "grpc-timeout") == ["soon"]
        server.send(ok())
        assert proxy.services.row[BAD] == 0


def test_a_time_that_cannot_be_read_is_taken_out_and_counted_each_time() -> None:
    with lb() as proxy:
        client = proxy.connect()
        for _ in range(3):
            client.send(get("X-Request-Timeout: soon"))
            server = proxy.servers[0] if proxy.servers else proxy.accept()
            assert b"imeout" not in server.got()
            server.send(ok())
        assert proxy.services.row[BAD] == 3


def test_switched_off_it_means_nothing_from_anybody() -> None:
    with lb(name="off") as proxy:
        client = proxy.connect()
        client.send(get("X-Request-Timeout: 0", "grpc-timeout: 0m"))
        server = proxy.accept()
        assert sent(server.got(), "X-Request-Timeout") == ["0"]
        server.send(ok())


def test_the_same_head_has_its_time_from_the_start_each_time() -> None:
    with lb() as proxy:
        client = proxy.connect()
        for _ in range(4):
            client.send(get("X-Request-Timeout: 1.5"))
            server = proxy.servers[0] if proxy.servers else proxy.accept()
            assert sent(server.got(), "X-Request-Timeout") == ["1.500"]
            proxy.advance(1.0)
            server.send(ok())
        assert proxy.ends == ["ok"] * 4


def test_who_cannot_be_answered_in_time_is_refused_at_once() -> None:
    with lb() as proxy:
        first, second, third = (proxy.connect() for _ in range(3))
        first.send(get())
        server = proxy.accept()
        proxy.advance(1.0)
        server.send(ok())
        server.got()
        first.send(get())
        second.send(get("X-Request-Timeout: 800ms"))
        answer = second.got()
        assert status_of(answer) == 503 and b"Retry-After: " in answer and b"deadline_unreachable" in answer
        third.send(get("X-Request-Timeout: 1200ms"))
        assert not third.got()
        server.got()
        server.send(ok())
        assert sent(server.got(), "X-Request-Timeout") == ["1200ms"]
        server.send(ok())
        assert proxy.ends == ["ok", "deadline_unreachable", "ok", "ok"]


def test_who_is_refused_is_told_when_the_queue_will_be_empty() -> None:
    """One request a second is answered and five wait: not the ten seconds that an unchecked pool names otherwise."""
    with lb(more="max_inflight: 1, queue: {size: 5, timeout: 60s}") as proxy:
        clients = [proxy.connect() for _ in range(12)]
        clients[0].send(get())
        server = proxy.accept()
        for client in clients[1:6]:
            client.send(get())
        for client in clients[6:11]:
            proxy.advance(1.0)
            server.send(ok())
            client.send(get())
        clients[11].send(get())
        answer = clients[11].got()
        assert status_of(answer) == 503
        assert re.search(rb"Retry-After: ([0-9]+)\r", answer)[1] in (b"5", b"6")  # type: ignore[index]
        for _ in range(6):
            server.send(ok())
        assert proxy.ends == ["ok"] * 5 + ["queue_full"] + ["ok"] * 6


def test_each_branch_of_a_split_knows_it() -> None:
    """It was taken out of the head by whoever looked first, which is nobody's route yet."""
    with FakeLb(SPLIT) as lb:
        runtime = lb.listener.runtime
        raw = get("X-Request-Timeout: 2")
        fork = prepare(runtime, raw, is_trusted=True, log_format=None, local_host="h").fork
        assert fork is not None
        for branch in (0, 1):
            found = fork.prepared(0, branch)
            assert found.total_s == 2.0
            assert found.deadlines is not None and found.deadlines.fields == [(b"X-Request-Timeout", b"")]
