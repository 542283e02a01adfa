"""How a request begins: with a body that waits for its server, with no memory, and with no server."""

from __future__ import annotations

from lbproxy.domain.states import Admin
from tests.support.fake_transport import GET, FakeLb, body_of, ok, post, status_of

ONE = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools: {app: {servers: ["127.0.0.1:9001"], health_check: off, retry: {attempts: 0}}}
"""
NO_MEMORY = 230 << 20  # of 256 MiB: copies are given up


def test_a_long_body_is_not_read_faster_than_the_dial() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        request = post(bytes(200_000))
        client.send(request[:100_000])
        assert client.transport.is_paused
        server = lb.accept()
        assert not client.transport.is_paused
        client.send(request[100_000:])
        assert len(body_of(server.got())) == 200_000
        server.send(ok())
        assert lb.ends == ["ok"]


def test_an_upload_that_waits_is_not_read_further_when_memory_is_short() -> None:
    with FakeLb(ONE) as lb:
        lb.services.pressure.count(NO_MEMORY)
        client = lb.connect()
        request = post(bytes(100_000))
        client.send(request[:20_000])
        assert client.transport.is_paused
        server = lb.accept()
        assert not client.transport.is_paused
        client.send(request[20_000:])
        assert body_of(server.got()) == bytes(100_000)
        server.send(ok())


def test_an_overloaded_process_answers_503() -> None:
    with FakeLb(ONE) as lb:
        lb.services.pressure.is_refusing = True
        client = lb.connect()
        client.send(GET)
        assert status_of(client.got()) == 503
        assert lb.ends == ["overloaded"] and lb.inflight == 0


def test_a_pool_without_a_usable_server_answers_503() -> None:
    with FakeLb(ONE) as lb:
        lb.pool.pool.set_admin(lb.runtimes[0].server, Admin.MAINT, "", lb.clock())
        client = lb.connect()
        client.send(GET)
        answer = client.got()
        assert status_of(answer) == 503 and b"Retry-After: " in answer
        assert lb.ends == ["no_server"] and not lb.loop.dials
        assert lb.of_listener("rejected_total", "no_server") == 1
        lb.pool.pool.set_admin(lb.runtimes[0].server, Admin.READY, "", lb.clock())
        client.send(GET)
        lb.accept().send(ok())
        assert status_of(client.got()) == 200
