"""The clock is set, the process is stopped for a while, memory runs short. Nobody is blamed for it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.hooked import HookedDaemon
from tests.support.origin import Origin, Peer, steps
from tests.support.rig import get
from tests.support.waiting import wait_until
from tests.support.wire import Request

HOUR, DAY = 3600.0, 86400.0
MIB = 1024 * 1024


@pytest.fixture
def origins() -> Iterator[list[Origin]]:
    with Origin() as a, Origin() as b:
        yield [a, b]


def config(origins: list[Origin], check: object, **pool: object) -> dict[str, object]:
    return {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": [o.address for o in origins], "health_check": check, **pool}},
    }


def passes(lb: LbProxy) -> float:
    return lb.metric("health_checks_total", result="pass")


def blames(lb: LbProxy) -> dict[str, float]:
    """What would be held against a server."""
    metrics = ("server_ejections_total", "upstream_errors_total", "client_aborts_total")
    found = {name: lb.metric(name) for name in metrics}
    found["down"] = lb.metric("server_transitions_total", to="down")
    found["failed checks"] = lb.metric("health_checks_total", result="fail")
    return found


@pytest.mark.parametrize("offset_s", [-HOUR, DAY], ids=["an-hour-back", "a-day-ahead"])
def test_the_clock_is_set(origins: list[Origin], tmp_path: Path, offset_s: float) -> None:
    held = threading.Event()
    lb = HookedDaemon(config(origins, {"interval": "100ms", "timeout": "60s"}), tmp_path / "lb")
    with lb:
        lb.wait_metric("health_checks_total", 4, result="pass")
        with Client(lb.port("in")) as idle, Client(lb.port("in")) as waiting:
            assert idle.ask(get("/before")).status == 200
            for origin in origins:
                origin.answer = held_until(held)
            waiting.send(get("/waiting"))
            wait_until(lambda: any(r.target == "/waiting" for o in origins for r in o.requests), "a request at work")
            before, checked = blames(lb), passes(lb)
            lb.set_clock(offset_s)
            wait_until(lambda: passes(lb) >= checked + 8, "the checks to go on")
            held.set()
            assert waiting.response().status == 200
            assert idle.ask(get("/after")).status == 200, "its connection was kept through the change"
            assert blames(lb) == before
        entry = lb.entry("/after")
        assert 0 <= float(str(entry["total_ms"])) < HOUR * 1000 / 2
        stamp = time.mktime(time.strptime(str(entry["ts"])[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
        assert abs(stamp - (time.time() + offset_s)) < HOUR / 2, "the log follows the clock"


def held_until(event: threading.Event):  # type: ignore[no-untyped-def]
    def answer(request: Request) -> bytes:
        event.wait(60)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    return answer


@pytest.mark.slow
def test_the_process_is_stopped_for_a_while(origins: list[Origin], tmp_path: Path) -> None:
    """Checks that were under way are late when it goes on: that says nothing about the servers."""
    check = {"type": "http", "path": "/health", "interval": "100ms", "timeout": "2s", "fall": 1, "busy_window": "10ms"}
    holding, stopped = threading.Event(), threading.Event()
    held: set[int] = set()

    def answer(request: Request, number: int) -> bytes:
        if request.target == "/health" and holding.is_set():
            held.add(number)
            stopped.wait(60)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    for number, origin in enumerate(origins):
        origin.answer = partial(answer, number=number)
    with LbProxy(config(origins, check), tmp_path / "lb") as lb:
        lb.wait_metric("health_checks_total", 4, result="pass")
        with Client(lb.port("in")) as client:
            for _ in range(2):
                assert client.ask(get("/before")).status == 200
                before, checked = blames(lb), passes(lb)
                held.clear()
                holding.set()
                wait_until(lambda: len(held) == 2, "a check of each server to be under way")
                lb.signal(signal.SIGSTOP)
                stopped.set()
                holding.clear()
                time.sleep(4.1)  # twice the time-out of a check
                lb.signal(signal.SIGCONT)
                assert client.ask(get("/after")).status == 200
                wait_until(lambda: passes(lb) >= checked + 4, "the checks to go on")  # noqa: B023
                assert blames(lb) == before
                assert [lb.metric("server_up", server=o.address) for o in origins] == [1, 1]
                stopped.clear()


def test_time_outs_that_passed_meanwhile_strike_once(origins: list[Origin], tmp_path: Path) -> None:
    never = threading.Event()
    settings = config(origins[:1], "off", timeouts={"response_head": "500ms"}, retry="off", circuit_breaker="off")
    origins[0].default = steps(never)
    with LbProxy(settings, tmp_path / "lb") as lb, ExitStack() as stack:
        clients = [stack.enter_context(Client(lb.port("in"))) for _ in range(5)]
        for client in clients:
            client.send(get("/late"))
        wait_until(lambda: len(origins[0].requests) == 5, "the requests to be at the server")
        lb.signal(signal.SIGSTOP)
        time.sleep(1.0)
        lb.signal(signal.SIGCONT)
        assert [client.response().status for client in clients] == [504] * 5
        assert lb.metric("upstream_errors_total", reason="response_timeout") == 5
        never.set()


def is_refused(client: Client) -> bool:
    answer = client.ask(get("/more"))
    if answer.status == 503:
        assert b"overloaded" in answer.body
        return True
    assert answer.status == 200
    return False


@pytest.mark.alone  # the kernel keeps 1.8 GiB of the answers; beside others it may have none left, and resets theirs
def test_slow_clients_and_little_memory(origins: list[Origin], tmp_path: Path) -> None:
    """2000 clients that do not read their answers: memory is bounded, newcomers are refused, nothing dies."""
    n, size, limit = 2000, 8 * MIB, 32 * MIB
    big = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)

    def serve(c: Peer) -> None:
        while True:
            request = c.read_request()
            c.send(big if request.target == "/big" else c.origin.answer(request))

    for origin in origins:
        origin.default = serve
    settings = config(origins, "tcp", timeouts={"read": "60s"})
    settings["limits"] = {"connections": n + 100, "buffered_bytes": limit}
    with LbProxy(settings, tmp_path / "lb") as lb, ExitStack() as stack:
        with Client(lb.port("in")) as early:
            assert early.ask(get("/early")).status == 200
            base = lb.rss_bytes()
            for _ in range(n):
                try:
                    client = Client(lb.port("in"), receive_buffer=4096, timeout_s=1.0)
                except TimeoutError:
                    break  # the kernel's queue is full: lbproxy does not accept
                stack.callback(client.reset)
                client.send(get("/big"))
            wait_until(lambda: is_refused(early), "requests to be refused")
            assert lb.metric("client_connections") < n, "it goes on accepting"
            grown = lb.rss_bytes() - base
            assert grown < 4 * limit, f"{grown / MIB:.0f} MiB for {limit / MIB:.0f} MiB of buffers"
            assert lb.metric("rejected_total", reason="overloaded") >= 1
        stack.close()
        wait_until(lambda: lb.metric("client_connections") == 0, "the clients to be gone")

        def is_served() -> bool:
            with Client(lb.port("in")) as client:
                return client.ask(get("/later")).status == 200

        wait_until(is_served, "new clients to be served again")
        assert lb.metric("server_up") == 2
        assert lb.metric("internal_errors_total") == 0
