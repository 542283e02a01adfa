"""The JSON of `GET /api/v1/status`: what runs, where, and why a server is not used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from lbproxy.domain.names import Name
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.reuse import NO_LIMIT
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Breaker, Health
from lbproxy.telemetry.slots import UNRESOLVED

Json = dict[str, object]
SHOWN = 5  # servers of a pool that a reason of /readyz names
SHOWN_POOLS = 5


@dataclass(frozen=True, slots=True)
class ListenerStatus:
    """One listener: its name, mode, the addresses it is bound to (real ports) and its open client connections."""

    name: str
    mode: str
    bind: tuple[str, ...]
    connections: int


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Requests that wait for a server of a pool, and how many may; size None: there is no queue.

    oldest_s: how long the oldest has waited. timeout_s: how long one may. is_newest_first: the order of the moment.
    classes: how many of each wait. keys: how many do that have turns; None: turns do not go by keys.
    """

    depth: int = 0
    size: int | None = None
    oldest_s: float | None = None
    timeout_s: float | None = None
    is_newest_first: bool = False
    classes: tuple[tuple[str, int], ...] = ()
    keys: int | None = None

    @classmethod
    def of(cls, queue: WaitQueue | None, now: float) -> QueueStatus:
        """The queue of a pool, None if it has none."""
        if queue is None:
            return cls()
        return cls(
            len(queue),
            queue.size,
            queue.oldest_wait_s(now),
            queue.timeout_s,
            queue.is_newest_first,
            tuple(queue.by_class()),
            queue.n_keys(),
        )


