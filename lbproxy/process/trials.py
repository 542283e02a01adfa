"""`lbproxy test`: what would come of the requests in `tests`, from the objects that a start makes, without a socket.

A request is written as a client would send it and goes through what reads, routes and places requests, so that what a
test says is what a run does. Names of servers are not looked up (each is one server), and TLS is left out: certificates
are often not where tests run. Each test has a pool of its own, as at a start, whose servers are all up and idle but for
what the test says.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lbproxy import __version__, errors
from lbproxy.config.listener_model import Listener
from lbproxy.config.model import Config
from lbproxy.config.pool_model import Pool as PoolConfig
from lbproxy.config.tests_checks import listener_of
from lbproxy.config.tests_model import NONE, Expectation, Trial, TrialServer, matches
from lbproxy.control.affinity_words import key_in
from lbproxy.control.body_words import beyond_fork
from lbproxy.control.file_servers import server_of
from lbproxy.control.metrics import Registry
from lbproxy.dataplane.exchange.forwarding import client_address
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.domain.lease import Outcome, Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import REFUSED, Admin, Health
from lbproxy.domain.strategies.base import PickContext
from lbproxy.errors import Fault
from lbproxy.process.wiring import Wiring
from lbproxy.protocol.http1 import HeadError
from lbproxy.telemetry.slots import Slots

PICKS: Final = 200
"""How often a strategy is asked for a server. One that gets 3 % of the requests is overlooked in one of 400 tests."""

_NOW: Final = 1000.0  # any time will do; none passes
_CHECKS_FAIL: Final = "checks fail"
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Found:
    """What would come of a request. None and empty texts: there is no such thing here.

    route: its position. servers: all that it may go to, in the order of the pool. status: that lbproxy itself answers
    with. path: that the server gets. said: how it ends, for people. broken: what a strategy raised.
    """

    route: int | None = None
    pool: str | None = None
    servers: tuple[str, ...] = ()
    status: int | None = None
    path: str = ""
    location: str = ""
    said: str = ""
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """One test: what was asked, what came of it, and by key what was expected and is not so."""

    trial: Trial
    asked: str
    found: Found
    failures: tuple[tuple[str, str], ...]


def run(config: Config, *, base_dir: str) -> list[Result]:
    """Try all tests of a config. base_dir: where files of strategies are.

    Raises Unusable if a strategy cannot be made.
    """
    plain = without_tls(config)
    wiring = _wiring(plain, base_dir)
    wiring.build_pools()
    listeners = {listener.name: wiring.build_listener(listener) for listener in plain.listeners}
    results = []
    for trial in plain.tests:
        listener = listener_of(trial, plain)
        assert listener is not None, trial  # config.tests_checks has seen to it
        found = _Try(trial, listeners[listener.name], plain, base_dir).found()
        results.append(Result(trial, asked(trial, listener), found, tuple(failures(trial.expect, found))))
    return results


def without_tls(config: Config) -> Config:
    """The same config, but nothing of it needs a certificate."""

    def bare(pool: PoolConfig) -> PoolConfig:
        check = pool.health_check
        return pool.model_copy(
            update={"tls": None, "health_check": check and check.model_copy(update={"tls": None})},
        )

    return config.model_copy(
        update={
            "listeners": tuple(listener.model_copy(update={"tls": None}) for listener in config.listeners),
            "pools": {name: bare(pool) for name, pool in config.pools.items()},
        }
    )


def _wiring(config: Config, base_dir: str, broken: list[str] | None = None) -> Wiring:
    told = broken if broken is not None else []
    return Wiring(
        config,
        Slots(),
        Registry(__version__),
        rng=random.Random(0),  # a test that passes passes again
        dial_failed=lambda *_: None,
        strategy_failed=lambda _, error: told.append(f"{type(error).__name__}: {error}"),
        base_dir=base_dir,
    )


class _Try:
    """One test."""

    def __init__(self, trial: Trial, listener: ListenerRuntime, config: Config, base_dir: str) -> None:
        self._trial = trial
        self._listener = listener
        self._config = config
        self._base_dir = base_dir

    def found(self) -> Found:
        if self._listener.mode == "tcp":
            pool = self._listener.routes[0].pool
            assert pool is not None  # a TCP listener has nothing else
            return self._placed(0, pool.name, "", PickContext(self._trial.request.client))
        return self._routed()

    def _routed(self) -> Found:
        listener, client = self._listener, self._trial.request.client
        is_trusted = listener.is_trusted(client)
        try:
            prepared = prepare(listener, self._head(), is_trusted=is_trusted, log_format=None, local_host="localhost")
        except HeadError as error:
            return refused(None, None, error.fault, error.detail)
        if is_trusted:
            client = client_address(prepared.head.forwarding, client, listener.is_trusted)
        body = self._trial.request.body.encode("utf-8", "replace")
        if prepared.fork is not None:
            wanted = self._trial.expect.pool
            prepared, _ = beyond_fork(prepared.fork, client, body, () if wanted is None else (wanted,))
        route, head = prepared.route, prepared.head
        position = listener.position_of(route)
        if prepared.fault is not None:
            return refused(position, None, prepared.fault, prepared.fault_detail)
        if prepared.is_local:
            return Found(position, status=200, said="is answered with 200 (Max-Forwards: 0)")
        if route.redirect is not None:
            status, location = route.redirect
            where = (prepared.location or location).decode("latin-1")
            return Found(position, status=status, location=where, said=f"is redirected with {status} to {where}")
        if route.respond is not None:
            return Found(position, status=route.respond[0], said=f"is answered with {route.respond[0]}")
        assert prepared.pool is not None and position is not None  # what else can a route do?
        path = prepared.forward.split(b" ", 2)[1].decode("latin-1")
        context = PickContext(client, head, key_in(prepared.pool.pool, body))
        return self._placed(position, prepared.pool.name, path, context)

    def _head(self) -> bytes:
        request = self._trial.request
        lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: {request.host}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        if request.body and not {name.lower() for name in request.headers} & {"content-length", "transfer-encoding"}:
            lines.append(f"Content-Length: {len(request.body.encode('utf-8', 'replace'))}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _placed(self, position: int, name: str, path: str, ctx: PickContext) -> Found:
        broken: list[str] = []
        pool = self._pool(name, broken)
        chosen: set[Server] = set()
        for _ in range(PICKS):
            lease = pool.acquire(ctx, (), _NOW)
            if lease is Refusal.NO_SERVER:
                return refused(position, name, errors.NO_SERVER, "no server of it is usable", path)
            if lease is Refusal.FULL:
                if pool.queue is not None and pool.queue.size:
                    return Found(position, name, path=path, said="waits, as every server is at its limit")
                return refused(position, name, errors.QUEUE_FULL, "every server is at its limit", path)
            assert not isinstance(lease, Refusal)
            chosen.add(lease.server)
            lease.release(Outcome.NEUTRAL, _NOW)
        servers = tuple(server.name for server in pool.servers if server in chosen)
        how = ", as the pool fails open" if pool.is_failing_open else ""
        said = f"goes to {one_of(servers)}{how}"
        return Found(position, name, servers, path=path, said=said, broken="".join(broken[:1]))

    def _pool(self, name: str, broken: list[str]) -> Pool:
        """The pool as at a start, with its servers as the test says."""
        config = self._config.pools[name]
        wiring = _wiring(self._config.model_copy(update={"pools": {name: config}}), self._base_dir, broken)
        runtime = wiring.build_pools()[name]
        for spec in config.servers:
            if not spec.address.is_literal:
                wiring.add_server(runtime, server_of(spec, config))
        for server in runtime.pool.servers:
            set_state(runtime.pool, server, self._given(f"{name}/{server.name}"))
        return runtime.pool

    def _given(self, place: str) -> TrialServer:
        pool, _, name = place.partition("/")
        state = TrialServer()
        for pattern, given in self._trial.given.items():
            given_pool, _, server = pattern.partition("/")
            if given_pool == pool and matches(server, name):
                state = given
        return state


def set_state(pool: Pool, server: Server, given: TrialServer) -> None:
    """Bring a server that has just joined into a state."""
    state, limit = given.state, server.limit
    for _ in range(limit if state == "full" else given.inflight):
        pool.books.began(server)
    pool.set_health(server, Health.BUSY if state == "busy" else Health.UP, "", "", _NOW)
    if state in ("down", "refused"):
        pool.set_health(server, Health.DOWN, REFUSED if state == "refused" else _CHECKS_FAIL, "", _NOW)
    elif state == "ejected":
        pool.members.ejected(server, server.shown, "", _NOW)
    elif state in ("drain", "maint"):
        pool.set_admin(server, Admin(state), "", _NOW)


def refused(position: int | None, pool: str | None, fault: Fault, detail: str, path: str = "") -> Found:
    """What lbproxy answers by itself."""
    return Found(position, pool, status=fault.status, path=path, said=f"is refused with {fault.status}: {detail}")


def one_of(names: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b, c, d, e or 12 others`."""
    shown = list(names[:_SHOWN])
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown)} others")
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


