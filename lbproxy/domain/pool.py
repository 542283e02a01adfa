"""A pool: who its members are, who of them may take a request now, and how many they have.

Eligibility is written here and nowhere else. The pool keeps one tuple of eligible servers and rebuilds it when a server
flips or joins, which is rare; a request costs one `strategy.pick` over that tuple. Facts that belong to one request
(this server is full, that one was tried already) are checked on the result, and only then is the tuple filtered and the
strategy asked a second time: two picks at most, no loop to hang in.

Invariants: a lease is released exactly once; `server.inflight` is the number of leases out on it; a removed server
keeps its counters until its last lease is back.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence

from lbproxy.domain.server import REFUSED, Admin, Breaker, Health, Server
from lbproxy.domain.strategies.base import PickContext, Strategy


class Outcome(enum.Enum):
    """How an attempt ended, as far as its server is concerned."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"  # the client left, or lbproxy itself failed: says nothing about the server


class Lease:
    """The right to have one request at a server."""

    __slots__ = ("_is_out", "server", "started_at")

    def __init__(self, server: Server, now: float) -> None:
        self.server = server
        self.started_at = now
        self._is_out = True
        server.inflight += 1

    def release(self, outcome: Outcome, now: float) -> None:
        """Give the slot back and feed the result to the server's records. Raises RuntimeError the second time."""
        if not self._is_out:
            raise RuntimeError(f"the lease on {self.server.name} was released twice")
        self._is_out = False
        server = self.server
        server.inflight -= 1
        server.requests += 1
        if outcome is Outcome.SUCCESS:
            server.progress_at = now
            server.observe_latency(now - self.started_at, now)
        elif outcome is Outcome.FAILURE:
            server.errors += 1


FlipListener = Callable[[Server, str, str], None]


