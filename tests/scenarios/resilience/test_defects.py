"""An exception in each protocol callback. One client is hurt, it is counted once, nothing is left behind."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.support.client import Client, receive
from tests.support.hooked import DEFECTS, HookedDaemon
from tests.support.in_flight import wait_stuck
from tests.support.origin import Origin, Peer, Stopped, close_unanswered, silent, steps
from tests.support.rig import get, post
from tests.support.waiting import wait_until

BIG = 8 * 1024 * 1024  # more than fits into the kernel's buffers
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (BIG, bytes(BIG))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


class Stage:
    """A daemon with hooks, one scripted server behind an HTTP and a TCP listener, another one for the bystander."""

    def __init__(self, lb: HookedDaemon, origin: Origin, other: Origin) -> None:
        self.lb = lb
        self.origin = origin
        self.other = other
        self.go = threading.Event()

    def client(self, listener: str = "http") -> Client:
        return Client(self.lb.port(listener))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, n_workers: int) -> Iterator[Stage]:
    calm = {"health_check": "off", "circuit_breaker": "off", "retry": "off"}
    with Origin() as origin, Origin() as other:
        config: dict[str, object] = {
            "workers": n_workers,
            "listeners": [
                {"name": "http", "bind": "127.0.0.1:0", "pool": "http"},
                {"name": "tcp", "bind": "127.0.0.1:0", "pool": "tcp", "mode": "tcp"},
                {"name": "other", "bind": "127.0.0.1:0", "pool": "other"},
            ],
            "pools": {
                "http": {
                    "servers": [origin.address],
                    "max_inflight": 1,
                    "keep_alive": {"max_requests": 1000},
                    "timeouts": {"response_head": "8s", "read": "8s"},
                    **calm,
                },
                "tcp": {"servers": [origin.address], **calm},
                "other": {"servers": [other.address], **calm},
            },
        }
        lb = HookedDaemon(config, tmp_path_factory.mktemp("defects"))
        lb.start()
        try:
            yield Stage(lb, origin, other)
        finally:
            origin.reset()
            other.reset()
            lb.stop(allow_errors=True)


# --- what makes the callbacks run; each ends when its client has got an end, or has left ---


def hurt(client: Client) -> None:
    """The client of this request is told."""
    assert receive(client, 1).statuses == [500]


def cuts_off(stage: Stage) -> None:
    """Where nobody is left who could answer, the client sees a reset; it does not wait in vain."""
    with stage.client() as client:
        client.send(get("/cut-off"))
        got = receive(client, 1)
        assert (got.statuses, got.end) == ([], "rst")


def asks(stage: Stage) -> None:
    with stage.client() as client:
        client.send(get("/asks"))
        hurt(client)


def connects(stage: Stage) -> None:
    with stage.client() as client:
        client.send(get("/connects"))
        assert receive(client, None).statuses == []


def sends_in_pieces(stage: Stage) -> None:
    with stage.client() as client:
        request = post("/pieces")
        client.send(request[:-5])
        wait_until(lambda: stage.origin.partials, "the head to be at the server")
        client.send(request[-5:])
        hurt(client)


def is_answered_in_pieces(stage: Stage, *, has_first: bool, cut: int = -4) -> None:
    answer = (HEAD % 6).replace(b"\r\n\r\n", b"\r\nX-New: %d\r\n\r\n" % has_first) + b"abcdef"  # it is not known
    is_begun = threading.Event()

    def script(c: Peer) -> None:
        c.read_request()
        c.send(answer[:cut])
        is_begun.set()
        c.wait(stage.go)
        c.send(answer[cut:])
        c.serve()

    stage.origin.script(script)
    with stage.client() as client:
        client.send(get("/answered"))
        if has_first:
            client.wait_for(b"ab")
        else:
            assert is_begun.wait(60)
            with stage.client("tcp") as later:  # when it has its answer, what came before it was read
                assert later.ask(get("/later")).status == 200
        stage.go.set()
        if has_first:
            assert receive(client, 1).cut is not None
        else:
            hurt(client)


def leaves(stage: Stage, how: str) -> None:
    stage.origin.script(silent)
    with stage.client() as client:
        client.send(get("/leaves"))
        wait_until(lambda: stage.origin.requests, "the request to be at the server")
        client.finish_writing() if how == "fin" else client.reset()
        stage.lb.wait_fired("the hook")


def reads_late(stage: Stage) -> None:
    """A big answer to a client that does not read until lbproxy has taken what it can.

    Chunked, so that it is not left to the kernel.
    """
    stage.origin.script(steps(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + IN_CHUNKS))
    with stage.client() as client:
        client.send(get("/reads-late"))
        wait_until(lambda: stage.origin.requests, "the request to be at the server")
        wait_stuck(stage.lb, stage.origin.peers[-1].sock, unless=stage.lb.has_fired)
        assert len(client.read_to_end()) < BIG


def is_left_to_the_kernel(stage: Stage) -> None:
    stage.origin.script(steps(HEAD % BIG + bytes(BIG)))
    with stage.client() as client:
        client.send(get("/spliced"))
        assert len(client.read_to_end()) < BIG
        assert client.end == "rst"


def uploads(stage: Stage) -> None:
    """A big body to a server that does not read until lbproxy has taken what it can. Chunked, as above."""

    def script(c: Peer) -> None:
        request = c.read_head()
        c.wait(stage.go)
        c.read_body(request)
        raise Stopped

    stage.origin.script(script)
    with stage.client() as client:
        head = b"POST /uploads HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        sender = threading.Thread(target=client.send, args=(head + IN_CHUNKS,))
        sender.start()
        wait_stuck(stage.lb, client.sock, unless=stage.lb.has_fired)
        stage.go.set()
        hurt(client)
        sender.join()


def is_not_answered(stage: Stage) -> None:
    stage.origin.script(close_unanswered)
    asks(stage)


def talks_tcp(stage: Stage) -> None:
    with stage.client("tcp") as client:
        client.send(get("/tcp"))
        client.read_to_end()


def sends_much_by_tcp(stage: Stage) -> None:
    with stage.client("tcp") as client:
        client.send(post("/tcp-bulk", bytes(2_000_000)))  # it is reset before all of it was taken, or right after
        assert client.read_to_end() == b""


def ends_tcp(stage: Stage) -> None:
    with stage.client("tcp") as client:
        assert client.ask(get("/tcp-ends")).status == 200
        client.finish_writing()
        client.read_to_end()


def resets_tcp(stage: Stage) -> None:
    with stage.client("tcp") as client:
        assert client.ask(get("/tcp-resets")).status == 200
        client.reset()
        stage.lb.wait_fired("the hook")


def is_swept(stage: Stage) -> None:
    with stage.client() as client:
        stage.lb.wait_fired("the hook")
        assert client.ask(get("/swept")).status == 200


ACTIONS: dict[str, Callable[[Stage], None]] = {
    "Http1Connection._connected": connects,
    "Http1Connection._begin": cuts_off,
    "Http1Connection._other_data": sends_in_pieces,
    "Http1Connection._eof_received": partial(leaves, how="fin"),
    "Http1Connection._leave": partial(leaves, how="rst"),
    "Http1Connection.respond": cuts_off,
    "ClientFacts.forwarding_lines": asks,
    "Http1Connection.sweep": is_swept,
    "Exchange.start": asks,
    "Exchange.client_left": partial(leaves, how="rst"),
    "Exchange.client_blocked": reads_late,
    "Exchange.client_unblocked": reads_late,
    "Attempt.upstream_blocked": uploads,
    "Attempt.upstream_unblocked": uploads,
    "Attempt.response_received": asks,
    "Attempt.response_body": partial(is_answered_in_pieces, has_first=True),
    "Attempt.response_spliced": is_left_to_the_kernel,
    "Attempt.opened": asks,
    "AttemptBooks.timeouts": sends_in_pieces,
    "UpstreamConnection._connected": asks,
    "UpstreamConnection._other_data": partial(is_answered_in_pieces, has_first=False, cut=12),
    "UpstreamConnection._final_head": partial(is_answered_in_pieces, has_first=False),
    "UpstreamConnection._ended": is_not_answered,
    "TcpSession.start": talks_tcp,
    "RelayEnd._leave_to_kernel": sends_much_by_tcp,
    "Relay.direction_ended": ends_tcp,
    "Relay.end_lost": resets_tcp,
}


def test_every_hook_has_its_action() -> None:
    assert {method.partition(":")[2] for method in DEFECTS} == set(ACTIONS)


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    running.origin.reset()
    running.go.clear()
    lb = running.lb
    assert lb.is_running
    at, before = len(lb.stderr), lb.metric("internal_errors_total")
    with running.client("other") as bystander:
        assert bystander.ask(get("/before")).status == 200
        yield running
        assert bystander.ask(get("/after")).status == 200
    running.go.set()
    running.origin.reset()
    lb.check_idle()
    assert lb.metric("internal_errors_total") - before == 1

    def raised() -> list[str]:
        return [line for line in lb.stderr[at:].splitlines() if re.match(r"\s*\S*InjectedDefect: ", line)]

    wait_until(raised, "the defect to be in the log")
    assert len(raised()) == 1, lb.stderr[at:]
    with running.client() as client:  # the slot is free, the listener accepts
        assert client.ask(get("/later")).status == 200


@pytest.mark.parametrize("method", DEFECTS, ids=lambda method: method.partition(":")[2])
def test_an_exception_in_a_callback(stage: Stage, method: str) -> None:
    stage.lb.arm(method)
    ACTIONS[method.partition(":")[2]](stage)
    stage.lb.wait_fired(method)
