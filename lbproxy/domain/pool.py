"""A pool: who its members are, who of them may take a request now, how many they have, and who waits.

Eligibility is written here and nowhere else. The pool keeps one tuple of eligible servers and rebuilds it when a server
flips or joins, which is rare; a request costs one `strategy.pick` over that tuple. Facts that belong to one request
(this server is full, that one was tried already) are checked on the result, and only then is the tuple filtered and the
strategy asked a second time: two picks at most, no loop to hang in.

Order of preference for a request: a server that is due to be probed; a free slot of a server that was not tried, under
strategies that go by load first of those that are not measurably slower; a free slot of one that was tried; a
quarantined slot (its last request was given up, and the server may still be at work on it).

Penalties. Under strategies that go by load a slot of a server that has just failed is not free while others are merely
full: domain/holding.py.

Hand-over: whatever frees a slot (a release, a flip, a higher limit, a new member, the sweep) gives it to the head of
the queue in the same call, so nobody waits while a usable server has a free slot (penalties aside), and nobody
overtakes: a request that arrives while others wait finds no slot.

Ejections: the breaker of a server proposes, and the pool agrees if not more than `max_ejected` of its members are then
out (ejected or probing) and somebody else is usable. An ejection ends only by a successful real request, or when the
pool has shrunk and cannot spare the server any more.

Invariants: a lease is released exactly once; `server.inflight` is the number of leases out on it and at most
`server.limit` when a lease is given; a removed server keeps its counters until its last lease is back; callbacks run
when the books are in order, and calls from inside them do not recurse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Final

from lbproxy.domain.breaker import OUTLIER, BreakerPolicy, CircuitBreaker
from lbproxy.domain.forecast import earliest_end_s
from lbproxy.domain.holding import (
    FREE_SLOT,
    NO_SLOT,
    is_worth_a_wait,
    longest_hold_s,
    needed_s,
    slot_among,
    sound_among,
)
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.names import Name
from lbproxy.domain.outliers import Outliers, are_well
from lbproxy.domain.queue import Ticket, WaitQueue
from lbproxy.domain.server import ERRORS_IN_A_ROW, PENALTY_S, REFUSED, Admin, Breaker, Health, Server
from lbproxy.domain.slow_start import SlowStart
from lbproxy.domain.speed import Speeds
from lbproxy.domain.strategies.base import PickContext, Strategy

__all__ = ["FlipListener", "Lease", "Outcome", "Pool", "Refusal"]

HOLD_AFTER_ABORT_S: Final = 1.0  # a client that gave up on a probe: do not send the next client after it at once
FlipListener = Callable[[Server, str, str], None]


class Pool:
    """The servers behind one name. All times are monotonic seconds given by the caller.

    fail_open: share of usable servers at or below which verdicts of checks are not believed, about servers that were up
    once; None = never.
    passive_retry_s: with health checks off, how long a server that refused a connection is left alone; None = checks
    bring it back. breaker None: no ejections. max_ejected: share of the members that may be out at once. queue None:
    who finds no slot is refused. slow_start_s: how long a server that came back or joined is ramped up, 0 = not.
    """

    __slots__ = (
        "_breaker",
        "_eligible",
        "_fallback",
        "_fast",
        "_flip_listeners",
        "_heeds_penalties",
        "_is_dirty",
        "_is_handing_over",
        "_out",
        "_outliers",
        "_probing",
        "_quarantined",
        "_slow_start",
        "_speeds",
        "fail_open",
        "is_failing_open",
        "max_ejected",
        "name",
        "names",
        "passive_retry_s",
        "queue",
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
        breaker: BreakerPolicy | None = None,
        max_ejected: float = 0.5,
        queue: WaitQueue | None = None,
        slow_start_s: float = 0.0,
    ) -> None:
        self.name = name
        self.servers = list(servers)
        self.names: list[Name] = []  # host names that servers come from; discovery keeps them
        self.strategy = strategy
        self.fail_open = fail_open
        self.passive_retry_s = passive_retry_s
        self.strategy_failed = strategy_failed
        self.max_ejected = max_ejected
        self.queue = queue
        self.is_failing_open = False
        self._breaker = breaker
        self._fallback = fallback
        self._eligible: tuple[Server, ...] = ()
        self._fast: tuple[Server, ...] = ()  # the same, but empty when a request must be placed with more care
        self._flip_listeners: list[FlipListener] = []
        self._is_dirty = True
        self._is_handing_over = False
        self._out: list[Server] = []  # ejected or probing, the oldest ejection first
        self._probing: tuple[Server, ...] = ()  # those of them that may be sent a probe, permits aside
        self._quarantined: set[Server] = set()
        self._slow_start = SlowStart(slow_start_s)
        self._heeds_penalties = bool(getattr(strategy, "heeds_penalties", False))
        self._outliers = Outliers(is_hashing=bool(getattr(strategy, "hash_on", "")))
        self._speeds = Speeds() if getattr(strategy, "fills_fast_first", False) else None
        for server in self.servers:
            self._equip(server)
        self._rebuild_strategies()

    # --- members and states -----------------------------------------------------------------------------------------

    def add(self, server: Server, now: float | None = None) -> None:
        """A server joins; discovery adds it down until its first pass. now: who waits need not wait for the sweep."""
        self._equip(server)
        self.servers.append(server)
        self._rebuild_strategies()
        if now is not None:  # at the start of the process nobody is ramped
            self._slow_start.left(server, float("-inf"))
        self._trim_ejections(now if now is not None else server.changed_at)
        if now is not None:
            self._came_back(server, now)
            self.hand_over(now)

    def remove(self, server: Server, now: float | None = None) -> None:
        """A server leaves: no new requests; those in flight keep their leases."""
        self.servers.remove(server)
        if server in self._out:
            self._out.remove(server)
        self._slow_start.forget(server)
        self._rebuild_strategies()
        self._trim_ejections(now if now is not None else server.changed_at)
        if now is not None:
            self.hand_over(now)

    def _equip(self, server: Server) -> None:
        if self._breaker is not None and server.circuit is None:
            server.circuit = CircuitBreaker(self._breaker)
        if server.breaker is not Breaker.CLOSED and server not in self._out:
            self._out.append(server)

    def on_flip(self, listener: FlipListener) -> None:
        """Call `listener(server, old, new)` when the shown state of a server changes."""
        self._flip_listeners.append(listener)

    def set_health(self, server: Server, health: Health, reason: str, why: str, now: float) -> bool:
        """Record what is observed. `reason` matters for DOWN only ("refused" or another word). True if it changed."""
        if server.health is health and (health is not Health.DOWN or server.down_reason == reason):
            server.why = why
            return False
        was_down, old = server.health is Health.DOWN, server.shown
        server.health = health
        server.was_up = server.was_up or health is Health.UP or health is Health.BUSY
        server.down_reason = reason if health is Health.DOWN else ""
        if health is Health.DOWN and not was_down:
            self._slow_start.left(server, now)
        self._changed(server, old, why, now)
        if was_down and health is not Health.DOWN:
            # What failed before was most likely another process: it is not held against this one, and an ejection
            # waits for nothing but its probe.
            server.penalty_until = 0.0
            if server.circuit is not None:
                server.circuit.open_until = min(server.circuit.open_until, now)
            self._came_back(server, now)
        self.hand_over(now)
        return True

    def set_admin(self, server: Server, admin: Admin, why: str, now: float) -> bool:
        """Record what the operator wants. True if it changed."""
        if server.admin is admin:
            return False
        was_in_maintenance, old = server.admin is Admin.MAINT, server.shown
        server.admin = admin
        if admin is Admin.MAINT:
            self._slow_start.left(server, now)
        self._changed(server, old, why, now)
        if was_in_maintenance:
            self._came_back(server, now)
        self.hand_over(now)
        return True

    def set_weight(self, server: Server, weight: int, now: float) -> None:
        """0 drains: no new requests until it is raised again."""
        server.weight = weight
        self._rebuild_strategies()
        self.hand_over(now)

    def set_max_inflight(self, server: Server, max_inflight: int, now: float) -> None:
        """0 = no limit. A lower limit takes nothing back; it holds for new requests."""
        server.max_inflight = max_inflight
        self.hand_over(now)

    def server_refused(self, server: Server, now: float) -> bool:
        """The kernel of the server said that nobody listens. True if this is news."""
        return self.set_health(server, Health.DOWN, REFUSED, "connection refused under traffic", now)

    def is_slower(self, server: Server) -> bool:
        """Is it measurably slower than the others, so that its slots are used last?"""
        return self._speeds is not None and server in self._speeds.slower

    def why(self, server: Server, now: float) -> str:
        """What people are told about the state of a server; "" if there is nothing to say."""
        circuit = server.circuit
        if server.admin is not Admin.READY or circuit is None or circuit.state is Breaker.CLOSED:
            is_unchecked = server.health is Health.UNKNOWN and self.passive_retry_s is None
            return server.why or ("not checked yet" if is_unchecked else "")
        if server.health is Health.DOWN and circuit.state is Breaker.PROBING:
            return server.why
        ago = f"{circuit.state.value} {max(0.0, now - circuit.changed_at):.0f} s ago: {circuit.what}"
        if circuit.state is Breaker.EJECTED:
            return f"{ago}, next probe in {max(0.0, circuit.open_until - now):.0f} s"
        return f"{ago}, {'a probe is out' if circuit.has_probes_out else 'the next request is a probe'}"

    def _came_back(self, server: Server, now: float) -> None:
        if server.is_usable and self._slow_start.came_back(server, now, len(self.servers)):
            self._rebuild_strategies()

    def _changed(self, server: Server, old: str, why: str, now: float) -> None:
        server.why = why
        server.changed_at = now
        self._is_dirty = True
        self._fast = ()
        new = server.shown
        if new != old and server in self.servers:
            for listener in self._flip_listeners:
                listener(server, old, new)

    # --- time -------------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """What time brings: another chance for refused servers (without checks), probes, ramps, late tickets."""
        if self.passive_retry_s is not None:
            for server in self.servers:
                if server.health is Health.DOWN and now - server.changed_at >= self.passive_retry_s:
                    self.set_health(server, Health.UNKNOWN, "", "trying again; no health checks", now)
        for server in tuple(self._out):
            old = server.shown
            circuit = server.circuit
            if circuit is not None and circuit.tick(now):
                server.breaker = Breaker.PROBING
                self._changed(server, old, circuit.what, now)
        if self._slow_start.step(now):
            self._rebuild_strategies()
        if self._speeds is not None and self._speeds.step(self.servers, now):
            self._is_dirty = True
            self._fast = ()
        if self._quarantined:
            self._end_quarantines(now)
        if self.queue is not None and len(self.queue):
            self._refuse_late(now)
            self.hand_over(now)

    def _end_quarantines(self, now: float) -> None:
        for server in tuple(self._quarantined):
            # With one slot, progress after the abort can only be that of a later request, or of the one given up.
            newest_start = server.progress_at - 1e-9 if server.max_inflight == 1 else float("-inf")
            if server.end_quarantine(now, newest_start=newest_start):
                self._quarantined.discard(server)

    def _refuse_late(self, now: float) -> None:
        if self.queue is None:
            return
        for ticket in self.queue.expire(now):
            ticket.refused("deadline" if ticket.deadline_at <= now else "timeout")

    # --- ejections --------------------------------------------------------------------------------------------------

    def settle(
        self,
        lease: Lease,
        outcome: Outcome,
        now: float,
        penalty_s: float,
        quarantine_s: float,
        what: str,
        request_key: int,
    ) -> None:
        """The books of a lease that did not end in success."""
        server = lease.server
        if quarantine_s > 0.0 and server.max_inflight:
            p95 = server.service_p95_s
            server.quarantine_slot(min(p95, quarantine_s) if p95 else quarantine_s, now)
            self._quarantined.add(server)
        if outcome is Outcome.ABORTED and self.queue is not None:
            self.queue.client_left(now)
        if outcome is Outcome.PUSH_BACK:
            server.progress_at = now
            server.penalise(penalty_s or PENALTY_S, now, is_firm=penalty_s > 0.0)
        if outcome is Outcome.ERROR or outcome is Outcome.BAD_ANSWER:
            # Not a reason to eject, as the requests may be at fault; but errors are quick, and the server looks idle.
            server.errors_in_a_row += 1
            is_bad = outcome is Outcome.BAD_ANSWER
            if is_bad:
                server.errors += 1
            else:
                server.progress_at = now
            if is_bad or penalty_s > 0.0 or server.errors_in_a_row >= ERRORS_IN_A_ROW:
                server.penalise(PENALTY_S, now)
            self._judge_error(lease, now, request_key, is_bad=is_bad, what=what)
        elif outcome is Outcome.FAILURE:
            server.errors += 1
            server.errors_in_a_row += 1
            server.penalise(penalty_s or PENALTY_S, now, is_firm=penalty_s > 0.0)
            self.judge(lease, False, now, what=what)
        else:
            hold_s = (penalty_s or PENALTY_S) if outcome is Outcome.PUSH_BACK else 0.0
            self.judge(lease, None, now, hold_s=HOLD_AFTER_ABORT_S if outcome is Outcome.ABORTED else hold_s)

    def _judge_error(self, lease: Lease, now: float, request_key: int, *, is_bad: bool, what: str) -> None:
        """An error that the request may be to blame for: what it says alone, and what it says beside the others'."""
        server = lease.server
        circuit = server.circuit
        if circuit is None or lease.generation != circuit.generation:
            return
        is_news = circuit.is_news(request_key)
        verdict: bool | None = True  # an answer 5xx is one for the breaker's own rules
        if is_bad:
            verdict = False if is_news else None
        elif circuit.state is Breaker.PROBING and circuit.is_outlier and are_well(server, self.servers, now):
            verdict, what = False, "another error"
        self.judge(lease, verdict, now, what=what)
        if server.breaker is Breaker.CLOSED and circuit.generation == lease.generation:
            if verdict:
                circuit.n_errors += 1
            elif verdict is None:
                circuit.n_repeats += 1
            self._eject_outlier(server, now, what)

    def _eject_outlier(self, server: Server, now: float, what: str) -> None:
        circuit = server.circuit
        if circuit is not None and self._outliers.stands_out(server, self.servers, now) and self._can_spare(server):
            self._eject(server, circuit, OUTLIER, now, what)

    def judge(self, lease: Lease, ok: bool | None, now: float, *, hold_s: float = 0.0, what: str = "failures") -> None:
        """Tell the breaker; ok None says nothing about the server, but gives a probe's permit back."""
        server = lease.server
        circuit = server.circuit
        if circuit is None or lease.generation != circuit.generation:
            return
        old = server.shown
        is_probe = circuit.state is Breaker.PROBING
        if is_probe:
            reason = circuit.probe_finished(ok, now, hold_s=hold_s)
            if ok:
                self._closed(server, old, "a probe succeeded", now)
        else:
            reason = circuit.observe(ok, lease.generation, now) if ok is not None else None
        if reason is not None and (is_probe or self._can_spare(server)):
            self._eject(server, circuit, reason, now, what)

    def _eject(self, server: Server, circuit: CircuitBreaker, reason: str, now: float, what: str) -> None:
        old = server.shown
        circuit.eject(reason, now, what)
        server.breaker = Breaker.EJECTED
        if server in self._out:
            self._out.remove(server)
        elif server in self.servers:
            self._slow_start.left(server, now)
        if server in self.servers:
            self._out.append(server)
        self._changed(server, old, circuit.what, now)

    def _ejection_cap(self) -> int:
        return int(self.max_ejected * len(self.servers))

    def _can_spare(self, server: Server) -> bool:
        if server not in self.servers or len(self._out) >= self._ejection_cap():
            return False
        return any(other is not server and other.is_usable for other in self.servers)

    def _trim_ejections(self, now: float) -> None:
        """Membership changed: take the longest ejected back if the pool cannot spare so many any more."""
        while len(self._out) > self._ejection_cap():
            server = self._out[0]
            old = server.shown
            if server.circuit is not None:
                server.circuit.close(now)
            self._closed(server, old, "the pool has shrunk and cannot spare it", now)

    def _closed(self, server: Server, old: str, why: str, now: float) -> None:
        server.breaker = Breaker.CLOSED
        server.penalty_until = 0.0
        if server in self._out:
            self._out.remove(server)
        self._changed(server, old, why, now)
        if server in self.servers:
            self._came_back(server, now)

    def _rebuild_strategies(self) -> None:
        self._is_dirty = True
        self._fast = ()
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
            self._probing = tuple(server for server in self._out if self._may_be_probed(server))
            self._fast = () if self._probing else self._prefer(self._eligible)
            self._is_dirty = False
        return self._eligible

    @property
    def is_proven(self) -> bool:
        """Has a server that may be used now passed a check? Without checks nothing can be asked for."""
        return self.passive_retry_s is not None or any(server.was_up for server in self.eligible())

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
                and (server.health is not Health.DOWN or (server.was_up and server.down_reason != REFUSED))
            )
            if len(believed) > len(usable):
                self.is_failing_open = True
                usable = believed
        return tuple(server for server in usable if not server.backup) or usable

    def _may_be_probed(self, server: Server) -> bool:
        """A backup is probed only while backups are in use: its turn comes before theirs, not before the primaries'."""
        return (
            server.breaker is Breaker.PROBING
            and server.admin is Admin.READY
            and server.health is not Health.DOWN
            and server.weight > 0
            and (not server.backup or not self._eligible or self._eligible[0].backup)
        )

    def acquire(
        self, ctx: PickContext, tried: Sequence[Server], now: float, deadline_at: float = inf
    ) -> Lease | Refusal:
        """A lease on the server of the strategy's choice, or why not.

        A server in `tried` is chosen only if there is no other. After FULL the caller may `enqueue`; with a deadline
        near, FULL is not said because of a penalty.
        """
        eligible = self._fast
        if not eligible:
            return self._place(ctx, tried, now, deadline_at)
        server = eligible[0] if len(eligible) == 1 else self._pick(eligible, ctx, now)
        if server.inflight >= server.free_limit or (tried and server in tried):
            return self._place(ctx, tried, now, deadline_at)
        return Lease(self, server, now)

    def _place(
        self, ctx: PickContext, tried: Sequence[Server], now: float, deadline_at: float, *, may_wait: bool = True
    ) -> Lease | Refusal:
        """`acquire` with all that may be in its way."""
        eligible = self.eligible()
        probe = self._due_probe(tried, now)
        if probe is not None:
            return self._probe(probe, now)
        slots = [server for server in eligible if server.inflight < server.free_limit]
        slots = slots or [server for server in eligible if server.inflight < server.limit]
        if not slots:
            if tried and (probe := self._due_probe((), now)) is not None:
                return self._probe(probe, now)
            # While a probe is out its server is at its limit, and a queue can wait for the verdict.
            is_waited_for = self._probing and self.queue is not None and self.queue.size
            return Refusal.FULL if eligible or is_waited_for else Refusal.NO_SERVER
        rest = [server for server in slots if server not in tried] or slots
        if self._heeds_penalties:
            sound = sound_among(rest, tried, now)
            if not sound and not sound_among(slots, tried, now):
                quarantined = [s for s in eligible if s.inflight < s.limit and s not in tried]
                sound = sound_among(quarantined, tried, now)
                if not sound and may_wait and is_worth_a_wait(self.queue, eligible, tried, deadline_at, now):
                    return Refusal.FULL
            rest = sound or rest
        return Lease(self, self._pick(self._prefer(rest), ctx, now), now)

    def _prefer(self, servers: Sequence[Server]) -> tuple[Server, ...]:
        return tuple(servers) if self._speeds is None else self._speeds.prefer(servers)

    def _probe(self, server: Server, now: float) -> Lease:
        if server.circuit is not None:
            server.circuit.probe_started()
        return Lease(self, server, now)

    def _due_probe(self, tried: Sequence[Server], now: float) -> Server | None:
        for server in self._probing:
            circuit = server.circuit
            if (
                circuit is not None
                and server.inflight < server.limit
                and circuit.may_probe(now)
                and server not in tried
            ):
                return server
        return None

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

    # --- the queue --------------------------------------------------------------------------------------------------

    def enqueue(self, ticket: Ticket, now: float) -> bool:
        """Wait for a slot, after `acquire` said FULL. False: no queue, it is full, or the deadline has passed."""
        return self.queue is not None and ticket.deadline_at > now and self.queue.push(ticket, now)

    def is_hopeless(self, deadline_at: float, now: float) -> bool:
        """Would a request that joins the queue now end after its deadline, even if all goes well? No if unsure."""
        if self.queue is None or self._slot(now) != NO_SLOT:
            return False
        return self._ends_late(deadline_at, now, self.queue.n_ahead)

    def _ends_late(self, deadline_at: float, now: float, n_ahead: int) -> bool:
        candidates = self.eligible() + self._probing
        fastest_s = min((server.service_min_s for server in candidates), default=0.0)
        slots = sum(server.max_inflight for server in self.servers)
        rate = self.queue.drain_rate(now) if self.queue is not None else None
        return now + earliest_end_s(n_ahead, slots, fastest_s, rate) > deadline_at

    def hand_over(self, now: float) -> None:
        """Give free slots to those who wait. Called by the pool wherever a slot may have become free."""
        queue = self.queue
        if queue is None or self._is_handing_over or not len(queue):
            return
        self._is_handing_over = True
        try:
            while len(queue) and (slot := self._slot(now)) != NO_SLOT:
                if slot == FREE_SLOT:
                    ticket = queue.pop(now)
                else:
                    ticket = queue.pop_urgent(now, longest_hold_s(queue, now), needed_s(self.eligible()))
                if ticket is None:
                    break
                if ticket.deadline_at < inf and self._ends_late(ticket.deadline_at, now, 0):
                    ticket.refused("hopeless")  # its slot goes to somebody who can still be answered
                    continue
                lease = self._place(ticket.ctx, ticket.tried, now, ticket.deadline_at, may_wait=False)
                if isinstance(lease, Refusal):
                    raise AssertionError(f"a slot of pool {self.name} vanished between two statements")
                ticket.granted(lease, now)
        finally:
            self._is_handing_over = False
        if len(queue):
            self._refuse_late(now)

    def _slot(self, now: float) -> int:
        """Is there a slot for who waits (domain/holding.py)?"""
        eligible = self.eligible()
        if self._heeds_penalties:
            slot = slot_among(eligible, now)
        else:
            slot = FREE_SLOT if any(server.inflight < server.limit for server in eligible) else NO_SLOT
        return FREE_SLOT if slot != FREE_SLOT and self._due_probe((), now) is not None else slot

    def __repr__(self) -> str:
        return f"<Pool {self.name} {self.servers}>"
