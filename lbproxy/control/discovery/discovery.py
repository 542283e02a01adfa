"""Keeps the members of pools in step with their sources: names, `servers_file`, SRV records of DNS, platforms.

Each source of a pool is watched by a task of its own. Its first answer counts at once, and so does one that takes away
who is on his way out; others when nothing new has come for QUIET_S (but not longer than MOST_S), so that a burst of
changes is one. A source that cannot look changes nothing. News are logged: the first failure of a kind, and the end of
it.

All of this can be called while requests run: a pool can be added, dropped, and given other sources. What remains with
other sources keeps all that is known of it, and old sources let go only when the new ones have been heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lbproxy.address import Address
from lbproxy.config.aws_model import Aws
from lbproxy.config.kubernetes_model import Kubernetes
from lbproxy.config.model import Dns, ServerSpec
from lbproxy.config.model import Pool as PoolConfig
from lbproxy.control.discovery.aws.source import AwsSource
from lbproxy.control.discovery.dns import NameSource, Resolve, ThreadResolver
from lbproxy.control.discovery.kubernetes.source import KubernetesSource
from lbproxy.control.discovery.roster import Keeper, Member, Roster, Share
from lbproxy.control.discovery.servers_file import ServersFile
from lbproxy.control.discovery.source import MAX_SERVERS, Answer, Emit, Found, Pause, Source, Trouble, pause
from lbproxy.control.discovery.srv import SrvResolver, SrvSource
from lbproxy.control.discovery.srv_resolver import DnsPython
from lbproxy.domain.names import Name
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.tasks import Tasks
from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import PROCESS, Row

log = logging.getLogger("lbproxy.control.discovery")

QUIET_S = 0.2
MOST_S = 2.0
START_S = 2.0  # that a start, or old sources, wait for the first answers of new ones
DRAIN_POLL_S = 0.5
SPARE_POLL_S = 0.1
AGAIN_S = 5.0  # after the crash of a source
GOLDEN = 0.618034  # multiples of it, less their whole part, are spread evenly however many there are
_FAILURES = PROCESS.column("dns_failures_total")

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where the servers of a pool come from.

    max_inflight: of servers without their own, 0 for none. servers_file: as the config has it, relative to base_dir.
    """

    specs: tuple[ServerSpec, ...] = ()
    dns: Dns = field(default_factory=Dns)
    is_checked: bool = True
    max_inflight: int = 0
    servers_file: str | None = None
    base_dir: str = "."
    aws: Aws | None = None
    kubernetes: Kubernetes | None = None

    @property
    def has_sources(self) -> bool:
        """May servers come later?"""
        others = (self.servers_file, self.dns.srv, self.aws, self.kubernetes)
        return bool(self.specs) or any(item is not None for item in others)

    @classmethod
    def of(cls, pool: PoolConfig, base_dir: str | Path = ".") -> Wanted:
        """As the config has it, but for servers that stand there by their address (control/file_servers.py).

        base_dir: where relative paths begin.
        """
        is_checked, limit = pool.health_check is not None, pool.max_inflight or 0
        names = tuple(spec for spec in pool.servers if not spec.address.is_literal)
        platform = pool.discovery
        aws, kubernetes = (None, None) if platform is None else (platform.aws, platform.kubernetes)
        return cls(names, pool.dns, is_checked, limit, pool.servers_file, str(base_dir), aws, kubernetes)


@dataclass(slots=True, eq=False)
class _Watched:
    """A source at work. good_at: monotonic seconds of the last good answer, None before; good_time: the wall clock's.

    why: what was wrong with the last look, "" if nothing. offered: an answer that is not in force yet, since offered_at
    and until due_at.
    """

    share: Share
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    good_at: float | None = None
    good_time: float = 0.0
    n_errors: int = 0
    why: str = ""
    last: Answer | None = None
    offered: dict[str, Found] | None = None
    offered_at: float = 0.0
    due_at: float = 0.0
    is_retired: bool = False

    @property
    def source(self) -> Source:
        return self.share.source


