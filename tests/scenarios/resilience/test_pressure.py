"""Memory for data on its way runs short: what can be done without goes first, and refusing is said aloud."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer
from tests.support.rig import get, post
from tests.support.waiting import wait_until

MIB = 1 << 20


def config(origin: Origin, **limits: object) -> dict[str, object]:
    return {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "app"}],
        "pools": {"app": {"servers": [origin.address], "timeouts": {"read": "60s", "write": "60s"}}},
        "limits": limits,
    }


@pytest.mark.slow
def test_honest_uploads_do_not_stop_the_service(tmp_path: Path) -> None:
    """61 bodies of 1 MiB, nearly complete: with the copies for a retry they are all of 64 MiB."""
    n, size, missing = 61, MIB, 1000
    with (
        Origin() as origin,
        LbProxy(config(origin, buffered_bytes="64MiB"), tmp_path / "lb") as lb,
        ExitStack() as stack,
    ):
        kept = stack.enter_context(Client(lb.port("in")))
        assert kept.ask(get("/before")).status == 200
        request = post("/upload", bytes(size))
        uploads = [stack.enter_context(Client(lb.port("in"))) for _ in range(n)]
        for client in uploads:
            client.send(request[:-missing])
        wait_until(lambda: lb.metric("replay_copies_dropped_total") >= 10, "copies to be given up")
        for number in range(20):
            assert kept.ask(get(f"/kept-{number}")).status == 200
            with Client(lb.port("in")) as new:
                assert new.ask(get(f"/new-{number}")).status == 200
            assert lb.admin_get("/readyz") == (200, b"ready\n")
        assert 0 < lb.metric("buffered_bytes") < 0.8 * lb.metric("buffered_limit_bytes")
        wait_until(lambda: "copies of request bodies" in lb.stderr, "the log to say it")
        for client in uploads:
            client.send(request[-missing:])
        assert [client.response().status for client in uploads] == [200] * n
        wait_until(lambda: lb.metric("buffered_bytes") == 0, "memory to be free again")
        assert lb.metric("rejected_total") == 0


def test_refusing_shows_in_readyz_in_the_log_and_in_the_gauge(tmp_path: Path) -> None:
    done = threading.Event()

    def never_ending(c: Peer) -> None:
        request = c.read_request()
        if request.target != "/big":
            c.send(c.origin.answer(request))
            return
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB) + bytes(8 * MIB))
        done.wait(60)

    with (
        Origin() as origin,
        LbProxy(config(origin, buffered_bytes="1MiB"), tmp_path / "lb") as lb,
        ExitStack() as stack,
    ):
        origin.default = never_ending
        kept = stack.enter_context(Client(lb.port("in")))
        assert kept.ask(get("/before")).status == 200
        readers: list[Client] = []

        def is_refusing() -> bool:
            if len(readers) < 120:
                readers.append(stack.enter_context(Client(lb.port("in"), receive_buffer=4096)))
                readers[-1].send(get("/big"))
            return lb.admin_get("/readyz")[0] == 503

        wait_until(is_refusing, "readiness to end")
        status, reason = lb.admin_get("/readyz")
        assert status == 503 and b"limits.buffered_bytes" in reason, reason
        assert lb.metric("buffered_bytes") >= 0.85 * lb.metric("buffered_limit_bytes")
        assert kept.ask(get("/during")).status == 503
        assert lb.metric("rejected_total", reason="overloaded") >= 1
        lb.wait_logged("nobody is accepted and new requests get 503")
        for client in readers:
            client.reset()
        done.set()
        wait_until(lambda: lb.admin_get("/readyz")[0] == 200, "to be ready again")
        with Client(lb.port("in")) as new:
            assert new.ask(get("/after")).status == 200
        wait_until(lambda: "no longer overloaded" in lb.stderr, "the log to say it")