@dataclass(slots=True)
class StatusSource:
    """What a status is made from. now is on the clock of `Server.changed_at` (monotonic seconds).

    origin: where a server and its values come from (control/live.py); None: one without an address.
    kind: of a pool, by name, and the values in force of the keys that it sets. discovery: the
    sources of a pool's servers (control/discovery/). state_file: None: there is none. workers: a row for each process
    that serves, where there are several. splits: of routes (control/splits.py). rate_limits: see limit_status.py.
    protocol: what the servers of a pool are spoken to in. sticky: its cookie, None for none.
    connections: to servers, as `upstream_connections` has them.
    """

    version: str
    started_at: float
    pools: Mapping[str, Pool]
    strategies: Mapping[str, str]
    listeners: Callable[[], Sequence[ListenerStatus]] = tuple
    queue: Callable[[str], QueueStatus] = lambda pool: QueueStatus()
    origin: Callable[[Server | None, float], Json] = lambda server, now: {}
    kind: Callable[[str], tuple[str | None, Mapping[str, str]]] = lambda pool: (None, {})
    discovery: Callable[[str], Sequence[Json]] = lambda pool: ()
    state_file: Callable[[], Json | None] = lambda: None
    workers: Callable[[], Sequence[Json]] = tuple
    splits: Callable[[], Sequence[Json]] = lambda: ()
    rate_limits: Callable[[], Sequence[Json]] = tuple
    protocol: Callable[[str], str] = lambda pool: "h1"
    connections: Callable[[], Iterable[tuple[tuple[str, ...], float]]] = tuple
    sticky: Callable[[str], str | None] = lambda pool: None

    def build(self, state: str, not_ready: str | None, now: float) -> Json:
        """state: starting, running or draining. not_ready: the reason, None if /readyz says 200."""
        return {
            "version": self.version,
            "uptime": round(now - self.started_at, 3),
            "state": state,
            "ready": not_ready is None,
            "reason": not_ready,
            "state_file": self.state_file(),
            "workers": list(self.workers()),
            "listeners": [
                {"name": item.name, "mode": item.mode, "bind": list(item.bind), "connections": item.connections}
                for item in self.listeners()
            ],
            "splits": list(self.splits()),
            "rate_limits": list(self.rate_limits()),
            "pools": self._pools(now),
        }

    def _pools(self, now: float) -> list[Json]:
        is_shared = any(self.protocol(name) != "h1" for name in self.pools)
        known = dict(self.connections()) if is_shared else {}
        return [self._pool(name, pool, now, known) for name, pool in self.pools.items()]

    def _connections(self, pool: str, server: str, known: Mapping[tuple[str, ...], float]) -> Json | None:
        """Where connections are shared by requests; else `inflight` says it."""
        if self.protocol(pool) == "h1":
            return None
        return {state: int(known.get((pool, server, state), 0)) for state in ("active", "idle")}

    def _pool(self, name: str, pool: Pool, now: float, known: Mapping[tuple[str, ...], float]) -> Json:
        queue = self.queue(name)
        eligible = pool.eligible()  # also settles is_failing_open
        used = frozenset(eligible)
        is_ready = bool(eligible) and pool.is_proven
        kind, settings = self.kind(name)
        return {
            "name": name,
            "kind": kind,
            "kind_settings": dict(settings),
            "strategy": self.strategies.get(name, ""),
            "protocol": self.protocol(name),
            "sticky": self.sticky(name),
            "usable": len(eligible),
            "standby": sum(server.is_usable and server not in used for server in pool.servers),
            "leaving": pool.is_leaving,
            "ready": is_ready,
            "reason": None if is_ready else _problem(pool),
            "failing_open": pool.is_failing_open,
            "ejected": sum(server.breaker is not Breaker.CLOSED for server in pool.servers),
            "max_ejected": pool.most_ejected,
            "inflight": sum(server.inflight for server in pool.servers),
            "queue": {
                "depth": queue.depth,
                "size": queue.size,
                "oldest": None if queue.oldest_s is None else round(queue.oldest_s, 3),
                "timeout": queue.timeout_s,
                "newest_first": queue.is_newest_first,
                "classes": dict(queue.classes),
                "keys": queue.keys,
            },
            "names": [
                {
                    "host": item.host,
                    "addresses": item.n_addresses,
                    "why": item.why,
                    "since": round(now - item.changed_at, 3),
                }
                for item in pool.names
            ],
            "discovery": list(self.discovery(name)),
            "servers": [
                {
                    **server_status(pool, server, now, used),
                    "connections": self._connections(name, server.name, known),
                    **self.origin(server, now),
                }
                for server in pool.servers
            ]
            + [
                {
                    **unresolved_status(item, server, now),
                    "connections": self._connections(name, server, known),
                    **self.origin(None, now),
                }
                for item in pool.names
                if item.is_unresolved
                for server in item.servers
            ],
        }


def server_status(pool: Pool, server: Server, now: float, eligible: Collection[Server]) -> Json:
    """One server. latency is the peak average in seconds as of the last answer, latency_age how many seconds ago that
    was; since the seconds in the present state.

    used: it may get a request now, by its own state or because the pool fails open. was_up: a check has found it well.
    keep_sticky: it is drained, but keeps the clients that stick to it.
    cut_in: after how many seconds of maintenance what is in flight is cut.
    penalty: for how many seconds it is used last, as it has failed. quarantined: slots that are used last, as their
    requests were given up. slower: it is used last, as it takes longer than the others. ramp: its share in slow start.
    idle_timeout: after how many seconds the server closes an idle connection, as it announces and as was learned.
    requests_per_connection: how many it answers on one before it closes it without a word, None if that is not known.

    eligible: of the pool, as a set.
    """
    idle, penalty_s, learned_s = server.idle_timeout, server.penalty_s(now), server.idle_timeout.learned_s
    weight, ramped = server.weight, server.effective_weight
    return {
        "name": server.name,
        "address": str(server.address),
        "admin": server.admin.value,
        "health": server.health.value,
        "state": server.shown,
        "why": pool.why(server, now),
        "since": round(now - server.changed_at, 3) if server.changed_at else None,
        "weight": weight,
        "inflight": server.inflight,
        "max_inflight": server.max_inflight or None,
        "requests": server.requests,
        "errors": server.errors,
        "latency": round(server.latency_s, 6),
        "latency_age": round(max(0.0, now - server.latency_at), 3) if server.latency_s else None,
        "used": server in eligible,
        "was_up": server.was_up,
        "backup": server.backup,
        "zone": server.zone or None,
        "far": server.far,
        "breaker": server.breaker.value,
        "keep_sticky": server.keep_sticky,
        "cut_in": round(max(0.0, server.cut_at - now), 3) if server.cut_at < inf else None,
        "penalty": (round(penalty_s, 3) or None) if penalty_s else None,
        "quarantined": server.n_quarantined,
        "slower": pool.is_slower(server),
        "ramp": round(ramped / weight, 3) if ramped != weight else None,
        "idle_timeout": {
            "announced": idle.announced_s if idle.announced_s >= 0.0 else None,
            "learned": (round(learned_s, 3) or None) if learned_s else None,
        },
        "requests_per_connection": server.reuse.limit if server.reuse.limit != NO_LIMIT else None,
    }


