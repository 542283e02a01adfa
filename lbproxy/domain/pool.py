"""A pool: gives requests to its servers, hears how they end, and lets those wait for whom there is no slot.

Who its members are and who of them may take a request: domain/members.py. Which of those gets it: domain/picker.py.
What its end says about the server: domain/judge.py. What is counted: domain/books.py.

A request costs one `strategy.pick` over the tuple of eligible servers. Facts that belong to one request (this server is
full, that one was tried already) are checked on the result, and only then is the tuple filtered and the strategy asked
a second time: two picks at most, no loop to hang in.

Order of preference for a request: a server that is due to be probed; a free slot of a server that was not tried, under
strategies that go by load first of those that are not measurably slower; a free slot of one that was tried; a
quarantined slot (its last request was given up, and the server may still be at work on it). Where servers of one zone
come first (domain/members.py) those of others join them for a request for which no free slot of that zone is left on a
server that it has not tried, and nobody waits beside their slots.

Penalties. Under strategies that go by load a slot of a server that has just failed is not free while others are merely
full: domain/holding.py.

Hand-over: whatever frees a slot (a release, a flip, a higher limit, a new member, the sweep) gives it to the head of
the queue in the same call, so nobody waits while a usable server has a free slot (penalties aside), and nobody
overtakes: a request that arrives while others wait finds no slot.

Invariants: a lease is released exactly once; `server.inflight` is the number of leases out on it and at most
`server.limit` when a lease is given; a removed server keeps its counters until its last lease is back; callbacks run
when the books are in order, and calls from inside them do not recurse; a ticket that raises loses its slot, and nobody
else's turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf

from lbproxy.domain.books import Books
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.fairness import FairRules
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
from lbproxy.domain.judge import Judge
from lbproxy.domain.kept_line import KeptLine
from lbproxy.domain.lease import Lease, Lessor, Outcome, Refusal
from lbproxy.domain.members import FlipListener, Members
from lbproxy.domain.names import Name
from lbproxy.domain.picker import Picker
from lbproxy.domain.queue import Ticket, WaitQueue
from lbproxy.domain.server import Server
from lbproxy.domain.states import REFUSED, Admin, Health
from lbproxy.domain.strategies.base import PickContext, Strategy


class Pool(Lessor):
    """The servers behind one name. All times are monotonic seconds given by the caller.

    fail_open: share of usable servers at or below which verdicts of checks are not believed, about servers that were up
    once; None = never.
    passive_retry_s: with health checks off, how long a server that refused a connection is left alone; None = checks
    bring it back. breaker None: no ejections. max_ejected: share of the members that may be out at once. queue None:
    who finds no slot is refused. slow_start_s: how long a server that came back or joined is ramped up, 0 = not.
    books: where it is counted what is in flight and who waits; its own by default.

    members, picker: for looking only; what changes a server is a method of the pool, as who waits may get a slot by it.
    """

    __slots__ = (
        "_is_handing_over",
        "_is_telling",
        "_judge",
        "_kept",
        "is_leaving",
        "members",
        "name",
        "names",
        "picker",
        "queue",
        "servers",
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
        books: Books | None = None,
    ) -> None:
        super().__init__(books if books is not None else Books())
        self.name = name
        self.names: list[Name] = []  # host names that servers come from; discovery keeps them
        self.is_leaving = False  # the config no longer names it; it goes when nothing is under way in it
        self.queue = queue
        if queue is not None:
            queue.books = self.books
        self._is_handing_over = False
        self._is_telling = False
        self._kept = KeptLine()
        self.picker = Picker(strategy, fallback, strategy_failed)
        self.members = Members(
            servers, self.picker, fail_open=fail_open, passive_retry_s=passive_retry_s, slow_start_s=slow_start_s
        )
        self._judge = Judge(self.members, breaker, max_ejected=max_ejected, is_hashing=self.picker.is_hashing)
        self.servers = self.members.servers

    # --- other settings ---------------------------------------------------------------------------------------------

    def reconfigure(
        self,
        *,
        fail_open: float | None,
        passive_retry_s: float | None,
        breaker: BreakerPolicy | None,
        max_ejected: float,
        slow_start_s: float,
        queue_size: int,
        queue_timeout_s: float,
        queue_order: str,
        now: float,
        queue_rules: FairRules | None = None,
    ) -> None:
        """Other rules from now on, as for a new pool. Requests in flight, who waits, and all that is known of the
        servers stay."""
        self.members.reconfigure(fail_open=fail_open, passive_retry_s=passive_retry_s, slow_start_s=slow_start_s)
        self._judge.reconfigure(breaker, max_ejected=max_ejected, is_hashing=self.picker.is_hashing, now=now)
        if self.queue is not None:
            self.queue.reconfigure(queue_size, queue_timeout_s, queue_order, queue_rules)
        self.hand_over(now)

    def use_strategy(self, strategy: Strategy, now: float) -> None:
        """Have another one pick from now on; it begins with the loads that the servers have. A `reconfigure` must
        follow, as what is held against a server depends on how requests are shared."""
        self.picker.use(strategy)
        self.members.rebuild()
        self.hand_over(now)

    # --- members and states -----------------------------------------------------------------------------------------

    def add(self, server: Server, now: float | None = None) -> None:
        """A server joins; discovery adds it down until its first pass. now: who waits need not wait for the sweep."""
        self._judge.equip(server)
        self.members.join(server, is_new=now is not None)  # at the start of the process nobody is ramped
        self._judge.membership_changed(now if now is not None else server.changed_at)
        if now is not None:
            self.members.came_back(server, now)
            self.hand_over(now)

    def remove(self, server: Server, now: float | None = None) -> None:
        """A server leaves: no new requests; those in flight keep their leases."""
        self.members.leave(server)
        self._judge.membership_changed(now if now is not None else server.changed_at)
        if now is not None:
            self.hand_over(now)

    def on_flip(self, listener: FlipListener) -> None:
        """Call `listener(server, old, new)` when the shown state of a server changes."""
        self.members.on_flip(listener)

    def set_health(self, server: Server, health: Health, reason: str, why: str, now: float) -> bool:
        """Record what is observed. `reason` matters for DOWN only ("refused" or another word). True if it changed."""
        if not self.members.set_health(server, health, reason, why, now):
            return False
        self.hand_over(now)
        return True

    def set_admin(self, server: Server, admin: Admin, why: str, now: float, *, keep_sticky: bool = False) -> bool:
        """Record what the operator wants. True if it changed. keep_sticky: of a drained server, whether clients that
        stick to it stay."""
        if not self.members.set_admin(server, admin, why, now, keep_sticky=keep_sticky):
            return False
        self.hand_over(now)
        return True

    def set_weight(self, server: Server, weight: int, now: float) -> None:
        """0 drains: no new requests until it is raised again."""
        server.weight = weight
        self.members.rebuild()
        self.hand_over(now)

    def set_max_inflight(self, server: Server, max_inflight: int, now: float) -> None:
        """0 = no limit. A lower limit takes nothing back; it holds for new requests."""
        server.max_inflight = max_inflight
        self.hand_over(now)

    def set_backup(self, server: Server, backup: bool, now: float) -> None:
        """True: it is used only while no other server is usable."""
        server.backup = backup
        self.members.rebuild()
        self.hand_over(now)

    def set_far(self, server: Server, far: bool, now: float) -> None:
        """True: it stands in another zone, so those of this zone come first (domain/members.py)."""
        server.far = far
        self.members.rebuild()
        self.hand_over(now)

    def server_refused(self, server: Server, now: float) -> bool:
        """The kernel of the server said that nobody listens. True if this is news."""
        return self.set_health(server, Health.DOWN, REFUSED, "connection refused under traffic", now)

    def resume_ejection(
        self, server: Server, reason: str, what: str, level: int, open_until: float, now: float
    ) -> bool:
        """Another process had ejected it, until then. False: it has no breaker, or the pool cannot spare it.

        reason, what, level: of its CircuitBreaker at that time.
        """
        return self._judge.resume_ejection(server, reason, what, level, open_until, now)

    def eligible(self) -> tuple[Server, ...]:
        """Servers that may take a new request, limits aside. Empty if there is none."""
        return self.members.eligible()

    @property
    def is_failing_open(self) -> bool:
        """Are there so few usable servers that checks are not believed? As of the last `eligible`."""
        return self.members.is_failing_open

    @property
    def is_proven(self) -> bool:
        """Has a server that may be used now passed a check? Without checks nothing can be asked for."""
        return self.members.passive_retry_s is not None or any(server.was_up for server in self.eligible())

    def is_drained(self, server: Server, now: float) -> bool:
        """Has a server that gets nothing more nothing in flight either?"""
        return server.inflight == 0

    @property
    def most_ejected(self) -> int:
        """How many of its servers the breaker may have taken out at once."""
        return self._judge.most_ejected

    def has_other(self, server: Server, tried: Sequence[Server]) -> bool:
        """Could a request that failed at this server, and before at those in `tried`, go to another one?"""
        others = self.eligible() + self.members.beyond
        return any(other is not server and other not in tried for other in others)

    def is_slower(self, server: Server) -> bool:
        """Is it measurably slower than the others, so that its slots are used last?"""
        return self.picker.is_slower(server)

    def why(self, server: Server, now: float) -> str:
        """What people are told about the state of a server; "" if there is nothing to say."""
        return self.members.why(server, now)

    # --- time -------------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """What time brings: another chance for refused servers (without checks), probes, ramps, late tickets."""
        self.members.sweep(now)
        self._judge.sweep(now)
        self.tell_crowded_out()
        if self.books.n_waiting:
            self._refuse_late(now)
            if self.queue is not None and not self._kept.is_empty:
                for ticket in self._kept.late(now, self.queue):
                    refuse(ticket, "timeout")
            self.hand_over(now)

    # --- ends of requests -------------------------------------------------------------------------------------------

    def judge(self, lease: Lease, ok: bool, now: float) -> None:
        """An answer that the server's breaker must hear of. Called by the lease."""
        self._judge.judge(lease, ok, now)

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
        """A lease did not end in success. Called by the lease."""
        if outcome is Outcome.ABORTED and self.queue is not None:
            self.queue.client_left(now)
        self._judge.settle(lease, outcome, now, penalty_s, quarantine_s, what, request_key)

    # --- a slot for a request ---------------------------------------------------------------------------------------

    def acquire(
        self, ctx: PickContext, tried: Sequence[Server], now: float, deadline_at: float = inf
    ) -> Lease | Refusal:
        """A lease on the server of the strategy's choice, or why not.

        A server in `tried` is chosen only if there is no other. After FULL the caller may `enqueue`; with a deadline
        near, FULL is not said because of a penalty.
        """
        eligible = self.members.fast
        is_again = bool(tried)
        if not eligible or (is_again and self.picker.is_hashing):  # a pick that can't hold would be counted
            return self._place(ctx, tried, now, deadline_at)
        server = eligible[0] if len(eligible) == 1 else self.picker.pick(eligible, ctx, now)
        if server.inflight >= server.free_limit or (is_again and server in tried):
            return self._place(ctx, tried, now, deadline_at)
        return Lease(self, server, now)

    def acquire_at(self, server: Server, now: float) -> Lease | None:
        """A lease on this server, which nobody chose: where a client must go. None if it has no slot."""
        return Lease(self, server, now) if self._may_take(server) and server.inflight < server.limit else None

    def acquire_kept(self, server: Server, now: float) -> Lease | Refusal:
        """A lease on the server to which a client sticks: FULL if it has no slot now, NO_SERVER if the client must go
        elsewhere. A server that is drained may keep those who stick to it."""
        refusal = self.keeps(server)
        return Lease(self, server, now) if refusal is None else refusal

    def keeps(self, server: Server) -> Refusal | None:
        """What `acquire_kept` would say now, None for a lease."""
        if not self._may_keep(server):
            return Refusal.NO_SERVER
        return None if server.inflight < server.limit else Refusal.FULL

    def _may_take(self, server: Server) -> bool:
        """In whichever zone it stands."""
        return server in self.eligible() or server in self.members.beyond

    def _may_keep(self, server: Server) -> bool:
        return self._may_take(server) or (server.keeps_its_own and server in self.servers)

    def _place(
        self, ctx: PickContext, tried: Sequence[Server], now: float, deadline_at: float, *, may_wait: bool = True
    ) -> Lease | Refusal:
        """`acquire` with all that may be in its way."""
        found = self._choice(tried, now, deadline_at, may_wait=may_wait)
        if isinstance(found, Refusal):
            return found
        if isinstance(found, Server):
            return self._probe(found, now)
        return Lease(self, self.picker.pick(found, ctx, now), now)

    def _choice(
        self, tried: Sequence[Server], now: float, deadline_at: float, *, may_wait: bool
    ) -> tuple[Server, ...] | Server | Refusal:
        """Among whom the strategy picks, or the one that is to be probed, or why there is nobody. Changes nothing."""
        eligible = self.eligible()
        probe = self._due_probe(tried, now)
        if probe is not None:
            return probe
        if self.members.beyond and not self._has_room_near(eligible, tried, now):
            eligible += self.members.beyond
        slots = [server for server in eligible if server.inflight < server.free_limit]
        slots = slots or [server for server in eligible if server.inflight < server.limit]
        if not slots:
            if tried and (probe := self._due_probe((), now)) is not None:
                return probe
            # While a probe is out its server is at its limit, and a queue can wait for the verdict.
            is_waited_for = self.members.probing and self.queue is not None and self.queue.size
            return Refusal.FULL if eligible or is_waited_for else Refusal.NO_SERVER
        rest = [server for server in slots if server not in tried] or slots
        if self.picker.heeds_penalties:
            sound = sound_among(rest, tried, now)
            if not sound and not sound_among(slots, tried, now):
                quarantined = [s for s in eligible if s.inflight < s.limit and s not in tried]
                sound = sound_among(quarantined, tried, now)
                if not sound and may_wait and is_worth_a_wait(self.queue, eligible, tried, deadline_at, now):
                    return Refusal.FULL
            rest = sound or rest
        return self.picker.prefer(rest)

    def _has_room_near(self, near: tuple[Server, ...], tried: Sequence[Server], now: float) -> bool:
        """Is there a free slot in this zone for which nobody would rather go to another one?"""
        heeds_penalties = self.picker.heeds_penalties
        return any(
            server.inflight < server.free_limit
            and server not in tried
            and not (heeds_penalties and server.is_held(now))
            for server in near
        )

    def foresee(
        self, ctx: PickContext, twin: Strategy | None, now: float, deadline_at: float = inf
    ) -> tuple[Server, ...] | Refusal:
        """Whom `acquire` would give a new request to; nothing changes by it.

        twin: a copy of the strategy, which a pick changes. Several: the strategy has them to choose from, and no copy.
        """
        fast = self.members.fast
        if fast and twin is not None:
            server = fast[0] if len(fast) == 1 else self.picker.foresee(twin, fast, ctx, now)
            if server.inflight < server.free_limit:
                return (server,)
        found = self._choice((), now, deadline_at, may_wait=True)
        if isinstance(found, Refusal):
            return found
        if isinstance(found, Server):
            return (found,)
        return found if twin is None else (self.picker.foresee(twin, found, ctx, now),)

    def is_due(self, server: Server, now: float) -> bool:
        """Is this the server that the next request goes to, to find out whether it is well again?"""
        return self._due_probe((), now) is server

    def _probe(self, server: Server, now: float) -> Lease:
        if server.circuit is not None:
            server.circuit.probe_started()
        return Lease(self, server, now)

    def _due_probe(self, tried: Sequence[Server], now: float) -> Server | None:
        for server in self.members.probing:
            circuit = server.circuit
            if (
                circuit is not None
                and server.inflight < server.limit
                and circuit.may_probe(now)
                and server not in tried
            ):
                return server
        return None

    # --- the queue --------------------------------------------------------------------------------------------------

    def enqueue(self, ticket: Ticket, now: float) -> bool:
        """Wait for a slot, after `acquire` said FULL. False: no queue, it is full, or the deadline has passed.

        Another one may have lost its place by it, and hears so from `tell_crowded_out`, which must follow as soon as
        the caller can bear that others begin something."""
        return self.queue is not None and ticket.deadline_at > now and self.queue.push(ticket, now)

    def tell_crowded_out(self) -> None:
        """Who lost its place in a full queue waits no more. What those do may crowd out others, who hear it here."""
        queue = self.queue
        if queue is None or not queue.crowded_out or self._is_telling:
            return
        self._is_telling = True
        try:
            while (ticket := queue.take_crowded_out()) is not None:
                refuse(ticket, "crowded")
        finally:
            self._is_telling = False

    def enqueue_kept(self, server: Server, ticket: Ticket) -> bool:
        """Wait for a slot of this server, after `acquire_kept` said FULL, until `ticket.expires_at`; then, or when the
        server may not be used any more, the ticket is refused. False: no queue, or it is full."""
        return self.queue is not None and self._kept.push(server, ticket, self.queue)

    def is_hopeless(self, deadline_at: float, now: float) -> bool:
        """Would a request that joins the queue now end after its deadline, even if all goes well? No if unsure."""
        if self.queue is None or self._slot(now) != NO_SLOT:
            return False
        return self._ends_late(deadline_at, now, self.queue.n_ahead)

    def _ends_late(self, deadline_at: float, now: float, n_ahead: int) -> bool:
        candidates = self.eligible() + self.members.beyond + self.members.probing
        fastest_s = min((server.fastest_s for server in candidates), default=0.0)
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
            if not self._kept.is_empty:
                self._hand_to_kept(queue, now)
            while len(queue) and (slot := self._slot(now)) != NO_SLOT:
                if slot == FREE_SLOT:
                    ticket = queue.pop(now)
                else:
                    ticket = queue.pop_urgent(now, longest_hold_s(queue, now), needed_s(self.eligible()))
                if ticket is None:
                    break
                if ticket.deadline_at < inf and self._ends_late(ticket.deadline_at, now, 0):
                    refuse(ticket, "hopeless")  # its slot goes to somebody who can still be answered
                    continue
                lease = self._place(ticket.ctx, ticket.tried, now, ticket.deadline_at, may_wait=False)
                if isinstance(lease, Refusal):
                    raise AssertionError(f"a slot of pool {self.name} vanished between two statements")
                grant(ticket, lease, now)
        finally:
            self._is_handing_over = False
        if len(queue):
            self._refuse_late(now)

    def _hand_to_kept(self, queue: WaitQueue, now: float) -> None:
        """Slots of servers that somebody waits for, unless others have waited longer."""
        for server in self._kept.servers():
            while (ticket := self._kept.first(server)) is not None:
                may_keep = self._may_keep(server)
                if may_keep and server.inflight >= server.limit:
                    break
                if may_keep and not server.keeps_its_own and queue.oldest_wait_s(now) > now - ticket.enqueued_at:
                    break
                self._kept.take(server, queue)
                if may_keep:
                    grant(ticket, Lease(self, server, now), now)
                else:
                    refuse(ticket, "timeout")

    def _refuse_late(self, now: float) -> None:
        if self.queue is None:
            return
        for ticket in self.queue.expire(now):
            refuse(ticket, "deadline" if ticket.deadline_at <= now else "timeout")

    def _slot(self, now: float) -> int:
        """Is there a slot for who waits (domain/holding.py)?"""
        eligible = self.eligible()
        if self.members.beyond:
            eligible += self.members.beyond
        if self.picker.heeds_penalties:
            slot = slot_among(eligible, now)
        else:
            slot = FREE_SLOT if any(server.inflight < server.limit for server in eligible) else NO_SLOT
        return FREE_SLOT if slot != FREE_SLOT and self._due_probe((), now) is not None else slot

    def __repr__(self) -> str:
        return f"<Pool {self.name} {self.servers}>"


def grant(ticket: Ticket, lease: Lease, now: float) -> None:
    """The turn of a ticket has come. If it can't take it, the slot is the next one's."""
    try:
        ticket.granted(lease, now)
    except Exception as error:  # a defect of who waits, which others must not pay for
        try:
            ticket.failed(error)
        finally:
            if lease.is_out:
                lease.release(Outcome.NEUTRAL, now)


def refuse(ticket: Ticket, why: str) -> None:
    """A ticket waited in vain. The next one is told so too, whatever this one does."""
    try:
        ticket.refused(why)
    except Exception as error:  # a defect of who waits, which others must not pay for
        ticket.failed(error)
