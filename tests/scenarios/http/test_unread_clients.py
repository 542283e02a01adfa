"""Clients of which nothing is read for a while, because their server takes no more or they wait for their turn.

They cost no descriptor more than others, and that they have left is seen: a reset always, a FIN where a FIN is an end.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, TlsClient
from tests.support.client import Client, linger_reset, receive
from tests.support.daemon import LbProxy
from tests.support.in_flight import unread, wait_stuck
from tests.support.origin import Origin, Peer
from tests.support.rig import get, post
from tests.support.waiting import wait_until

MUCH = 300_000  # more than is read ahead
OPEN_FILES = 140


@pytest.mark.slow
def test_clients_that_are_held_back_need_no_descriptor_more(tmp_path: Path) -> None:
    """As many as `limits.connections` allows upload to a server that does not read: each has its connection there."""
    gate = threading.Event()

    def holds(c: Peer) -> None:
        c.wait(gate)
        c.serve()

    with Origin(default=holds) as origin, contextlib.ExitStack() as stack:
        # All stand still until the last has come.
        stands = dict.fromkeys(("write", "request_body"), "300s")
        patient = dict.fromkeys(("write", "read", "response_head"), "300s")
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p", "timeouts": stands}],
            "pools": {"p": {"servers": [origin.address], "health_check": "off", "timeouts": patient}},
            "limits": {"connections": 1000},
        }
        lb = stack.enter_context(LbProxy(config, tmp_path, nofile=OPEN_FILES))
        stack.callback(gate.set)
        wait_until(lambda: "is lowered from 1000" in lb.stderr, "the daemon to say how many fit")
        limit = int(lb.stderr.partition("is lowered from 1000 to ")[2].partition(":")[0])
        assert 2 * limit + 30 < OPEN_FILES < 3 * limit + 30, "with a third descriptor each, they would not fit"
        request = post("/upload", bytes(8 << 20))
        clients: list[Client] = []
        senders: list[threading.Thread] = []
        for _ in range(limit):
            clients.append(stack.enter_context(Client(lb.port("in"), timeout_s=60)))
            senders.append(threading.Thread(target=clients[-1].send, args=(request,)))
            senders[-1].start()
        for client, sender in zip(clients, senders, strict=True):
            wait_stuck(lb, client.sock, unless=lambda sender=sender: not sender.is_alive())  # type: ignore[misc]
        n_held_back = sum(unread(client.sock) > 0 for client in clients)
        assert n_held_back > limit // 2, "what lbproxy and the server's buffer hold is all that they send"
        wait_until(lambda: len(origin.peers) == limit, "each to have its server")
        wait_until(lambda: lb.metric("server_inflight") == limit, "each to be under way")
        assert lb.metric("upstream_errors_total") == 0
        gate.set()
        for client in clients:
            assert client.response().status == 200
        for sender in senders:
            sender.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@contextlib.contextmanager
def one_slot(directory: Path, **listener: object) -> Iterator[tuple[LbProxy, Origin, threading.Event]]:
    """A server with one slot, which is taken until the event is set."""
    release = threading.Event()

    def holds(c: Peer) -> None:
        c.wait(release)
        c.serve()

    with Origin() as origin:
        pool = {
            "servers": [origin.address],
            "health_check": "off",
            "max_inflight": 1,
            "queue": {"timeout": "300s"},
            "keep_alive": "off",
        }
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p", **listener}],
            "pools": {"p": pool},
        }
        with LbProxy(config, directory) as lb:
            origin.script(holds)
            try:
                yield lb, origin, release
            finally:
                release.set()


def reset(client: Client) -> None:
    if isinstance(client, TlsClient):
        linger_reset(client.tls)  # no close_notify
    else:
        client.reset()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("when", ["paused", "behind its fin"])
@pytest.mark.parametrize("mode", ["tcp", "half_close: answer"])
def test_a_reset_in_the_queue_is_seen(authority: Authority, tmp_path: Path, mode: str, when: str, secure: bool) -> None:
    """It loses its place and takes no slot, and its request is not delivered."""
    kind: dict[str, object] = {"mode": "tcp"} if mode == "tcp" else {"half_close": "answer"}
    if secure:
        kind["tls"] = authority.issue("unread", "localhost").tls
    with one_slot(tmp_path, **kind) as (lb, origin, release):

        def connect() -> Client:
            return TlsClient(lb.port("in"), authority.trusting()) if secure else Client(lb.port("in"))

        with connect() as first:
            first.send(get("/first"))
            wait_until(lambda: len(origin.peers) == 1, "the slot to be taken")
            with connect() as waiting:
                request = get("/waiting") + (b"x" * MUCH if when == "paused" else b"")
                sender = threading.Thread(target=waiting.send, args=(request,))
                sender.start()
                wait_until(lambda: lb.metric("queue_depth") == 1, "the other to wait")
                sender.join()
                if when != "paused":
                    if isinstance(waiting, TlsClient):
                        with contextlib.suppress(OSError):
                            waiting.sock.settimeout(0.05)
                            waiting.tls.unwrap()  # sends close_notify, and waits in vain for lbproxy's
                    Client.finish_writing(waiting)
                    assert lb.metric("queue_depth") == 1, "a FIN is no end here"
                reset(waiting)
                wait_until(lambda: lb.metric("queue_depth") == 0, "it to lose its place")
            assert lb.metric("client_aborts_total", phase="queued") == 1
            release.set()
            assert first.response().status == 200
        lb.check_idle()
        assert [request.target for request in origin.requests] == ["/first"] and len(origin.peers) == 1
        wait_until(lambda: len(lb.access_log()) == 2, "both lines")
        assert sorted(str(entry["end"]) for entry in lb.access_log()) == ["client_abort", "ok"]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LbProxy, Origin]]:
    with Origin() as origin:
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p", "half_close": "answer"}],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
        }
        with LbProxy(config, tmp_path_factory.mktemp("half")) as lb:
            yield lb, origin


def alternating(count: int) -> bytes:
    return b"".join(
        get(f"/{number}") if number % 2 else post(f"/{number}", b"GET / HTTP/1.1\r\n\r\n") for number in range(count)
    )


@pytest.mark.parametrize("count", [1, 2, 5, 100])
@pytest.mark.parametrize("rest", [b"", b"\r\n", b"GET /part HTTP/1.1\r\nHos", post("/part", b"12345")[:-1]])
def test_what_was_asked_before_a_fin_is_answered(half: tuple[LbProxy, Origin], count: int, rest: bytes) -> None:
    """haproxy and nginx answer them all as well. What is no whole request is dropped, with a line in the log."""
    lb, origin = half
    n_before, n_lines = len(origin.requests), len(lb.access_log())
    with Client(lb.port("in")) as client:
        client.send(alternating(count) + rest)
        client.finish_writing()
        answers = receive(client, None)
    assert answers.statuses == [200] * count
    is_cut = rest.startswith(b"POST")  # its head was whole, so it may have begun
    assert (answers.end, answers.error, answers.cut) == ("rst" if is_cut else "fin", "", None)
    assert [request.target for request in origin.requests[n_before:]] == [f"/{number}" for number in range(count)]
    is_part = len(rest) > 2
    wait_until(lambda: len(lb.access_log()) == n_lines + count + is_part, "the log")
    lines = lb.access_log()[n_lines:]
    outcomes = [(entry["end"], entry["status"]) for entry in lines]
    assert outcomes == [("ok", 200)] * count + [("client_abort", 499)] * is_part


def drip(client: Client, data: bytes) -> None:
    for at in range(len(data)):
        client.send(data[at : at + 1])


@pytest.mark.parametrize("send", [drip, lambda client, data: client.send(data)], ids=["drip", "at once"])
def test_nothing_is_lost_at_the_bound(tmp_path: Path, send: Callable[[Client, bytes], object]) -> None:
    """More than 32 requests, and more than 64 KiB, while the first waits."""
    with one_slot(tmp_path) as (lb, origin, release), Client(lb.port("in"), timeout_s=60) as client:
        client.send(get("/first"))
        wait_until(lambda: len(origin.peers) == 1, "the first to be at the server")
        asked = [get("/n") for _ in range(70)]
        if send is not drip:
            asked += [post("/n", bytes(10_000)) for _ in range(30)]
        sender = threading.Thread(target=send, args=(client, b"".join(asked)))
        sender.start()
        release.set()
        assert receive(client, 1 + len(asked)).statuses == [200] * (1 + len(asked))
        sender.join()