# --- what was expected ----------------------------------------------------------------------------------------------


def failures(expected: Expectation, found: Found) -> Iterator[tuple[str, str]]:
    """The keys of `expect` that do not hold, with what was expected and what came."""
    if found.broken:
        yield "server", f"the strategy failed: {found.broken}"
    for key, wanted, got in (
        ("route", expected.route, NONE if found.route is None else found.route),
        ("pool", expected.pool, NONE if found.pool is None else found.pool),
        ("status", expected.status, found.status),
        ("path", expected.path, found.path),
        ("location", expected.location, found.location),
    ):
        if wanted is not None and wanted != got:
            yield key, f"expected {wanted}, got {NONE if got in (None, '') else got}"
    wanted_servers = [name for name in expected.server if name != NONE]
    if not found.servers:
        if expected.server and NONE not in expected.server:
            yield "server", f"expected {one_of(expected.server)}, got none"
        return
    others = [name for name in found.servers if not any(matches(pattern, name) for pattern in wanted_servers)]
    if expected.server and others:
        yield "server", f"expected {one_of(expected.server)}, got {one_of(found.servers)}"


def asked(trial: Trial, listener: Listener) -> str:
    """The request for people."""
    request = trial.request
    if listener.mode == "tcp":
        return f"a connection to {listener.name}"
    host = f" of {request.host}" if "host" in request.model_fields_set else ""
    return f"{request.method} {request.path}{host}"


def story(result: Result) -> str:
    """What came of a test, in a line: its name, the request, the route, the pool, and how it ended."""
    trial, found = result.trial, result.found
    parts = [f"{trial.name}: {result.asked}" if trial.name else result.asked]
    if found.route is not None:
        parts.append(f"route {found.route}")
    if found.pool is not None:
        parts.append(f"pool {found.pool}")
    return ", ".join([*parts, found.said])
