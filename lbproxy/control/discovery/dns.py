"""Servers from DNS: names in `servers` become one server per address, looked up again and again.

The resolver of the C library blocks, at worst for half a minute, so each look-up has a daemon thread. MAX_THREADS work
at a time; who comes later waits for a turn. A look-up that is late (TIMEOUT_S) gives its turn to the next and goes on:
there are MAX_LATE of those at most, so that a resolver that hangs neither collects threads nor holds up the names that
it could answer. A name has one look-up under way at most. Rounds begin at different moments of the interval for
different names.

A failed or empty look-up changes nothing: the last good answer stays in use. A name that never had one has no server,
and stands in the pool's `names` with the reason.

Life of an address: first answer for its name -> joins `unknown` and takes traffic, as at start-up; in a later answer ->
joins `down` until its first pass; in no name's answer any more -> `drain`, and leaves when nothing is in flight; back
in an answer before that -> what the operator wanted of it before, as a rule ready. Several names may hold one address:
it is one server, and stays while one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Protocol

from lbproxy.address import Address
from lbproxy.config.model import ServerSpec
from lbproxy.domain.names import NOT_LOOKED_UP, Name
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Health
from lbproxy.tasks import Tasks
from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import PROCESS, Row

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
MIN_GAP_S = 1.0  # between two look-ups of a name, whatever asks for them
DRAIN_POLL_S = 0.5
MAX_THREADS = 8
MAX_LATE = 56
JOINING = "joining"
_FAILURES = PROCESS.column("dns_failures_total")

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Addresses of a host name, as text. Raises OSError."""


class Membership(Protocol):
    """Who makes and drops what belongs to a server (counters, idle connections, checks) along with the pool's entry."""

    def add(self, pool: Pool, server: Server) -> None: ...

    def remove(self, pool: Pool, server: Server) -> None: ...


