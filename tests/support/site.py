"""One daemon with many pools, each with scripted servers and a listener of its own, all under the pool's name.

What a pool has learned about its servers (breaker, penalties, drain rate) outlives a test, so each test takes a pool
that no other test uses, and all share the daemon.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tests.support import daemon
from tests.support.arrivals import NEAR_S
from tests.support.client import Client
from tests.support.daemon import Entry, LbProxy, parse_metrics, total
from tests.support.origin import Origin, Peer, Stopped, echo
from tests.support.waiting import wait_until
from tests.support.wire import Request, Response

T = TypeVar("T")
Settings = Mapping[str, object]

# Longer than any test waits: what ends within the patience of a client was ended by what the test is about.
_CALM = {"connect": "300s", "response_head": "300s", "read": "300s", "write": "300s"}


class Server(Origin):
    """An origin that counts what it works on at once, and answers when its gate is open."""

    def __init__(self) -> None:
        super().__init__(default=self.work, answer=echo)
        self.gate = threading.Event()
        self.gate.set()
        self.service_s = 0.0
        self.at_work = 0
        self.most_at_work = 0
        self.n_started = 0
        self._books = threading.Lock()

    def work(self, c: Peer) -> None:
        """The default script: read, wait for the gate, take the service time, answer; as often as the proxy asks."""
        while True:
            request = c.read_request()
            self.attend(c)
            c.send(self.answer(request))

    def attend(self, c: Peer) -> None:
        """Be at work until the gate is open and the service time is over. Ends before the answer is sent."""
        with self._books:
            self.n_started += 1
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            c.wait(self.gate)
            time.sleep(self.service_s)
        finally:
            with self._books:
                self.at_work -= 1

    @property
    def targets(self) -> list[str]:
        """Targets of the requests that arrived whole, in their order."""
        return [request.target for request in self.requests]


def status(code: int, *fields: str, body: bytes = b"no\n") -> Callable[[Request], bytes]:
    """An answer for `Origin.answer`: this status, these further field lines, this body."""
    lines = [f"HTTP/1.1 {code} Scripted", f"Content-Length: {len(body)}", "Content-Type: text/x-origin", *fields]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return lambda request: head if request.method == "HEAD" else head + body


class Pool:
    """What a test needs of one pool."""

    def __init__(self, site: Site, name: str, servers: list[Server]) -> None:
        self.site = site
        self.lb = site.lb
        self.name = name
        self.servers = servers

    def client(self, **options: float) -> Client:
        """A connection to the pool's listener; close it in the test (`with`)."""
        return Client(self.lb.port(self.name), **options)  # type: ignore[arg-type]

    def ask(self, request: bytes) -> Response:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.ask(request)

    def metric(self, name: str, **labels: str) -> float:
        return self.lb.metric(name, pool=self.name, **labels)

    def rejected(self, reason: str) -> float:
        return self.lb.metric("rejected_total", listener=self.name, reason=reason)

    def wait_queued(self, depth: int) -> None:
        """Wait until exactly so many requests are in the queue, and whoever comes next is behind them.

        Over several workers the order is that of arrival to within 10 ms, and a look takes less than one.
        """
        wait_until(lambda: self.metric("queue_depth") == depth, f"queue_depth of {self.name} to be {depth}")
        if daemon.n_workers > 1:
            time.sleep(NEAR_S)

    def wait_inflight(self, count: int) -> None:
        wait_until(lambda: self.metric("server_inflight") == count, f"server_inflight of {self.name} to be {count}")

    @property
    def n_attempts(self) -> int:
        """Requests that reached any server whole."""
        return sum(len(server.requests) for server in self.servers)

    def status(self) -> Entry:
        """The pool's part of /api/v1/status."""
        return self.lb.pool_status(self.name)

    def member(self, number: int) -> Entry:
        """The status of one server by its place in the config."""
        servers = self.status()["servers"]
        assert isinstance(servers, list)
        return dict(servers[number])

    def states(self) -> list[str]:
        servers = self.status()["servers"]
        assert isinstance(servers, list)
        return [server["state"] for server in servers]

    def wait_state(self, number: int, state: str) -> Entry:
        wait_until(lambda: self.member(number)["state"] == state, f"server {number} of {self.name} to be {state}")
        return self.member(number)

    def log(self, target: str) -> Entry:
        """The one log line of this listener for a target."""
        found = wait_until(
            lambda: [entry for entry in self.lines() if entry["target"] == target], f"an access log line for {target}"
        )
        assert len(found) == 1, found
        return found[0]

    def lines(self) -> list[Entry]:
        """All log lines of this pool's listener."""
        return [entry for entry in self.lb.access_log() if entry["listener"] == self.name]


