"""Many reloads while everything is in flight: requests at a fixed rate, streams, uploads, WebSockets, TCP and TLS
connections, while certificates are swapped and a listener comes, moves and goes.

LBPROXY_RELOADS=100 in the environment is what `make soak` does, with 500 requests a second, 50 WebSockets, 50 TCP
connections and 10 streams.

Each sixth reload comes to the same things in other words. Then lbproxy holds exactly the descriptors that it held
before, but for idle connections to servers, of which there are as many as requests ever were under way at once; and not
more memory, once what remembers requests is full.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.process.test_reload import Reloads, get
from tests.support.certificates import Authority, CertFiles, TlsClient
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.in_flight import PIECE, open_tunnels, streams
from tests.support.open_loop import OpenLoop, Servers
from tests.support.origin import Origin
from tests.support.ports import consecutive_ports
from tests.support.waiting import wait_until

RELOADS = int(os.environ.get("LBPROXY_RELOADS", "18"))
IS_FULL = RELOADS >= 100
PAUSE_S = 0.5 if IS_FULL else 0.05
RATE = 500 if IS_FULL else 100
N_TUNNELS = 50 if IS_FULL else 5
N_STREAMS = 10 if IS_FULL else 3
CONNECTIONS = 20  # of the load
RECENT = 500  # admin.recent: memory grows until so many requests are remembered
CYCLE = 6  # reloads after which all is as it was
RSS_RATIO = 1.05
SETTLE_S = 2.0  # connections that are told to close when idle have a second for that
BROKEN = ("pools: [", "listeners: []", "", "listeners: [{bind: 127.0.0.1:1, pool: nobody}]\npools: {}")


@dataclass
class Stage:
    """What runs. served: two addresses that answer at once. certificates: two, by turns."""

    reloads: Reloads
    servers: Servers
    long: Origin
    authority: Authority
    certificates: tuple[CertFiles, CertFiles]
    more: tuple[int, int]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    authority = Authority(tmp_path / "ca")
    certificates = authority.issue("one", "localhost"), authority.issue("two", "localhost")
    with Servers(2, 0.0) as servers, Origin() as long:
        config: dict[str, Any] = {
            "admin": {"bind": "127.0.0.1:0", "recent": RECENT},
            "listeners": [
                {"name": "in", "bind": "127.0.0.1:0", "pool": "p"},
                {"name": "long", "bind": "127.0.0.1:0", "pool": "long", "upgrade": ["websocket"]},
                {"name": "tcp", "bind": "127.0.0.1:0", "pool": "tcp", "mode": "tcp"},
                {"name": "tls", "bind": "127.0.0.1:0", "pool": "p", "tls": certificates[0].tls},
            ],
            "pools": {
                "p": {"servers": [servers.addresses[0]], "health_check": {"interval": "100ms"}},
                "long": {"servers": [long.address], "health_check": "off", "keep_alive": "off"},
                "tcp": {"servers": [long.address], "health_check": "off"},
            },
        }
        with LbProxy(config, tmp_path / "lb") as lb:
            first = consecutive_ports(2)
            yield Stage(Reloads(lb), servers, long, authority, certificates, (first, first + 1))


def change(stage: Stage, number: int) -> None:
    """Something of each kind, and back."""
    config, pool = stage.reloads.config, stage.reloads.pool
    one, two = stage.servers.addresses
    pool["servers"] = [{"address": one, "weight": 1 + number % 3}]
    if number % 2:
        pool["servers"].append(two)
    pool["strategy"] = ["least_connections", "round_robin", "power_of_two"][number % 3]
    pool["timeouts"] = {"read": f"{30 + number}s"}
    pool["headers"] = {"response": {"set": {"x-number": str(number)}}}
    listener = config["listeners"][0]
    listener["limits"] = {"headers": 100 + number}
    listener["routes"] = [{"match": {"path_prefix": f"/x{number}"}, "respond": {"status": 204}}, {"pool": "p"}]
    listener.pop("pool", None)
    config["listeners"] = config["listeners"][:4]
    config["listeners"][3]["tls"] = stage.certificates[number % 2].tls
    if number % 3:  # it comes, moves, and goes
        config["listeners"].append({"name": "more", "bind": f"127.0.0.1:{stage.more[number % 3 - 1]}", "pool": "p"})
    config["log"] = {"level": "info" if number % 2 else "warning"}


def held(lb: LbProxy, load: OpenLoop) -> tuple[int, int]:
    """Bytes, and descriptors that are no idle connection to a server. Nothing is asked meanwhile."""
    load.is_paused = True
    try:
        lb.wait_metric("server_inflight", 0)
        wait_until(lambda: load.report.is_over, "every request to have its end")

        counts: list[int] = []
        ends = time.monotonic() + SETTLE_S
        while time.monotonic() < ends or len(counts) < 10:
            counts.append(lb.fd_count() - int(lb.metric("upstream_connections", state="idle")))
        return lb.rss_bytes(), min(counts)  # the connection of a check, or of who has just left, may still be closing
    finally:
        load.is_paused = False


def serial(client: TlsClient) -> str:
    """Of the certificate that it was shown."""
    certificate = client.tls.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


class Checks:
    """What is looked at after each reload."""

    def __init__(self, stage: Stage, stack: contextlib.ExitStack) -> None:
        self._stage = stage
        lb = stage.reloads.lb
        self._plain = stack.enter_context(Client(lb.port("in")))
        self._tls = stack.enter_context(self._connected())
        self._serials: dict[int, str] = {}

    def _connected(self) -> TlsClient:
        return TlsClient(self._stage.reloads.lb.port("tls"), self._stage.authority.trusting())

    def run(self, number: int) -> None:
        """Nothing is stale: a connection that is kept and a new one see the file as it is now."""
        with self._connected() as fresh:
            for client in (self._plain, self._tls, fresh):
                answer = client.ask(b"GET /watched HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (answer.status, answer.get("x-number")) == (200, str(number))
                assert answer.is_kept_alive
            shown = self._serials.setdefault(number % 2, serial(fresh))
            assert serial(fresh) == shown and shown != self._serials.get(1 - number % 2)
        if number % 3:
            assert get(self._stage.more[number % 3 - 1])[0] == 200


def test_nothing_in_flight_is_hurt(stage: Stage) -> None:
    reloads, long, lb = stage.reloads, stage.long, stage.reloads.lb
    is_over = threading.Event()
    used: list[tuple[int, int]] = []
    with contextlib.ExitStack() as stack:
        stack.callback(is_over.set)
        tunnels = open_tunnels(lb, stage.long, stack, N_TUNNELS)
        long.script(*[streams(lambda: not is_over.is_set())] * N_STREAMS)
        readers = [stack.enter_context(Client(lb.port("long"), timeout_s=60.0)) for _ in range(N_STREAMS)]
        for client in readers:
            client.send(b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n")
            client.wait_for(PIECE)
        upload = stack.enter_context(Client(lb.port("long"), timeout_s=60.0))
        upload.send(b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (len(PIECE) * (RELOADS + 1)))
        checks = Checks(stage, stack)
        with stage.servers.load(lb.port("in"), RATE, CONNECTIONS) as load:
            for number in range(RELOADS):
                change(stage, number)
                assert reloads.reload()
                checks.run(number)
                status, told = reloads.ask(BROKEN[number % len(BROKEN)])
                assert status == 422 and told["problems"]
                for client in tunnels:
                    client.send(PIECE)
                    assert client.take(len(PIECE)) == PIECE
                upload.send(PIECE)
                time.sleep(PAUSE_S)
                if number % CYCLE == CYCLE - 1:
                    used.append(held(lb, load))
        report = load.report
        assert (report.broken, report.refused, report.told_to_close) == ([], 0, 0)
        assert report.statuses == {200: report.sent} and report.sent > RELOADS
        is_over.set()
        for client in readers:
            body = client.response().body
            pieces, _, count = body.rpartition(PIECE)
            assert (len(pieces) + len(PIECE)) // len(PIECE) == int(count)
        upload.send(PIECE)
        assert upload.response().status == 200
    print(f"{report.sent} requests; memory (KiB) and descriptors: {[(rss >> 10, fds) for rss, fds in used]}")
    assert len({fds for _, fds in used}) == 1, used
    warm = used[len(used) // 3 :]
    assert len(warm) > 1 and warm[-1][0] <= RSS_RATIO * warm[0][0], used
    config = reloads.config
    config["listeners"] = config["listeners"][:4]
    reloads.reload()
    wait_until(lambda: 'listener="more"' not in lb.exposition(), "what came and went has no series")
    assert lb.metric("config_reloads_total", result="failure") == RELOADS