class ThreadResolver:
    """getaddrinfo in daemon threads, which do not delay the end of the process as executor threads do.

    max_threads look-ups have their turn at once, for timeout_s each; max_late more may be at work beyond their time.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, max_threads: int = MAX_THREADS, max_late: int = MAX_LATE) -> None:
        self._timeout_s = timeout_s
        self._most = max_threads + max_late
        self._turns = asyncio.Semaphore(max_threads)
        self._under_way: dict[str, asyncio.Future[list[str]]] = {}

    async def __call__(self, host: str) -> Sequence[str]:
        """Addresses of `host`, after waiting for a turn. Raises OSError, TimeoutError included."""
        future = self._under_way.get(host)
        if future is not None:
            return await self._wait(future)
        async with self._turns:
            future = self._under_way.get(host)
            if future is None:
                if len(self._under_way) >= self._most:
                    raise TimeoutError(f"{len(self._under_way)} look-ups of other names hang")
                future = self._start(host)
            return await self._wait(future)

    async def _wait(self, future: asyncio.Future[list[str]]) -> list[str]:
        try:
            # A look-up that is late stays under way, so that a blocked resolver does not collect threads.
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(future)
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._timeout_s:g} s") from None

    def _start(self, host: str) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()
        self._under_way[host] = future

        def finished(addresses: list[str], error: OSError | None) -> None:
            del self._under_way[host]
            if future.cancelled():
                return
            if error is None:
                future.set_result(addresses)
            else:
                future.set_exception(error)
                future.exception()  # seen: nobody may be waiting any more

        def look_up() -> None:
            addresses: list[str] = []
            error: OSError | None = None
            try:
                addresses = blocking_look_up(host)
            except OSError as caught:
                error = caught
            except UnicodeError:
                error = OSError(f"{host!r} is not a valid host name")
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody wants the answer
                loop.call_soon_threadsafe(finished, addresses, error)

        threading.Thread(target=look_up, name=f"resolve:{host}", daemon=True).start()
        return future


def blocking_look_up(host: str) -> list[str]:
    """Addresses of a name, each once, IPv4 first. Raises OSError.

    `localhost` gives IPv4 only where there is some: servers bound to 127.0.0.1 would each get a dead twin ::1.
    """
    found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    v4 = [text for text in found if ":" not in text]
    if host.lower().rstrip(".") == "localhost" and v4:
        found = set(v4)
    return sorted(found, key=lambda text: (":" in text, int(ip_address(text.partition("%")[0])), text))


@dataclass(slots=True, eq=False)
class _Name:
    """One host name of a pool: the specs that use it (a range of ports is several) and the servers that it gives."""

    pool: Pool
    known: Name
    specs: list[ServerSpec]
    interval_s: float
    is_checked: bool
    servers: dict[tuple[str, str], Server] = field(default_factory=dict)  # by configured address and IP
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def host(self) -> str:
        return self.known.host


class DnsDiscovery:
    """Keeps the members of pools in step with DNS. `row` is the PROCESS row; clock is monotonic seconds."""

    def __init__(
        self, membership: Membership, tasks: Tasks, row: Row, clock: Callable[[], float], resolve: Resolve | None = None
    ) -> None:
        self._membership = membership
        self._tasks = tasks
        self._row = row
        self._clock = clock
        self._resolve = resolve if resolve is not None else ThreadResolver()
        self._names: dict[tuple[str, str], _Name] = {}
        self._holders: dict[Server, dict[tuple[_Name, tuple[str, str]], None]] = {}  # who gives each server, in order
        self._leaving: dict[Server, tuple[Pool, Admin]] = {}  # with what the operator wanted of it
        self._log = ThrottledLog(log, clock=clock)

    def add_pool(self, pool: Pool, specs: Sequence[ServerSpec], interval_s: float, *, is_checked: bool) -> None:
        """Take care of the specs whose address is a name. is_checked: the pool has health checks."""
        for spec in specs:
            if spec.address.is_literal:
                continue
            key = (pool.name, spec.address.host)
            if key not in self._names:
                known = Name(spec.address.host, self._clock())
                pool.names.append(known)
                self._names[key] = _Name(pool, known, [], max(interval_s, MIN_GAP_S), is_checked)
            self._names[key].specs.append(spec)
            self._names[key].known.servers += (spec.name or str(spec.address),)

    def change_pool(self, pool: Pool, specs: Sequence[ServerSpec], interval_s: float, *, is_checked: bool) -> None:
        """The same for another config of a pool that is in use."""

    def drop_pool(self, pool: Pool) -> None:
        """Look no more after the members of a pool that goes; those it has stay."""

    async def start(self) -> None:
        """Look every name up once, then go on doing so. Who has no answer within TIMEOUT_S gets it later."""
        names = list(self._names.values())
        first = [self._tasks.spawn(self._refresh(name), f"dns:{name.pool.name}/{name.host}") for name in names]
        if first:
            await asyncio.wait(first, timeout=TIMEOUT_S)
            self._tasks.spawn(self._drain(), "dns-drain")
        for number, name in enumerate(names, 1):
            first_s = name.interval_s * number / len(names)
            self._tasks.spawn(self._follow(name, first_s), f"dns:{name.pool.name}/{name.host}")

    def kick(self, pool: Pool, server: Server) -> None:
        """A connect to this server failed: if it came from a name, look that up soon."""
        for name in self._names.values():
            if name.pool is pool and server in name.servers.values():
                name.wake.set()

    def host_of(self, server: Server) -> str | None:
        """The name that a server comes from, None if it does not come from DNS."""
        return server.host if server in self._holders else None

    def is_leaving(self, server: Server) -> bool:
        """Has its name lost its address, so that it drains and goes?"""
        return server in self._leaving

    async def _follow(self, name: _Name, first_s: float) -> None:
        """first_s: the time to the first round, which sets this name apart from the others."""
        wait_s = first_s
        while True:
            await asyncio.sleep(MIN_GAP_S)
            with contextlib.suppress(TimeoutError):  # nobody asked for it: the interval is over
                async with asyncio.timeout(max(0.0, wait_s - MIN_GAP_S)):
                    await name.wake.wait()
            wait_s = name.interval_s
            name.wake.clear()
            await self._refresh(name)

    async def _refresh(self, name: _Name) -> None:
        try:
            addresses = await self._resolve(name.host)
        except OSError as error:
            self._failed(name, error.strerror or str(error))
            return
        if not addresses:
            self._failed(name, "the answer holds no address")
            return
        self.apply(name, addresses)

    def _failed(self, name: _Name, why: str) -> None:
        """Logged when it is news: a name that stays wrong must not fill the log."""
        self._row[_FAILURES] += 1
        known = name.known
        if not known.failed(why, self._clock()):
            return
        kept = "it has no server yet" if known.is_unresolved else "the last good answer stays in use"
        cause = f"{name.pool.name}/{name.host}"
        self._log.warning(cause, "pool %s: looking up %s failed: %s; %s", name.pool.name, name.host, why, kept)

    def apply(self, name: _Name, addresses: Sequence[str]) -> None:
        """Bring the members in line with an answer that is not empty."""
        wanted = {(str(spec.address), ip): spec for spec in name.specs for ip in addresses}
        for key, spec in wanted.items():
            if key not in name.servers:
                self._take(name, key, spec)
        for key in [key for key in name.servers if key not in wanted]:
            self._let_go(name, key)
        before = name.known.why
        if name.known.answered(len(addresses), self._clock()) and before and before != NOT_LOOKED_UP:
            log.info("pool %s: %s resolves again, to %d addresses", name.pool.name, name.host, len(addresses))
        self.remove_drained()

    def _take(self, name: _Name, key: tuple[str, str], spec: ServerSpec) -> None:
        """A name has an address that it did not have before."""
        pool = name.pool
        made = server_at(spec, key[1])
        server = next((other for other in pool.servers if other.key == made.key), None)
        if server is not None and server not in self._holders:
            return  # it is configured by its address too, which no answer takes away
        if server is None:
            server = made
            if not name.known.is_unresolved and name.is_checked:
                server.health, server.down_reason, server.why = Health.DOWN, JOINING, "joined; no check has passed yet"
                server.changed_at = self._clock()
            log.info("pool %s: server %s joins", pool.name, server.name)
            self._membership.add(pool, server)
        elif server in self._leaving:
            _, admin = self._leaving.pop(server)
            server.host = name.host
            pool.set_admin(server, admin, f"{name.host} has this address again", self._clock())
        name.servers[key] = server
        self._holders.setdefault(server, {})[name, key] = None

    def _let_go(self, name: _Name, key: tuple[str, str]) -> None:
        """A name lost an address: the server leaves, unless another name has it."""
        pool, server = name.pool, name.servers.pop(key)
        holders = self._holders[server]
        del holders[name, key]
        other = next(iter(holders), None)
        if other is not None:
            server.host = other[0].host  # whose certificate and Host it is from now on
            log.info(
                "pool %s: server %s stays: %s lost this address, %s has it",
                pool.name,
                server.name,
                name.host,
                server.host,
            )
            return
        self._leaving[server] = pool, server.admin
        log.info("pool %s: server %s leaves: %s lost this address", pool.name, server.name, name.host)
        if server.admin is Admin.READY:
            pool.set_admin(server, Admin.DRAIN, f"{name.host} no longer has this address", self._clock())

    def remove_drained(self) -> None:
        """Let servers go that have nothing in flight any more."""
        for server, (pool, _) in list(self._leaving.items()):
            if server.inflight == 0:
                del self._leaving[server], self._holders[server]
                self._membership.remove(pool, server)

    async def _drain(self) -> None:
        while True:
            await asyncio.sleep(DRAIN_POLL_S)
            self.remove_drained()


def server_at(spec: ServerSpec, ip: str) -> Server:
    """The server that a spec with a host name has at one of its addresses; named `host:port/ip`."""
    return Server(
        f"{spec.name or spec.address}/{ip}",
        Address(ip, spec.address.port),
        weight=spec.weight,
        max_inflight=spec.max_inflight or 0,
        backup=spec.backup,
        host=spec.address.host,
    )