class Site:
    """`plan`: pool name -> settings. Beyond the config's own keys: `n` servers (2), which of them are `backups`, the
    servers' own `slots`, and the listener's `mode` and `routes`.
    """

    def __init__(self, directory: Path, plan: Mapping[str, Settings], **top: object) -> None:
        self._servers: dict[str, list[Server]] = {}
        listeners: list[Settings] = []
        pools: dict[str, Settings] = {}
        for name, wanted in plan.items():
            settings = dict(wanted)
            routes = settings.pop("routes", None)
            target: Settings = {"pool": name} if routes is None else {"routes": routes}
            listeners.append({"name": name, "bind": "127.0.0.1:0", "mode": settings.pop("mode", "http"), **target})
            pools[name] = self._pool(name, settings)
        self.lb = LbProxy({"listeners": listeners, "pools": pools, "shutdown": {"grace": "60s"}, **top}, directory)
        self._stderr_at = 0
        self._before = ""

    def _pool(self, name: str, settings: dict[str, object]) -> Settings:
        number = settings.pop("n", 2)
        assert isinstance(number, int)
        servers = self._servers[name] = [Server() for _ in range(number)]
        backups = settings.pop("backups", ())
        assert isinstance(backups, tuple)
        slots = settings.pop("slots", ())
        assert isinstance(slots, tuple)
        timeouts = settings.pop("timeouts", {})
        assert isinstance(timeouts, dict)
        return {
            "servers": [
                {"address": s.address, "backup": i in backups, **({"max_inflight": slots[i]} if slots else {})}
                for i, s in enumerate(servers)
            ],
            "strategy": "round_robin",
            "health_check": "off",
            "timeouts": {**_CALM, **timeouts},
            **settings,
        }

    def __enter__(self) -> Site:
        self.lb.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for servers in self._servers.values():
            for server in servers:
                server.close()
        if self.lb.is_running:
            self.lb.__exit__(*exc)

    def pool(self, name: str) -> Pool:
        return Pool(self, name, self._servers[name])

    def begin(self) -> None:
        """Remember where the logs and counters are."""
        self._stderr_at = len(self.lb.stderr)
        self._before = self.lb.exposition()

    def check(self) -> None:
        """What holds after every scenario: nothing in flight or queued, no error logged, strict HTTP to servers."""
        for servers in self._servers.values():
            for server in servers:
                server.gate.set()
        name = "internal_errors_total"
        metrics = self.lb.check_idle(also=[name])
        assert not self.lb.error_lines(self._stderr_at), self.lb.stderr[self._stderr_at :]
        assert total(metrics, name) == total(parse_metrics(self._before, name), name)
        for pool, servers in self._servers.items():
            for server in servers:
                assert not server.violations, (pool, server.violations)


class Crowd:
    """Runs what blocks in threads; leaving the block waits for all of it."""

    def __init__(self, size: int = 64) -> None:
        self._threads = ThreadPoolExecutor(size)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    def start(self, work: Callable[[], T]) -> Future[T]:
        return self._threads.submit(work)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result, and the seconds it took."""
    started = time.monotonic()
    return work(), time.monotonic() - started


def then_nothing(data: bytes) -> Callable[[Peer], None]:
    """Read one request, send this, and close without the rest."""

    def script(c: Peer) -> None:
        c.read_request()
        c.send(data)
        c.fin()
        raise Stopped

    return script
