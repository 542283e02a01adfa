"""The queue of a pool: requests that wait because every usable server is at its limit.

Order. `fifo` serves who came first. `adaptive` does so too, until a standing queue persists; then the newest goes
first. Reason: above 100 % load the queue grows until clients give up, and first-come-first-served then hands over only
requests that have waited almost to their client's limit, so that nearly all work is thrown away (goodput 0 to 0.1).
Newest-first answers those that can still be answered; the old ones leave by themselves.

What is a standing queue? As in CoDel (RFC 8289), the minimum wait over an interval stays above a target: a burst that
drains is none. The wait is that of the oldest ticket, 0 while nobody waits; it is above the target all through the
interval exactly if it is at every look. Besides, somebody must have left unanswered within the last interval, from the
queue (client gone, deadline, time-out) or from a server soon after a long wait: while everybody is answered in time,
another order only makes the tail longer (at load 0.9 with patient clients the 99th percentile is that of fifo).
First-come-first-served is back as soon as the wait is below the target.

TARGET_S 0.2 and INTERVAL_S 0.5: clients of prediction servers give up after 1 s or more. When the wait has passed the
target and stayed there for the interval, a request handed over has used 0.7 s at most and can still be answered, so the
order changes before the work is wasted. Simulated goodput with clients that leave after 1 s, at 1.1x and 1.3x: 0.96
and 0.98 (target 0.4, interval 1.0: 0.96 and 0.95; fifo: 0.13 and 0.07); a share of about 0.03 is work longer than
1 s, which no order can save. tests/unit/domain/test_simulation.py holds the figures.

Fairness. With rules (domain/fairness.py) turns go by class and key (domain/turns.py), and the order above holds among
the tickets of one key. A queue that is full takes one who has less than its share in the place of one who has more.
Without rules nothing of this is done.

Costs: push, pop and remove are O(log n) at most; a ticket that left stays in the two containers until it is met or
until more than half of them are such, and is never counted.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from math import ceil, inf
from typing import Final

from lbproxy.domain.books import Books
from lbproxy.domain.fairness import FairRules
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.ticket import Ticket as Ticket
from lbproxy.domain.turns import Turns

TARGET_S: Final = 0.2
INTERVAL_S: Final = 0.5
RATE_WINDOW_S: Final = 5.0
RETRY_AFTER_MAX_S: Final = 60
_COMPACT_FROM: Final = 64


class WaitQueue:
    """Waiting tickets, at most `size`, each for at most `timeout_s` seconds. order: "adaptive" or "fifo". rules: by
    which turns are shared out, None if they are not.

    Whoever pops a ticket calls its `granted`; whoever gets it from `expire` calls `refused`. crowded_out: tickets that
    lost their place to others and have not been told so: `take_crowded_out`. books: where it is counted who waits; the
    pool's, once it has one.
    """

    __slots__ = (
        "_above_since",
        "_arrivals",
        "_by_expiry",
        "_is_adaptive",
        "_left_at",
        "_n_drained",
        "_rate",
        "_rate_from",
        "_serial",
        "_turns",
        "books",
        "crowded_out",
        "is_newest_first",
        "rules",
        "size",
        "timeout_s",
    )

    def __init__(
        self,
        size: int = 1024,
        timeout_s: float = 10.0,
        order: str = "adaptive",
        rules: FairRules | None = None,
    ) -> None:
        if order not in ("adaptive", "fifo"):
            raise ValueError(f"the order is adaptive or fifo, not {order!r}")
        self.size = size
        self.timeout_s = timeout_s
        self.is_newest_first = False
        self._is_adaptive = order == "adaptive"
        self._arrivals: deque[Ticket] = deque()
        self._by_expiry: list[tuple[float, int, Ticket]] = []
        self._serial = 0
        self.books = Books()
        self._above_since: float | None = None
        self._left_at = -inf
        self._n_drained = 0
        self._rate: float | None = None
        self._rate_from = 0.0
        self.rules = rules
        self.crowded_out: list[Ticket] = []
        self._turns: Turns | None = Turns(rules.weights) if rules is not None else None

    def reconfigure(self, size: int, timeout_s: float, order: str, rules: FairRules | None = None) -> None:
        """Other bounds for who joins from now on; who waits keeps its place and its time. With other rules all who
        wait are sorted anew, in order of arrival."""
        self.size = size
        self.timeout_s = timeout_s
        self._is_adaptive = order == "adaptive"
        if not self._is_adaptive:
            self._above_since = None
            self.is_newest_first = False
        if rules is not self.rules and not (rules is not None and rules.is_same(self.rules)):
            self._sort_anew(rules)

    def _sort_anew(self, rules: FairRules | None) -> None:
        self.rules = rules
        self._turns = None
        if rules is None:
            return
        turns = self._turns = Turns(rules.weights)
        for ticket in self._arrivals:
            if ticket.is_waiting:
                sort(ticket, rules)
                turns.add(ticket)

    def __len__(self) -> int:
        """Tickets that wait."""
        return self.books.n_waiting

    # --- in and out -------------------------------------------------------------------------------------------------

    def push(self, ticket: Ticket, now: float) -> bool:
        """Join the queue. False if it is full, and nobody makes room."""
        rules = self.rules
        if rules is not None:
            sort(ticket, rules)
        if self.books.n_waiting >= self.size and not self._makes_room(ticket):
            return False
        if not self.books.n_waiting:
            self._arrivals.clear()
            self._by_expiry.clear()
            self._rate_from, self._n_drained = now, 0
        ticket.is_waiting = True
        ticket.expires_at = min(ticket.enqueued_at + self.timeout_s, ticket.deadline_at)
        self.books.joined()
        self._serial += 1
        self._arrivals.append(ticket)
        heappush(self._by_expiry, (ticket.expires_at, self._serial, ticket))
        if self._turns is not None:
            self._turns.add(ticket)
        return True

    def _makes_room(self, ticket: Ticket) -> bool:
        turns = self._turns
        if turns is None or self.books.n_waiting > self.size or not self.size:
            return False
        crowded = turns.who_makes_room(ticket.rank, ticket.share)
        if crowded is None:
            return False
        self._leave(crowded)
        self.crowded_out.append(crowded)
        return True

    def would_take(self, ctx: PickContext, *, is_trusted: bool) -> bool:
        """Would such a request get a place now, perhaps in that of another? For people; nothing changes."""
        rules = self.rules
        if self.books.n_waiting < self.size:
            return True
        if rules is None or self.books.n_waiting > self.size or not self.size:
            return False
        rank = rules.rank_of(ctx, is_trusted=is_trusted) if rules.classes else 0
        return self._has_more_than(rank, rules.share_of(ctx))

    def _has_more_than(self, rank: int, share: bytes) -> bool:
        return self._turns is not None and self._turns.who_makes_room(rank, share) is not None

    def take_crowded_out(self) -> Ticket | None:
        """The next one that must be told."""
        return self.crowded_out.pop() if self.crowded_out else None

    def pop(self, now: float) -> Ticket | None:
        """The ticket whose turn it is, or None. One that is late is passed over: `expire` returns it."""
        self._look(now)
        if self._turns is not None:
            return self._pop_fair(self._turns, now)
        arrivals = self._arrivals
        late: list[Ticket] = []
        found: Ticket | None = None
        while arrivals and found is None:
            ticket = arrivals.pop() if self.is_newest_first else arrivals.popleft()
            if not ticket.is_waiting:
                continue
            if ticket.expires_at <= now:
                late.append(ticket)  # still in the heap, where `expire` finds it
                continue
            found = ticket
        if self.is_newest_first:
            arrivals.extend(reversed(late))
        if found is not None:
            self._leave(found)
            self._count_drained(now)
            self._look(now)
        return found

    def _pop_fair(self, turns: Turns, now: float) -> Ticket | None:
        found = turns.next(now, is_newest_first=self.is_newest_first)
        if found is not None:
            self._leave(found)
            self._count_drained(now)
            self._look(now)
        return found

    def pop_urgent(self, now: float, longest_s: float, needed_s: float) -> Ticket | None:
        """The oldest ticket if it has waited for `longest_s`, or else the one that has the least time, if that is
        `needed_s` or less. None if nobody is in such a hurry, or who is is late already: `expire` returns it."""
        arrivals, heap = self._arrivals, self._by_expiry
        while arrivals and not arrivals[0].is_waiting:
            arrivals.popleft()
        while heap and not heap[0][2].is_waiting:
            heappop(heap)
        found: Ticket | None = None
        if arrivals and now - arrivals[0].enqueued_at >= longest_s:
            found = arrivals[0]
        elif heap and heap[0][0] - now <= needed_s:
            found = heap[0][2]
        if found is None or found.expires_at <= now:
            return None
        if self._turns is not None:
            self._turns.served(found)
        self._leave(found)
        self._count_drained(now)
        self._look(now)
        return found

    def remove(self, ticket: Ticket, now: float | None = None) -> None:
        """The client left. Nothing happens if the ticket does not wait. now: lets the order learn of it."""
        if ticket.is_waiting:
            self._leave(ticket)
            if now is not None:
                self.client_left(now)
        elif self.crowded_out and ticket in self.crowded_out:
            self.crowded_out.remove(ticket)

    def client_left(self, now: float) -> None:
        """A client of this pool gave up, here or after it was handed over: waiting costs answers."""
        self._left_at = now
        self._look(now)

    def expire(self, now: float) -> list[Ticket]:
        """Tickets that are late, in the order of their time; they are out of the queue."""
        heap = self._by_expiry
        late: list[Ticket] = []
        while heap and (heap[0][0] <= now or not heap[0][2].is_waiting):
            ticket = heappop(heap)[2]
            if ticket.is_waiting:
                self._leave(ticket)
                late.append(ticket)
        if late:
            self._left_at = now
        self._look(now)
        return late

    def _leave(self, ticket: Ticket) -> None:
        ticket.is_waiting = False
        self.books.left()
        if self._turns is not None:
            self._turns.drop(ticket)
        limit = 2 * self.books.n_waiting + _COMPACT_FROM
        if len(self._by_expiry) > limit:
            self._by_expiry = [item for item in self._by_expiry if item[2].is_waiting]
            heapify(self._by_expiry)
        if len(self._arrivals) > limit:
            self._arrivals = deque(item for item in self._arrivals if item.is_waiting)

    def oldest_wait_s(self, now: float) -> float:
        """How long the oldest ticket has waited, 0 if there is none."""
        arrivals = self._arrivals
        while arrivals and not arrivals[0].is_waiting:
            arrivals.popleft()
        return now - arrivals[0].enqueued_at if arrivals else 0.0

    def by_class(self) -> list[tuple[str, int]]:
        """How many wait in each class, by its name; nothing where there are no classes."""
        return list(zip(self.rules.classes, self._counts(), strict=True)) if self.rules and self.rules.classes else []

    def n_keys(self) -> int | None:
        """How many keys wait, each once, None where turns do not go by keys."""
        return self._n_keys() if self.rules is not None and self.rules.key is not None else None

    def _counts(self) -> list[int]:
        return self._turns.by_class() if self._turns is not None else []

    def _n_keys(self) -> int:
        return self._turns.n_keys if self._turns is not None else 0

    # --- order ------------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """Notice whether a standing queue persists."""
        if not self._is_adaptive:
            return
        arrivals = self._arrivals
        while arrivals and not arrivals[0].is_waiting:
            arrivals.popleft()
        self._note_wait(arrivals[0].enqueued_at if arrivals else inf, now)

    def _note_wait(self, oldest_at: float, now: float) -> None:
        """oldest_at: when the oldest ticket arrived, inf if there is none."""
        if now - oldest_at <= TARGET_S:
            self._above_since = None
            self.is_newest_first = False
        elif self._above_since is None:
            self._above_since = now
        elif now - self._above_since >= INTERVAL_S and now - self._left_at <= INTERVAL_S:
            self.is_newest_first = True

    # --- drain rate -------------------------------------------------------------------------------------------------

    def _count_drained(self, now: float) -> None:
        self._n_drained += 1
        elapsed = now - self._rate_from
        if elapsed >= RATE_WINDOW_S or (elapsed >= 1.0 and not self.books.n_waiting):
            self._rate = self._n_drained / elapsed
            self._n_drained = 0
            self._rate_from = now

    def drain_rate(self, now: float) -> float | None:
        """Tickets handed over a second while somebody waits; None until it was measured."""
        rate = self._rate
        elapsed = now - self._rate_from
        if elapsed >= RATE_WINDOW_S or (rate is None and elapsed >= 1.0):
            # A queue from which nothing comes must not go on showing the rate of better days.
            rate = self._n_drained / elapsed
        return rate

    @property
    def n_ahead(self) -> int:
        """How many are certainly served before a ticket that joins now, if none of them leaves.

        Under the adaptive order nobody is while the queue stands: it may turn to newest-first at any moment. Where keys
        have turns it is one ticket of each key, at least; where classes have, too, it may be nobody.
        """
        if self.rules is not None and not self.is_newest_first and self._above_since is None:
            return 0 if self.rules.classes else self._n_keys()
        return 0 if self.is_newest_first or self._above_since is not None else self.books.n_waiting

    def retry_after_s(self, now: float) -> int:
        """Whole seconds, 1 to 60, until those that wait now will be gone, at the rate at which the queue drains."""
        if not self.books.n_waiting:
            return 1
        rate = self.drain_rate(now)
        if rate is None:
            return max(1, min(RETRY_AFTER_MAX_S, ceil(self.timeout_s)))  # nobody waits longer than that
        if rate == 0.0:
            return RETRY_AFTER_MAX_S
        return max(1, min(RETRY_AFTER_MAX_S, ceil(self.books.n_waiting / rate)))


def sort(ticket: Ticket, rules: FairRules) -> None:
    """Find out its class and whose it is."""
    ticket.rank = rules.rank_of(ticket.ctx, is_trusted=ticket.is_trusted()) if rules.classes else 0
    ticket.share = rules.share_of(ticket.ctx)
