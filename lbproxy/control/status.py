"""The JSON of `GET /api/v1/status`: what runs, where, and why a server is not used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lbproxy.domain.pool import Pool
from lbproxy.domain.reuse import NO_LIMIT
from lbproxy.domain.server import Server

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class ListenerStatus:
    """One listener: its name, mode, the addresses it is bound to (real ports) and its open client connections."""

    name: str
    mode: str
    bind: tuple[str, ...]
    connections: int


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Requests that wait for a server of a pool, and how many may; size None: there is no queue."""

    depth: int = 0
    size: int | None = None


@dataclass(slots=True)
class StatusSource:
    """What a status is made from. now is on the clock of `Server.changed_at` (monotonic seconds)."""

    version: str
    started_at: float
    pools: Mapping[str, Pool]
    strategies: Mapping[str, str]
    listeners: Callable[[], Sequence[ListenerStatus]] = tuple
    queue: Callable[[str], QueueStatus] = lambda pool: QueueStatus()

    def build(self, state: str, not_ready: str | None, now: float) -> Json:
        """state: starting, running or draining. not_ready: the reason, None if /readyz says 200."""
        return {
            "version": self.version,
            "uptime": round(now - self.started_at, 3),
            "state": state,
            "ready": not_ready is None,
            "reason": not_ready,
            "listeners": [
                {"name": item.name, "mode": item.mode, "bind": list(item.bind), "connections": item.connections}
                for item in self.listeners()
            ],
            "pools": [self._pool(name, pool, now) for name, pool in self.pools.items()],
        }

    def _pool(self, name: str, pool: Pool, now: float) -> Json:
        queue = self.queue(name)
        eligible = pool.eligible()  # also settles is_failing_open
        return {
            "name": name,
            "strategy": self.strategies.get(name, ""),
            "usable": len(eligible),
            "failing_open": pool.is_failing_open,
            "inflight": sum(server.inflight for server in pool.servers),
            "queue": {"depth": queue.depth, "size": queue.size},
            "servers": [server_status(pool, server, now) for server in pool.servers],
        }


def server_status(pool: Pool, server: Server, now: float) -> Json:
    """One server. latency is the decayed peak average in seconds, since the seconds in the present state.

    idle_timeout: after how many seconds the server closes an idle connection, as it announces and as was learned.
    requests_per_connection: how many it answers on one before it closes it without a word, None if that is not known.
    """
    return {
        "name": server.name,
        "address": str(server.address),
        "admin": server.admin.value,
        "health": server.health.value,
        "state": server.shown,
        "why": pool.why(server, now),
        "since": round(now - server.changed_at, 3) if server.changed_at else None,
        "weight": server.weight,
        "inflight": server.inflight,
        "max_inflight": server.max_inflight or None,
        "requests": server.requests,
        "errors": server.errors,
        "latency": round(server.latency(now), 6),
        "idle_timeout": {
            "announced": server.idle_timeout.announced_s if server.idle_timeout.announced_s >= 0.0 else None,
            "learned": round(server.idle_timeout.learned_s, 3) or None,
        },
        "requests_per_connection": server.reuse.limit if server.reuse.limit != NO_LIMIT else None,
    }


def not_ready_reason(pools: Iterable[Pool], rule: str) -> str | None:
    """Why /readyz must say 503, or None.

    rule "any": ready while at least one pool can take requests; "all": every pool has to. Fail-open counts as able.
    """
    unusable: list[Pool] = []
    total = 0
    for pool in pools:
        total += 1
        if not pool.eligible():
            unusable.append(pool)
    if not unusable or (rule == "any" and len(unusable) < total):
        return None
    return "; ".join(_why_unusable(pool) for pool in unusable)


def _why_unusable(pool: Pool) -> str:
    if not pool.servers:
        return f"pool {pool.name} has no usable server: no address is known"
    shown = [f"{server.name} {server.shown}{f' ({server.why})' if server.why else ''}" for server in pool.servers[:5]]
    more = len(pool.servers) - len(shown)
    return f"pool {pool.name} has no usable server: {', '.join(shown)}{f' and {more} more' if more else ''}"
