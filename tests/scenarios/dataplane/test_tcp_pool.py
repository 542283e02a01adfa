"""TCP mode has the pool's services: strategies, checks, limits with a queue, and another server when a dial fails."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer, black_hole_port, refusing_port
from tests.support.waiting import wait_until


def echoes(c: Peer) -> None:
    while data := c.sock.recv(65536):
        c.sock.sendall(data)


@pytest.fixture
def origins() -> Iterator[list[Origin]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Origin(default=echoes)) for _ in range(3)]


def settings(*servers: object, **pool: object) -> dict[str, object]:
    members = {"servers": list(servers), "health_check": "off", **pool}
    return {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "p"}],
        "pools": {"p": members},
    }


class Line:
    """A connection that stays open; it is at a server once a byte came back."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 60, (source, 0))
        self.sock.settimeout(60)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def is_answered(self) -> bool:
        self.sock.sendall(b".")
        return self.sock.recv(1) == b"."


def connect(stack: contextlib.ExitStack, lb: LbProxy, count: int, source: str = "127.0.0.1") -> None:
    """So many connections that stay open until the stack ends."""
    for _ in range(count):
        assert stack.enter_context(Line(lb.port("in"), source)).is_answered()


def counts(origins: list[Origin]) -> list[int]:
    return [len(origin.peers) for origin in origins]


@pytest.mark.parametrize(
    ("strategy", "weights", "total", "expected"),
    [
        ("round_robin", (1, 1, 1), 12, [4, 4, 4]),
        ("weighted_round_robin", (5, 1, 1), 14, [10, 2, 2]),
        ("least_connections", (1, 1, 1), 12, [4, 4, 4]),
    ],
)
def test_a_strategy_spreads_connections(
    tmp_path: Path, origins: list[Origin], strategy: str, weights: tuple[int, ...], total: int, expected: list[int]
) -> None:
    servers = [{"address": o.address, "weight": weight} for o, weight in zip(origins, weights, strict=True)]
    with LbProxy(settings(*servers, strategy=strategy), tmp_path) as lb, contextlib.ExitStack() as stack:
        connect(stack, lb, total)
        assert counts(origins) == expected
        assert lb.metric("server_inflight") == total


@pytest.mark.parametrize("strategy", ["random", "power_of_two", "peak_ewma"])
def test_a_strategy_of_chance_uses_every_server(tmp_path: Path, origins: list[Origin], strategy: str) -> None:
    config = settings(*[origin.address for origin in origins], strategy=strategy)
    with LbProxy(config, tmp_path) as lb, contextlib.ExitStack() as stack:
        connect(stack, lb, 60)
        assert sum(counts(origins)) == 60
        assert min(counts(origins)) > 0


def test_least_connections_counts_those_that_are_open(tmp_path: Path, origins: list[Origin]) -> None:
    """Long-lived connections hold a place; where one has ended is room for the next."""
    config = settings(*[origin.address for origin in origins], strategy="least_connections")
    with LbProxy(config, tmp_path) as lb:
        with contextlib.ExitStack() as held, contextlib.ExitStack() as passing:
            connect(held, lb, 3)
            connect(passing, lb, 3)
            passing.close()
            wait_until(lambda: lb.metric("server_inflight") == 3, "the second three to end")
            connect(held, lb, 3)
            assert counts(origins) == [3, 3, 3]
        lb.check_idle()


def test_ip_hash_keeps_a_client_at_its_server(tmp_path: Path, origins: list[Origin]) -> None:
    config = settings(*[origin.address for origin in origins], strategy="ip_hash")
    with LbProxy(config, tmp_path) as lb, contextlib.ExitStack() as stack:
        homes = set()
        for number in range(1, 13):
            before = counts(origins)
            connect(stack, lb, 3, f"127.0.0.{number}")
            grown = [now - then for now, then in zip(counts(origins), before, strict=True)]
            assert sorted(grown) == [0, 0, 3]
            homes.add(grown.index(3))
        assert len(homes) > 1


def test_a_full_server_lets_connections_wait(tmp_path: Path, origins: list[Origin]) -> None:
    limits: dict[str, object] = {"max_inflight": 2, "queue": {"size": 1, "timeout": "300s"}}
    with LbProxy(settings(origins[0].address, **limits), tmp_path) as lb:
        with Line(lb.port("in")) as first, Line(lb.port("in")) as second, Client(lb.port("in")) as third:
            assert first.is_answered() and second.is_answered()
            third.send(b"third")
            wait_until(lambda: lb.metric("queue_depth") == 1, "the third to be queued")
            assert third.is_silent(0.2)
            # The queue is full. The reset may come before connect(2) has returned.
            with Client(lb.port("in")) as fourth:
                assert fourth.wait_end() == "rst"
            assert lb.metric("rejected_total", reason="queue_full") == 1
            first.sock.close()
            assert third.take(5) == b"third"
            assert len(origins[0].peers) == 3
        wait_until(lambda: len(lb.access_log()) == 4, "four lines")
        assert [entry["end"] for entry in lb.access_log()].count("queue_full") == 1