class Pool:
    """The servers behind one name. All times are monotonic seconds given by the caller.

    fail_open: share of usable servers at or below which verdicts of checks are not believed; None = never.
    passive_retry_s: with health checks off, how long a server that refused a connection is left alone; None = checks
    bring it back.
    """

    __slots__ = (
        "_eligible",
        "_fallback",
        "_flip_listeners",
        "_is_dirty",
        "fail_open",
        "is_failing_open",
        "name",
        "passive_retry_s",
        "servers",
        "strategy",
        "strategy_failed",
    )

    def __init__(
        self,
        name: str,
        servers: Iterable[Server],
        strategy: Strategy,
        fallback: Strategy,
        *,
        fail_open: float | None = 0.0,
        passive_retry_s: float | None = None,
        strategy_failed: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self.name = name
        self.servers = list(servers)
        self.strategy = strategy
        self.fail_open = fail_open
        self.passive_retry_s = passive_retry_s
        self.strategy_failed = strategy_failed
        self.is_failing_open = False
        self._fallback = fallback
        self._eligible: tuple[Server, ...] = ()
        self._flip_listeners: list[FlipListener] = []
        self._is_dirty = True
        self._rebuild_strategies()

    # --- members and states -----------------------------------------------------------------------------------------

    def add(self, server: Server) -> None:
        """A server joins; discovery adds it down until its first pass."""
        self.servers.append(server)
        self._rebuild_strategies()

    def remove(self, server: Server) -> None:
        """A server leaves: no new requests; those in flight keep their leases."""
        self.servers.remove(server)
        self._rebuild_strategies()

    def on_flip(self, listener: FlipListener) -> None:
        """Call `listener(server, old, new)` when the shown state of a server changes."""
        self._flip_listeners.append(listener)

    def set_health(self, server: Server, health: Health, reason: str, why: str, now: float) -> bool:
        """Record what is observed. `reason` matters for DOWN only ("refused" or another word). True if it changed."""
        if server.health is health and (health is not Health.DOWN or server.down_reason == reason):
            server.why = why
            return False
        return self._change(server, why, now, health=health, reason=reason)

    def set_admin(self, server: Server, admin: Admin, why: str, now: float) -> bool:
        """Record what the operator wants. True if it changed."""
        if server.admin is admin:
            return False
        return self._change(server, why, now, admin=admin)

    def server_refused(self, server: Server, now: float) -> bool:
        """The kernel of the server said that nobody listens. True if this is news."""
        return self.set_health(server, Health.DOWN, REFUSED, "connection refused under traffic", now)

    def _change(
        self,
        server: Server,
        why: str,
        now: float,
        *,
        health: Health | None = None,
        admin: Admin | None = None,
        reason: str = "",
    ) -> bool:
        old = server.shown
        if health is not None:
            server.health = health
            server.down_reason = reason if health is Health.DOWN else ""
        if admin is not None:
            server.admin = admin
        server.why = why
        server.changed_at = now
        self._is_dirty = True
        new = server.shown
        if new != old:
            for listener in self._flip_listeners:
                listener(server, old, new)
        return True

    def sweep(self, now: float) -> None:
        """Timed changes: without checks, a refused server is given another chance after a while."""
        if self.passive_retry_s is None:
            return
        for server in self.servers:
            if server.health is Health.DOWN and now - server.changed_at >= self.passive_retry_s:
                self.set_health(server, Health.UNKNOWN, "", "trying again; no health checks", now)

    def _rebuild_strategies(self) -> None:
        self._is_dirty = True
        self._fallback.rebuild(self.servers)
        try:
            self.strategy.rebuild(self.servers)
        except Exception as error:  # a plug-in's defect must not fail traffic: counted, and the fallback picks
            self.strategy_failed(error)

    # --- who may take a request -------------------------------------------------------------------------------------

    def eligible(self) -> tuple[Server, ...]:
        """Servers that may take a new request, limits aside. Empty if there is none."""
        if self._is_dirty:
            self._eligible = self._compute_eligible()
            self._is_dirty = False
        return self._eligible

    def _compute_eligible(self) -> tuple[Server, ...]:
        usable = tuple(server for server in self.servers if server.is_usable)
        self.is_failing_open = False
        if self.fail_open is not None and self.servers and len(usable) <= self.fail_open * len(self.servers):
            believed = tuple(
                server
                for server in self.servers
                if server.admin is Admin.READY
                and server.weight > 0
                and server.breaker is Breaker.CLOSED
                and not (server.health is Health.DOWN and server.down_reason == REFUSED)
            )
            if len(believed) > len(usable):
                self.is_failing_open = True
                usable = believed
        return tuple(server for server in usable if not server.backup) or usable

    def acquire(self, ctx: PickContext, tried: Sequence[Server], now: float) -> Lease | None:
        """A lease on the server of the strategy's choice, or None if no server may take the request.

        A server in `tried` is chosen only if there is no other.
        """
        eligible = self._eligible if not self._is_dirty else self.eligible()
        if not eligible:
            return None
        server = eligible[0] if len(eligible) == 1 else self._pick(eligible, ctx, now)
        if server in tried or 0 < server.max_inflight <= server.inflight:
            free = tuple(other for other in eligible if not other.is_full)
            rest = tuple(other for other in free if other not in tried) or free
            if not rest:
                return None
            server = self._pick(rest, ctx, now)
        return Lease(server, now)

    def _pick(self, eligible: tuple[Server, ...], ctx: PickContext, now: float) -> Server:
        try:
            server = self.strategy.pick(eligible, ctx, now)
        except Exception as error:  # a plug-in's defect is counted and never fails a request
            self.strategy_failed(error)
            return self._fallback.pick(eligible, ctx, now)
        if server not in eligible:
            self.strategy_failed(LookupError(f"the strategy returned {server!r}, which is not eligible"))
            return self._fallback.pick(eligible, ctx, now)
        return server

    def __repr__(self) -> str:
        return f"<Pool {self.name} {self.servers}>"
