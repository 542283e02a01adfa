"""Servers from DNS: names in `servers` become one server per address, looked up again and again.

The resolver of the C library blocks, at worst for half a minute, so each look-up has a daemon thread; at most
MAX_THREADS exist, a name has one look-up under way at most, and nothing waits for one longer than TIMEOUT_S. A failed
or empty look-up changes nothing: the last good answer stays (reliability E7).

Life of an address: first answer for its name -> joins `unknown` and takes traffic, as at start-up; in a later answer ->
joins `down` until its first pass; no longer in the answer -> `drain`, and leaves when nothing is in flight; back in the
answer before that -> ready again.
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
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Admin, Health, Server
from lbproxy.tasks import Tasks
from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import PROCESS, Row

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
MIN_GAP_S = 1.0  # between two look-ups of a name, whatever asks for them
DRAIN_POLL_S = 0.5
MAX_THREADS = 8
JOINING = "joining"
_FAILURES = PROCESS.column("dns_failures_total")

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Addresses of a host name, as text. Raises OSError."""


class Membership(Protocol):
    """Who makes and drops what belongs to a server (counters, idle connections, checks) along with the pool's entry."""

    def add(self, pool: Pool, server: Server) -> None: ...

    def remove(self, pool: Pool, server: Server) -> None: ...


class ThreadResolver:
    """getaddrinfo in daemon threads, which do not delay the end of the process as executor threads do."""

    def __init__(self, timeout_s: float = TIMEOUT_S, max_threads: int = MAX_THREADS) -> None:
        self._timeout_s = timeout_s
        self._free = max_threads
        self._under_way: dict[str, asyncio.Future[list[str]]] = {}

    async def __call__(self, host: str) -> Sequence[str]:
        """Addresses of `host`. Raises OSError, TimeoutError included."""
        future = self._under_way.get(host)
        if future is None:
            if not self._free:
                raise TimeoutError("all resolver threads are blocked")
            future = self._start(host)
        try:
            # A look-up that is late stays under way, so that a blocked resolver does not collect threads.
            return await asyncio.wait_for(asyncio.shield(future), self._timeout_s)
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._timeout_s:g} s") from None

    def _start(self, host: str) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()
        self._under_way[host] = future
        self._free -= 1

        def finished(addresses: list[str], error: OSError | None) -> None:
            self._free += 1
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


@dataclass(slots=True)
class _Name:
    """One host name of a pool: the specs that use it (a range of ports is several) and the servers made from it."""

    pool: Pool
    host: str
    specs: list[ServerSpec]
    interval_s: float
    is_checked: bool
    servers: dict[tuple[str, str], Server] = field(default_factory=dict)  # by configured address and IP
    leaving: set[Server] = field(default_factory=set)
    has_answer: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)


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
        self._log = ThrottledLog(log, clock=clock)

    def add_pool(self, pool: Pool, specs: Sequence[ServerSpec], interval_s: float, *, is_checked: bool) -> None:
        """Take care of the specs whose address is a name. is_checked: the pool has health checks."""
        for spec in specs:
            if spec.address.is_literal:
                continue
            key = (pool.name, spec.address.host)
            if key not in self._names:
                self._names[key] = _Name(pool, spec.address.host, [], max(interval_s, MIN_GAP_S), is_checked)
            self._names[key].specs.append(spec)

    async def start(self) -> None:
        """Look every name up once (this takes TIMEOUT_S at most, failed look-ups included), then go on doing so."""
        await asyncio.gather(*(self._refresh(name) for name in self._names.values()))
        for name in self._names.values():
            self._tasks.spawn(self._follow(name), f"dns:{name.pool.name}/{name.host}")
            self._tasks.spawn(self._drain(name), f"dns-drain:{name.pool.name}/{name.host}")

    def kick(self, pool: Pool, server: Server) -> None:
        """A connect to this server failed: if it came from a name, look that up soon."""
        for name in self._names.values():
            if name.pool is pool and server in name.servers.values():
                name.wake.set()

    async def _follow(self, name: _Name) -> None:
        while True:
            await asyncio.sleep(MIN_GAP_S)
            with contextlib.suppress(TimeoutError):  # nobody asked for it: the interval is over
                await asyncio.wait_for(name.wake.wait(), name.interval_s - MIN_GAP_S)
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
        self._row[_FAILURES] += 1
        kept = "the last good answer stays in use" if name.has_answer else "it has no server yet"
        cause = f"{name.pool.name}/{name.host}"
        self._log.warning(cause, "pool %s: looking up %s failed: %s; %s", name.pool.name, name.host, why, kept)

    def apply(self, name: _Name, addresses: Sequence[str]) -> None:
        """Bring the members in line with an answer that is not empty."""
        wanted = {(str(spec.address), ip): spec for spec in name.specs for ip in addresses}
        for key, spec in wanted.items():
            server = name.servers.get(key)
            if server is None:
                self._join(name, key, spec)
            elif server in name.leaving:
                name.leaving.discard(server)
                name.pool.set_admin(server, Admin.READY, f"{name.host} has this address again", self._clock())
        for key, server in name.servers.items():
            if key not in wanted and server not in name.leaving:
                name.leaving.add(server)
                log.info("pool %s: server %s leaves: %s lost this address", name.pool.name, server.name, name.host)
                name.pool.set_admin(server, Admin.DRAIN, f"{name.host} no longer has this address", self._clock())
        name.has_answer = True
        self.remove_drained(name)

    def _join(self, name: _Name, key: tuple[str, str], spec: ServerSpec) -> None:
        ip = key[1]
        server = server_at(spec, ip)
        if any(other.key == server.key for other in name.pool.servers):
            return  # identity is the address within the pool: it is configured twice, which one server serves
        if name.has_answer and name.is_checked:
            server.health, server.down_reason, server.why = Health.DOWN, JOINING, "joined; no check has passed yet"
            server.changed_at = self._clock()
        name.servers[key] = server
        log.info("pool %s: server %s joins", name.pool.name, server.name)
        self._membership.add(name.pool, server)

    def remove_drained(self, name: _Name) -> None:
        """Let servers go that have nothing in flight any more."""
        for key, server in list(name.servers.items()):
            if server in name.leaving and server.inflight == 0:
                del name.servers[key]
                name.leaving.discard(server)
                self._membership.remove(name.pool, server)

    async def _drain(self, name: _Name) -> None:
        while True:
            await asyncio.sleep(DRAIN_POLL_S)
            self.remove_drained(name)


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