def unresolved_status(name: Name, server: str, now: float) -> Json:
    """The row of a configured server whose name has no address."""
    return {
        "name": server,
        "address": server,
        "admin": Admin.READY.value,
        "health": Health.UNKNOWN.value,
        "state": UNRESOLVED,
        "why": f"{name.host}: {name.why}",
        "since": round(now - name.changed_at, 3),
        "weight": None,
        "inflight": 0,
        "max_inflight": None,
        "requests": 0,
        "errors": 0,
        "latency": 0.0,
        "latency_age": None,
        "used": False,
        "was_up": False,
        "backup": False,
        "zone": None,
        "far": False,
        "breaker": Breaker.CLOSED.value,
        "keep_sticky": False,
        "cut_in": None,
        "penalty": None,
        "quarantined": 0,
        "slower": False,
        "ramp": None,
        "idle_timeout": {"announced": None, "learned": None},
        "requests_per_connection": None,
    }


def not_ready_reason(
    pools: Iterable[Pool], rule: str, lacks: Callable[[str], Sequence[str]] = lambda pool: ()
) -> str | None:
    """Why /readyz must say 503, or None.

    A pool is ready when a server may be used that has passed a check; one without checks, when a server may be used at
    all, since only traffic would tell more. Fail-open counts: it uses servers that were up. rule "any": one ready pool
    is enough; "all": every pool has to be. A pool that goes does not count, as no new request comes to it. lacks:
    sources that bring a pool no server, and why.
    """
    waiting: list[Pool] = []
    total = 0
    for pool in pools:
        if pool.is_leaving:
            continue
        total += 1
        if not pool.eligible() or not pool.is_proven:
            waiting.append(pool)
    if not waiting or (rule == "any" and len(waiting) < total):
        return None
    told = [_why_not_ready(pool, lacks(pool.name)) for pool in waiting[:SHOWN_POOLS]]
    if len(waiting) > SHOWN_POOLS:
        told.append(f"and {len(waiting) - SHOWN_POOLS} more pools")
    return "; ".join(told)


def _problem(pool: Pool) -> str:
    return "waits for a server to pass its first check" if pool.eligible() else "has no usable server"


def _why_not_ready(pool: Pool, lacks: Sequence[str]) -> str:
    problem = _problem(pool)
    unresolved = [name for name in pool.names if name.is_unresolved]
    items = [*lacks]
    items += [f"{server} unresolved ({name.host}: {name.why})" for name in unresolved for server in name.servers]
    for server in pool.servers:
        why = server.why or ("not checked yet" if server.health is Health.UNKNOWN else "")
        items.append(f"{server.name} {server.shown}{f' ({why})' if why else ''}")
    shown = ", ".join(items[:SHOWN]) or "no address is known"
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return f"pool {pool.name} {problem}: {shown}{more}"
