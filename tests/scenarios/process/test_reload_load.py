"""Many reloads while everything is in flight: requests, streams, uploads, WebSockets and TCP connections.

LBPROXY_RELOADS=100 in the environment makes as many as `make soak` does.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.process.test_reload import Reloads, traffic
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer
from tests.support.ports import consecutive_ports
from tests.support.waiting import wait_until

RELOADS = int(os.environ.get("LBPROXY_RELOADS", "12"))
PAUSE_S = 0.5 if RELOADS > 12 else 0.05
N_TUNNELS, N_STREAMS = 5, 3
PIECE = b"piece"
BROKEN = ("pools: [", "listeners: []", "", "listeners: [{bind: 127.0.0.1:1, pool: nobody}]\npools: {}")


@pytest.fixture
def origins() -> Iterator[dict[str, Origin]]:
    with Origin() as one, Origin() as two, Origin() as long:
        yield {"one": one, "two": two, "long": long}


@pytest.fixture
def reloads(origins: dict[str, Origin], tmp_path: Path) -> Iterator[Reloads]:
    config: dict[str, Any] = {
        "listeners": [
            {"name": "in", "bind": "127.0.0.1:0", "pool": "p"},
            {"name": "long", "bind": "127.0.0.1:0", "pool": "long", "upgrade": ["websocket"]},
            {"name": "tcp", "bind": "127.0.0.1:0", "pool": "tcp", "mode": "tcp"},
        ],
        "pools": {
            "p": {"servers": [origins["one"].address], "health_check": {"interval": "100ms"}},
            "long": {"servers": [origins["long"].address], "health_check": "off", "keep_alive": "off"},
            "tcp": {"servers": [origins["long"].address], "health_check": "off"},
        },
    }
    with LbProxy(config, tmp_path / "lb") as lb:
        yield Reloads(lb)


def echoes(c: Peer) -> None:
    """A TCP connection that gives back what it gets."""
    while True:
        c.send(c.stream.take(len(PIECE)))


def upgrades(c: Peer) -> None:
    c.read_head()
    c.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    echoes(c)


def streams(go_on: Callable[[], bool]) -> Callable[[Peer], None]:
    """An answer without a known length, piece by piece until it is to end, and then whole."""

    def script(c: Peer) -> None:
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        count = 0
        while go_on():
            c.send(b"5\r\npiece\r\n")
            count += 1
            time.sleep(0.01)
        text = b"%d" % count
        c.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text))

    return script


def change(reloads: Reloads, origins: dict[str, Origin], number: int) -> None:
    """Something of each kind, and back."""
    config, pool = reloads.config, reloads.pool
    pool["servers"] = [{"address": origins["one"].address, "weight": 1 + number % 3}]
    if number % 2:
        pool["servers"].append(origins["two"].address)
    pool["strategy"] = ["least_connections", "round_robin", "power_of_two"][number % 3]
    pool["timeouts"] = {"read": f"{30 + number}s"}
    listener = config["listeners"][0]
    listener["limits"] = {"headers": 100 + number}
    listener["routes"] = [{"match": {"path_prefix": f"/x{number}"}, "respond": {"status": 204}}, {"pool": "p"}]
    listener.pop("pool", None)
    config["listeners"] = config["listeners"][:3]
    if number % 3 == 1:
        config["listeners"].append({"name": "more", "bind": f"127.0.0.1:{consecutive_ports(1)}", "pool": "p"})
    config["log"] = {"level": "info" if number % 2 else "warning"}


def test_nothing_in_flight_is_hurt(reloads: Reloads, origins: dict[str, Origin]) -> None:
    lb, long = reloads.lb, origins["long"]
    is_over = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(is_over.set)
        long.script(*[echoes] * N_TUNNELS)
        tunnels = [stack.enter_context(Client(lb.port("tcp"))) for _ in range(N_TUNNELS)]
        for client in tunnels:
            client.send(PIECE)
            assert client.take(len(PIECE)) == PIECE
        long.script(*[upgrades] * N_TUNNELS)
        for _ in range(N_TUNNELS):
            client = stack.enter_context(Client(lb.port("long")))
            client.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            client.wait_for(b"\r\n\r\n")
            assert b" 101 " in client.take(client.stream.record.index(b"\r\n\r\n") + 4)
            tunnels.append(client)
        long.script(*[streams(lambda: not is_over.is_set())] * N_STREAMS)
        readers = [stack.enter_context(Client(lb.port("long"), timeout_s=60.0)) for _ in range(N_STREAMS)]
        for client in readers:
            client.send(b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n")
            client.wait_for(PIECE)
        upload = stack.enter_context(Client(lb.port("long"), timeout_s=60.0))
        upload.send(b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (len(PIECE) * RELOADS))
        with traffic(lb.port("in")) as answers:
            for number in range(RELOADS):
                change(reloads, origins, number)
                assert reloads.reload()
                status, told = reloads.ask(BROKEN[number % len(BROKEN)])
                assert status == 422 and told["problems"]
                for client in tunnels:
                    client.send(PIECE)
                    assert client.take(len(PIECE)) == PIECE
                upload.send(PIECE)
                time.sleep(PAUSE_S)
        assert answers.failed == [] and answers.count > RELOADS
        is_over.set()
        for client in readers:
            body = client.response().body
            pieces, _, count = body.rpartition(PIECE)
            assert (len(pieces) + len(PIECE)) // len(PIECE) == int(count)
        assert upload.response().status == 200
    config = reloads.config
    config["listeners"] = config["listeners"][:3]
    reloads.reload()
    wait_until(lambda: 'listener="more"' not in lb.exposition(), "what came and went has no series")
    assert lb.metric("config_reloads_total", result="failure") == RELOADS