def test_who_waits_too_long_is_reset_and_who_leaves_is_forgotten(tmp_path: Path, origins: list[Origin]) -> None:
    limits: dict[str, object] = {"max_inflight": 1, "queue": {"size": 5, "timeout": "3s"}}
    with LbProxy(settings(origins[0].address, **limits), tmp_path) as lb, Line(lb.port("in")) as holder:
        assert holder.is_answered()
        with Client(lb.port("in")) as waiting:
            assert waiting.wait_end() == "rst"
        assert lb.metric("rejected_total", reason="queue_timeout") == 1
        leaving = Client(lb.port("in"))
        wait_until(lambda: lb.metric("queue_depth") == 1, "it to be queued")
        leaving.reset()
        wait_until(lambda: lb.metric("queue_depth") == 0, "it to be forgotten")
        assert lb.metric("client_aborts_total", phase="queued") == 1
        assert len(origins[0].peers) == 1


def test_a_limit_of_one_server_sends_the_rest_to_others(tmp_path: Path, origins: list[Origin]) -> None:
    servers: list[object] = [{"address": origins[0].address, "max_inflight": 1}, origins[1].address]
    with (
        LbProxy(settings(*servers, strategy="round_robin"), tmp_path) as lb,
        contextlib.ExitStack() as stack,
    ):
        connect(stack, lb, 6)
        assert counts(origins) == [1, 5, 0]


def test_a_backup_is_used_when_the_others_refuse(tmp_path: Path, origins: list[Origin]) -> None:
    with refusing_port() as dead:
        servers: list[object] = [f"127.0.0.1:{dead}", {"address": origins[0].address, "backup": True}]
        with LbProxy(settings(*servers), tmp_path) as lb, contextlib.ExitStack() as stack:
            connect(stack, lb, 3)
            assert counts(origins) == [3, 0, 0]


def test_a_dial_that_hangs_is_tried_at_another_server(tmp_path: Path, origins: list[Origin]) -> None:
    """Nothing was sent, and what the client sent meanwhile is not lost."""
    with black_hole_port() as port:
        config = settings(
            f"127.0.0.1:{port}", origins[0].address, strategy="round_robin", timeouts={"connect": "300ms"}
        )
        with LbProxy(config, tmp_path) as lb:
            for number in range(4):
                with Client(lb.port("in")) as client:
                    client.send(b"%d" % number, b"more")
                    assert client.take(5) == b"%dmore" % number
            assert lb.metric("upstream_connects_total", result="timeout") >= 1
            assert lb.metric("retries_total", reason="connect", outcome="success") >= 1
            wait_until(lambda: len(lb.access_log()) == 4, "four lines")
            assert max(entry["attempts"] for entry in lb.access_log()) == 2  # type: ignore[type-var]


@pytest.mark.parametrize(("retry", "attempts"), [("off", 1), ({"attempts": 1}, 2), ({"attempts": 2}, 3)])
def test_retries_are_as_many_as_configured(tmp_path: Path, retry: object, attempts: int) -> None:
    with contextlib.ExitStack() as stack:
        dead = [f"127.0.0.1:{stack.enter_context(refusing_port())}" for _ in range(4)]
        with LbProxy(settings(*dead, retry=retry), tmp_path) as lb:
            with Client(lb.port("in")) as client:
                assert client.wait_end() == "rst"
            wait_until(lambda: len(lb.access_log()) == 1, "its line")
            (entry,) = lb.access_log()
            assert (entry["attempts"], entry["end"]) == (attempts, "connect_refused")


def test_a_check_that_asks_takes_a_wrong_answer_for_a_failure(tmp_path: Path) -> None:
    """As a Redis that is loading its data, and then has."""
    replies = {"a": b"-LOADING Redis is loading the dataset in memory\r\n", "b": b"+PONG\r\n"}

    def answers(name: str) -> Origin:
        def script(c: Peer) -> None:
            while True:
                line = c.stream.line()
                c.send(replies[name] if line == b"PING" else b"+%b\r\n" % name.encode())

        return Origin(default=script)

    with answers("a") as a, answers("b") as b:
        check = {"type": "tcp", "send": "PING\r\n", "expect": {"text": "+PONG"}, "interval": "250ms", "rise": 1}
        config = settings(a.address, b.address, health_check={**check, "fall": 1}, strategy="round_robin")
        with LbProxy(config, tmp_path) as lb:
            wait_until(lambda: lb.metric("server_up", server=a.address) == 0, "a to be down")
            for _ in range(4):
                with Client(lb.port("in")) as client:
                    client.send(b"WHO\r\n")
                    assert client.take(4) == b"+b\r\n"
            assert "-LOADING Redis" in str(lb.status()["pools"])
            replies["a"] = b"+PONG\r\n"
            wait_until(lambda: lb.metric("server_up", server=a.address) == 1, "a to be back")
            seen = set()
            for _ in range(2):
                with Client(lb.port("in")) as client:
                    client.send(b"WHO\r\n")
                    seen.add(client.take(4))
            assert seen == {b"+a\r\n", b"+b\r\n"}
