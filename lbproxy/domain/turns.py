"""Whose turn it is among several: classes by weight, and within a class the keys one after the other.

Keys. Each key that waits is a flow, and the flows of a class stand in a ring: the first one gives one ticket and goes
to the end. That is deficit round robin (Shreedhar and Varghese 1995) where each request costs 1, so that no deficit is
ever carried on, and a flow that has nobody left needs no memory. Who is alone in its flow waits for one round at most.

Classes. Each turn every class that waits is credited with its weight, and the one with most credit pays for all of
them: smooth weighted round robin. A class that waits all the time has its share, the last one too, whatever the others
do: credit that is not used grows until it is the most. A class in which nobody waits has none.

Too many. When the queue is full, whoever has more than its share makes room, if it has more than who comes: the class
that is most above its weight, in it the key with the most tickets, of it the newest. So a flood fills the queue with
its own and loses its own, and others still get in.

Everything is O(1), apart from the number of classes. Flows are those that wait, so the queue's size bounds them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from lbproxy.domain.ticket import Ticket


class Flow:
    """The tickets of one key in one class, in order of arrival."""

    __slots__ = ("share", "tickets")

    def __init__(self, share: bytes) -> None:
        self.share = share
        self.tickets: OrderedDict[Ticket, None] = OrderedDict()


class Ring:
    """The flows of one class. n: their tickets; longest: how many the longest flow has; by_length: the flows that have
    so many, those first that have had them for longest."""

    __slots__ = ("by_length", "credit", "flows", "longest", "n", "weight")

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.credit = 0
        self.n = 0
        self.longest = 0
        self.flows: OrderedDict[bytes, Flow] = OrderedDict()
        self.by_length: dict[int, OrderedDict[bytes, Flow]] = {}

    def resize(self, flow: Flow, before: int) -> None:
        """The flow had so many tickets, and has one more or one less now."""
        share, now = flow.share, len(flow.tickets)
        self.n += now - before
        if before:
            same = self.by_length[before]
            del same[share]
            if not same:
                del self.by_length[before]
        if now:
            like = self.by_length.get(now)
            if like is None:
                like = self.by_length[now] = OrderedDict()
            like[share] = flow
        if now > self.longest or self.longest not in self.by_length:
            self.longest = now


class Turns:
    """See the module. weights: of the classes, the first one first."""

    __slots__ = ("_rings", "n_keys", "weights")

    def __init__(self, weights: Sequence[int]) -> None:
        self.weights = tuple(weights)
        self._rings = [Ring(weight) for weight in weights]
        self.n_keys = 0  # that wait, each once, in however many classes

    def by_class(self) -> list[int]:
        """How many tickets of each class wait."""
        return [ring.n for ring in self._rings]

    def add(self, ticket: Ticket) -> None:
        """It waits, by its `rank` and `share`, behind all of the same."""
        ring = self._rings[ticket.rank]
        flow = ring.flows.get(ticket.share)
        if flow is None:
            self.n_keys += 0 if self._has(ticket.share) else 1
            flow = ring.flows[ticket.share] = Flow(ticket.share)
        flow.tickets[ticket] = None
        ring.resize(flow, len(flow.tickets) - 1)

    def drop(self, ticket: Ticket) -> None:
        """It waits no more. Nothing happens if it was not here."""
        ring = self._rings[ticket.rank]
        flow = ring.flows.get(ticket.share)
        if flow is None or ticket not in flow.tickets:
            return
        del flow.tickets[ticket]
        ring.resize(flow, len(flow.tickets) + 1)
        if not flow.tickets:
            del ring.flows[ticket.share]
            self.n_keys -= 0 if self._has(ticket.share) else 1
        if not ring.n:
            ring.credit = 0

    def _has(self, share: bytes) -> bool:
        """Does this key wait in any class?"""
        return any(share in ring.flows for ring in self._rings)

    def served(self, ticket: Ticket) -> None:
        """Somebody else has chosen it: its key has had a turn. Before it is dropped."""
        flows = self._rings[ticket.rank].flows
        if ticket.share in flows:
            flows.move_to_end(ticket.share)

    def next(self, now: float, *, is_newest_first: bool) -> Ticket | None:
        """Whose turn it is, None if nobody waits in time; to be dropped by who takes it. is_newest_first: of the
        tickets of a key. Those that are late are dropped."""
        while (ring := self._next_ring()) is not None:
            flow = next(iter(ring.flows.values()))
            tickets = flow.tickets
            ticket = next(reversed(tickets)) if is_newest_first else next(iter(tickets))
            if ticket.expires_at <= now:
                self.drop(ticket)
                continue
            self._charge(ring)
            ring.flows.move_to_end(flow.share)
            return ticket
        return None

    def _next_ring(self) -> Ring | None:
        found: Ring | None = None
        for ring in self._rings:
            if ring.n and (found is None or ring.credit + ring.weight > found.credit + found.weight):
                found = ring
        return found

    def _charge(self, served: Ring) -> None:
        total = 0
        for ring in self._rings:
            if ring.n:
                ring.credit += ring.weight
                total += ring.weight
        served.credit = served.credit - total if total > served.weight else 0  # who is alone owes nothing

    def who_makes_room(self, rank: int, share: bytes) -> Ticket | None:
        """Who should go so that a ticket of this class and key gets in, None if none should."""
        rings = self._rings
        own = rings[rank]
        worst, n_worst = own, own.n + 1
        for ring in rings:
            if ring.n * worst.weight > n_worst * ring.weight:
                worst, n_worst = ring, ring.n
        if worst is own:
            flow = own.flows.get(share)
            if own.longest <= (len(flow.tickets) if flow is not None else 0) + 1:
                return None
        longest = next(iter(worst.by_length[worst.longest].values()))
        return next(reversed(longest.tickets))
