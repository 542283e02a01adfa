"""`limits.connections` full of clients with nothing to do: who comes is served at once, whoever asks is not cut."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, TlsClient
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer
from tests.support.rig import get
from tests.support.waiting import wait_until

LIMIT = 20


@contextlib.contextmanager
def full(directory: Path, tls: object = None) -> Iterator[tuple[LbProxy, Origin]]:
    with Origin() as origin:
        # Nobody leaves because of these before the patience of a client is at its end.
        calm = {"keep_alive": "300s", "request_head": "300s"}
        listener: dict[str, object] = {"name": "in", "bind": "127.0.0.1:0", "pool": "p", "timeouts": calm}
        config: dict[str, object] = {
            "listeners": [{**listener, "tls": tls} if tls else listener],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
            "limits": {"connections": LIMIT},
        }
        with LbProxy(config, directory) as lb:
            yield lb, origin


def evicted(lb: LbProxy, reason: str) -> float:
    return lb.metric("client_connections_evicted_total", reason=reason)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_the_longest_idle_make_way(authority: Authority, tmp_path: Path, secure: bool) -> None:
    tls = authority.issue("full", "localhost").tls if secure else None
    with full(tmp_path, tls) as (lb, _), contextlib.ExitStack() as stack:

        def connect() -> Client:
            if secure:
                return stack.enter_context(TlsClient(lb.port("in"), authority.trusting()))
            return stack.enter_context(Client(lb.port("in")))

        kept = []
        for _ in range(LIMIT):
            kept.append(connect())
            assert kept[-1].ask(get("/kept")).status == 200
        time.sleep(1.1)  # what is idle for less than a second is left alone
        for client in kept[:5]:
            assert client.ask(get("/again")).status == 200
        for _ in range(10):
            assert connect().ask(get("/new")).status == 200
        assert evicted(lb, "idle") == 10
        for client in kept[5:15]:
            assert client.wait_end() == "fin"
        for client in kept[:5] + kept[15:]:
            assert client.ask(get("/still-there")).status == 200
        lb.wait_logged("limits.connections (20) is reached")
        assert {entry["end"] for entry in lb.access_log()} == {"ok"}


def test_clients_that_never_say_anything_make_way(tmp_path: Path) -> None:
    with full(tmp_path) as (lb, _), contextlib.ExitStack() as stack:
        for _ in range(LIMIT):
            stack.enter_context(Client(lb.port("in")))
        wait_until(lambda: lb.metric("client_connections") == LIMIT, "all to be connected")
        with Client(lb.port("in")) as client:
            assert client.ask(get("/new")).status == 200


def test_where_nobody_is_idle_an_answer_says_close(tmp_path: Path) -> None:
    gate = threading.Event()

    def holds(c: Peer) -> None:
        request = c.read_request()
        c.wait(gate)
        c.send(c.origin.answer(request))
        c.serve()

    with full(tmp_path) as (lb, origin), contextlib.ExitStack() as stack:
        stack.callback(gate.set)
        origin.script(*[holds] * LIMIT)
        busy = [stack.enter_context(Client(lb.port("in"), timeout_s=60)) for _ in range(LIMIT)]
        for client in busy:
            client.send(get("/busy"))
        wait_until(lambda: lb.metric("server_inflight") == LIMIT, "all to be busy")
        with Client(lb.port("in"), timeout_s=60) as newcomer:
            newcomer.send(get("/new"))
            wait_until(lambda: evicted(lb, "answered") == 1, "one to be chosen")
            time.sleep(0.5)
            assert evicted(lb, "answered") == 1, "one newcomer, one last answer"
            gate.set()
            answers = [client.response() for client in busy]
            assert [answer.status for answer in answers] == [200] * LIMIT
            last = [client for client, answer in zip(busy, answers, strict=True) if answer.get("connection") == "close"]
            assert len(last) == 1
            assert last[0].wait_end() == "fin"
            last[0].close()
            assert newcomer.response().status == 200


@pytest.mark.slow
def test_requests_are_not_lost_while_connections_make_way(tmp_path: Path) -> None:
    """Twice as many clients as may be connected, each asking twice a second: with its connection closed a client opens
    another one, and none is closed that has just asked."""
    lost: list[str] = []
    raced: list[str] = []  # closed at the very moment: the client must ask again (RFC 9112 section 9.3.1)
    with full(tmp_path) as (lb, _):
        until = time.monotonic() + 4.0

        def ask(number: int) -> None:
            client: Client | None = None
            while time.monotonic() < until:
                is_new = client is None
                try:
                    if client is None:
                        client = Client(lb.port("in"), timeout_s=60)
                    answer = client.ask(get(f"/{number}"))
                    if answer.status != 200:
                        lost.append(str(answer.status))
                    if answer.get("connection") == "close":
                        client.close()
                        client = None
                except Exception as error:
                    (lost if is_new else raced).append(repr(error))
                    client = None
                time.sleep(0.5 if number % 2 else 2.0)
                if client is not None and not client.is_silent(0):
                    client.close()  # closed while it was idle
                    client = None
            if client is not None:
                client.close()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(2 * LIMIT)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        made_way = evicted(lb, "idle") + evicted(lb, "answered")
        assert made_way > 0
        assert not lost and len(raced) <= 2 + made_way / 10, (lost, raced, made_way)