@dataclass(slots=True, eq=False)
class _PoolWatch:
    """watched: by what tells the sources of a pool apart."""

    pool: Pool
    wanted: Wanted
    roster: Roster
    watched: dict[tuple[str, str], _Watched] = field(default_factory=dict)
    settling: asyncio.Task[None] | None = None
    retiring: asyncio.Task[None] | None = None
    draining: asyncio.Task[None] | None = None

    def shares(self) -> Iterator[Share]:
        yield from (item.share for item in self.watched.values())


class Discovery:
    """row: the PROCESS row. clock: monotonic seconds; wall: those since 1970. sleep, pause: how tasks wait.

    resolve: looks names up, off the loop. make_file: the source of a servers_file. make_resolver: who is asked for SRV
    records. make_aws: the source that asks AWS, which wants to know whether an IP address is a server's.
    make_kubernetes: the source of a service.
    """

    def __init__(
        self,
        keeper: Keeper,
        tasks: Tasks,
        row: Row,
        clock: Callable[[], float],
        *,
        resolve: Resolve | None = None,
        wall: Callable[[], float] = time.time,
        sleep: Sleep = asyncio.sleep,
        pause: Pause = pause,
        make_file: Callable[[str, str, Callable[[], float]], Source] = ServersFile,
        make_resolver: Callable[[Sequence[Address]], SrvResolver] = DnsPython,
        make_aws: Callable[[Aws, Callable[[], float], Callable[[str], bool]], Source] = AwsSource,
        make_kubernetes: Callable[[Kubernetes, str, Callable[[], float]], Source] = KubernetesSource,
    ) -> None:
        self._make_file = make_file
        self._make_kubernetes = make_kubernetes
        self._make_resolver = make_resolver
        self._make_aws = make_aws
        self._keeper = keeper
        self._tasks = tasks
        self._row = row
        self._clock = clock
        self.resolve = resolve if resolve is not None else ThreadResolver()
        self._wall = wall
        self._sleep = sleep
        self._pause = pause
        self._pools: dict[str, _PoolWatch] = {}
        self._members: dict[Server, Member] = {}
        self._is_started = False
        self._n_names = 0
        self._log = ThrottledLog(log, clock=clock)

    # --- pools ------------------------------------------------------------------------------------------------------

    def add_pool(self, pool: Pool, wanted: Wanted) -> None:
        """Take care of a pool. Servers by address that it has already stay what they are; the others are made."""
        roster = Roster(
            pool,
            self._keeper,
            self._clock,
            self._members,
            is_checked=wanted.is_checked,
            limit=wanted.max_inflight,
        )
        watch = self._pools[pool.name] = _PoolWatch(pool, wanted, roster)
        for key, source in self._sources(watch, wanted).items():
            self._watch(watch, key, source)

    async def start(self) -> None:
        """Look everywhere once, then go on doing so. What has no answer within START_S gets it later."""
        self._is_started = True
        items = [item for watch in self._pools.values() for item in watch.watched.values()]
        for watch in self._pools.values():
            for item in watch.watched.values():
                self._spawn(watch, item)
        await _all_heard(items)

    def change_pool(self, pool: Pool, wanted: Wanted) -> None:
        """Other sources, or other settings of the same ones. Returns at once.

        Servers that come with the config join at once. Servers that the old sources had and the new ones have not
        leave when the new ones have been heard, within START_S.
        """
        watch = self._pools[pool.name]
        before, watch.wanted = watch.wanted, wanted
        watch.roster.is_checked = wanted.is_checked
        if watch.roster.limit != wanted.max_inflight:
            watch.roster.limit = wanted.max_inflight
            watch.roster.settle_all()
        sources = self._sources(watch, wanted)
        fresh: list[_Watched] = []
        for key, source in sources.items():
            item = watch.watched.get(key)
            if item is not None:
                was_retired, item.is_retired = item.is_retired, False
                if not was_retired and _settings(before, key) == _settings(wanted, key):
                    continue
            fresh.append(self._watch(watch, key, source, joins_up=not pool.servers))
        for key, item in watch.watched.items():
            if key not in sources:
                item.is_retired, item.offered = True, None
                if item.task is not None:
                    item.task.cancel()
        if watch.retiring is not None:
            watch.retiring.cancel()
        watch.retiring = self._tasks.spawn(self._retire(watch, fresh), f"discovery:{pool.name}:retire")

    def drop_pool(self, pool: Pool) -> None:
        """Take care of a pool no longer. Its servers stay as they are, with who takes the pool apart."""
        watch = self._pools.pop(pool.name, None)
        if watch is None:
            return
        tasks = [watch.settling, watch.retiring, watch.draining, *(item.task for item in watch.watched.values())]
        for task in tasks:
            if task is not None:
                task.cancel()
        watch.roster.forget()

    def _sources(self, watch: _PoolWatch, wanted: Wanted) -> dict[tuple[str, str], Source]:
        """A new source for each that the pool is to have."""
        made: dict[tuple[str, str], Source] = {}
        hosts = dict.fromkeys(spec.address.host for spec in wanted.specs if not spec.address.is_literal)
        for host in hosts:
            known = next((name for name in watch.pool.names if name.host == host), None)
            if known is None:
                known = Name(host, self._clock())
                watch.pool.names.append(known)
            self._n_names += 1
            made["dns", host] = NameSource(
                known,
                [spec for spec in wanted.specs if spec.address.host == host],
                wanted.dns.interval,
                self._n_names * GOLDEN % 1.0,
                self.resolve,
                self._clock,
                self._count_failure,
                self._pause,
            )
        if wanted.servers_file is not None:
            path = str(Path(wanted.base_dir) / wanted.servers_file)
            made["servers_file", ""] = self._make_file(wanted.servers_file, path, self._clock)
        if wanted.dns.srv is not None:
            resolver = self._make_resolver(wanted.dns.servers)
            made["srv", ""] = SrvSource(
                wanted.dns.srv, wanted.dns.interval, wanted.dns.hold, resolver, self._clock, self._pause
            )
        if wanted.aws is not None:
            made["aws", ""] = self._make_aws(wanted.aws, self._clock, self._is_member)
        if wanted.kubernetes is not None:
            made["kubernetes", ""] = self._make_kubernetes(wanted.kubernetes, wanted.base_dir, self._clock)
        return made

    def _is_member(self, ip: str) -> bool:
        """Has any pool a server at this address?"""
        return any(server.address.host == ip for watch in self._pools.values() for server in watch.pool.servers)

    def _watch(self, watch: _PoolWatch, key: tuple[str, str], source: Source, *, joins_up: bool = True) -> _Watched:
        """Begin with a source, or go on with another one in its place: what the old one had stays until it is heard."""
        item = watch.watched.get(key)
        if item is None:
            item = watch.watched[key] = _Watched(Share(source, joins_up))
        else:
            if item.task is not None:
                item.task.cancel()
            source.succeed(item.source)
            item.share.source, item.heard, item.offered, item.last = source, asyncio.Event(), None, None
        if self._is_started:
            self._spawn(watch, item)
        return item

    def _spawn(self, watch: _PoolWatch, item: _Watched, after_s: float = 0.0) -> None:
        """Watch a source, and go on doing so should it crash."""
        source = item.source

        def is_over() -> bool:
            return item.share.source is not source or item.is_retired

        def emit(answer: Answer) -> None:
            if not is_over():
                self._heard(watch, item, answer)

        def ended(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None and not is_over():
                self._heard(watch, item, Trouble(f"a defect of lbproxy, of which the log has more: {error!r}"))
                self._spawn(watch, item, AGAIN_S)

        item.task = self._tasks.spawn(self._run(source, emit, after_s), f"discovery:{watch.pool.name}/{source.name}")
        item.task.add_done_callback(ended)

    async def _run(self, source: Source, emit: Emit, after_s: float) -> None:
        if after_s:
            await self._sleep(after_s)
        await source.watch(emit)

    async def _retire(self, watch: _PoolWatch, fresh: Sequence[_Watched]) -> None:
        """Let go of what the pool is no longer to have, when what it has instead is known."""
        await _all_heard(fresh)
        for key, item in list(watch.watched.items()):
            if item.is_retired:
                watch.pool.names[:] = [name for name in watch.pool.names if key != ("dns", name.host)]
                await self._apply_all(watch, item.share, {})
                del watch.watched[key]  # not before: another change may end this one while it waits

    async def _apply_all(self, watch: _PoolWatch, share: Share, wanted: Mapping[str, Found]) -> None:
        while not watch.roster.apply(share, wanted):
            await self._sleep(SPARE_POLL_S)
        self._drain_soon(watch)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _heard(self, watch: _PoolWatch, item: _Watched, answer: Answer) -> None:
        now, source = self._clock(), item.source
        if not isinstance(answer, Trouble) and len(answer) > MAX_SERVERS:
            answer = Trouble(
                f"it names {len(answer)} servers, and {MAX_SERVERS} are the most that a pool takes from it"
            )
        if isinstance(answer, Trouble):
            kept = "the last good answer stays in use" if item.share.has_answered else "it has no server yet"
            self._failed(watch, item, answer.why, kept)
            item.heard.set()
            return
        item.good_at, item.good_time = now, self._wall()
        if answer is not item.last:
            item.last = answer
            self._offer(watch, item, _by_address(answer), now)
        if source.lacking:
            kept = "what else it has is in use" if answer else "it has no server any more"
            self._failed(watch, item, source.lacking, kept)
        elif item.why:
            item.why = ""
            log.info("pool %s: %s", watch.pool.name, source.recovered(len(answer)))
        item.heard.set()

    def _failed(self, watch: _PoolWatch, item: _Watched, why: str, kept: str) -> None:
        """Logged when it is news: what stays wrong must not fill the log."""
        item.n_errors += 1
        if why == item.why:
            return
        item.why = why
        cause = f"{watch.pool.name}/{item.source.name}"
        self._log.warning(cause, "pool %s: %s; %s", watch.pool.name, item.source.failed(why), kept)

    def _offer(self, watch: _PoolWatch, item: _Watched, found: dict[str, Found], now: float) -> None:
        """An answer that is good, and may be another one than that in force."""
        if item.offered is None and found == item.share.found and item.share.has_answered:
            return
        if found == item.offered:
            return
        is_first = not item.heard.is_set() or not item.share.has_answered  # nobody waits longer than he must
        if is_first or not item.source.going.isdisjoint(item.share.found):
            item.offered = None
            if watch.roster.apply(item.share, found):
                self._drain_soon(watch)
                return
        if item.offered is None:
            item.offered_at = now
        item.offered = found
        item.due_at = min(now + QUIET_S, item.offered_at + MOST_S)
        if watch.settling is None or watch.settling.done():
            watch.settling = self._tasks.spawn(self._settle(watch), f"discovery:{watch.pool.name}:settle")

    async def _settle(self, watch: _PoolWatch) -> None:
        while waiting := [item for item in watch.watched.values() if item.offered is not None]:
            next_s = min(item.due_at for item in waiting) - self._clock()
            if next_s > 0:
                await self._sleep(next_s)
            now = self._clock()
            for item in waiting:
                if item.offered is None or item.due_at > now:
                    continue
                if watch.roster.apply(item.share, item.offered):
                    item.offered = None
                else:
                    item.due_at = now + SPARE_POLL_S
            self._drain_soon(watch)

    def _drain_soon(self, watch: _PoolWatch) -> None:
        if watch.roster.has_leaving and (watch.draining is None or watch.draining.done()):
            watch.draining = self._tasks.spawn(self._drain(watch), f"discovery:{watch.pool.name}:drain")

    async def _drain(self, watch: _PoolWatch) -> None:
        while watch.roster.has_leaving:
            await self._sleep(DRAIN_POLL_S)
            watch.roster.remove_drained()

    def _count_failure(self) -> None:
        self._row[_FAILURES] += 1

    # --- what others tell -------------------------------------------------------------------------------------------

    def kick(self, pool: Pool, server: Server) -> None:
        """A connect to this server failed: whatever it comes from is to look soon."""
        watch = self._pools.get(pool.name)
        for item in watch.watched.values() if watch is not None else ():
            if server.key in item.share.found:
                item.source.wake()

    def left(self, pool: Pool, server: Server) -> None:
        """A server is no member any more."""
        watch = self._pools.get(pool.name)
        if watch is not None:
            watch.roster.left(server, watch.shares())
        for other in self._pools.values():
            for item in other.watched.values():
                item.source.left(server.address.host)

    # --- what is known ----------------------------------------------------------------------------------------------

    def source_of(self, server: Server) -> Source | None:
        """The source that says what a server is, or had it last; None for one that is no source's."""
        member = self._members.get(server)
        return None if member is None else member.last

    def keeper_of(self, server: Server) -> Source | None:
        """A source that would bring the server back if it was removed."""
        member = self._members.get(server)
        return member.holders[0].source if member is not None and member.holders else None

    def is_leaving(self, server: Server) -> bool:
        """Has every source lost it, so that it drains and goes?"""
        member = self._members.get(server)
        return member is not None and member.wanted is not None

    def told(self, pool: str) -> list[dict[str, object]]:
        """For the status: each source, how many servers it has, the age of its last good answer, what is wrong."""
        watch = self._pools.get(pool)
        return [
            {
                "source": item.source.name,
                "servers": len(item.share.found),
                "age": None if item.good_at is None else round(self._clock() - item.good_at, 3),
                "error": item.why or None,
                "says": dict(item.source.says),
            }
            for item in (watch.watched.values() if watch is not None else ())
        ]

    def lacks(self, pool: str) -> list[str]:
        """Why a pool may have no server, for /readyz: sources that bring none. Names tell that themselves."""
        watch = self._pools.get(pool)
        found = [item for item in (watch.watched.values() if watch is not None else ()) if not item.share.found]
        return [
            f"{item.source.title}: {item.why or ('has no server' if item.share.has_answered else 'no answer yet')}"
            for item in found
            if not isinstance(item.source, NameSource)
        ]

    def last_successes(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_discovery_last_success_timestamp_seconds."""
        for name, watch in self._pools.items():
            yield from (((name, item.source.name), item.good_time) for item in watch.watched.values())

    def errors(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_discovery_errors_total."""
        for name, watch in self._pools.items():
            yield from (((name, item.source.name), item.n_errors) for item in watch.watched.values())


def _by_address(answer: Sequence[Found]) -> dict[str, Found]:
    """Of two with one address the first counts."""
    found: dict[str, Found] = {}
    for item in answer:
        found.setdefault(str(item.address), item)
    return found


def _settings(wanted: Wanted, key: tuple[str, str]) -> object:
    """What a source is made from: with other settings it is made anew."""
    kind, host = key
    if kind == "servers_file":
        return wanted.servers_file, wanted.base_dir
    if kind == "srv":
        return wanted.dns
    if kind == "aws":
        return wanted.aws
    if kind == "kubernetes":
        return wanted.kubernetes, wanted.base_dir
    return wanted.dns.interval, [spec for spec in wanted.specs if spec.address.host == host]


async def _all_heard(items: Sequence[_Watched]) -> None:
    with contextlib.suppress(TimeoutError):  # they are heard later
        async with asyncio.timeout(START_S):
            for item in items:
                await item.heard.wait()
