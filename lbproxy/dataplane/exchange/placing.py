"""One way to a slot at a server, for a request and for a TCP connection: ask the pool, wait where all slots are taken.

    asked      a slot is free              leased
    asked      all are taken               waits, or `not_placed` where waiting is no use
    asked      no server may be used       not_placed
    waits      its turn comes              leased
    waits      time passes                 not_placed
    waits      `stop_waiting`              nothing more happens

Nothing that a claimant does with its slot reaches the pool, which is in the middle of its books then: a defect ends the
claimant that has it.
"""

from __future__ import annotations

from math import inf
from typing import Final

from lbproxy import errors
from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.counters import QUEUE_WAIT
from lbproxy.dataplane.services import Services
from lbproxy.domain.lease import Lease, Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import Ticket
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext
from lbproxy.errors import Fault
from lbproxy.telemetry.accesslog import LogRecord
from lbproxy.telemetry.slots import QUEUE_BUCKETS, Row, observe

_FAULTS: Final = {  # by the reason that the pool gives
    "timeout": errors.QUEUE_TIMEOUT,
    "deadline": errors.TOTAL_TIMEOUT,
    "hopeless": errors.DEADLINE_UNREACHABLE,
    "crowded": errors.QUEUE_FULL,
}
_DETAILS: Final = {"crowded": "the queue is full, and others had more of a right to the place"}


@mypyc_attr(allow_interpreted_subclasses=True)
class Claimant(LogRecord):
    """What needs a slot; `queue_s` of its log record is the time that it waited for slots, None before the first.

    tried: servers at which it has failed, which come last.
    """

    __slots__ = ("_place", "tried")

    def __init__(self) -> None:
        self.tried: tuple[Server, ...] = ()
        self.queue_s = None
        self._place: Place | None = None

    # --- what it hears ----------------------------------------------------------------------------------------------

    def leased(self, lease: Lease, now: float) -> None:
        """It has a slot, and must release the lease."""
        raise NotImplementedError

    def waits(self) -> None:
        """All slots are taken: it has a place in the queue."""

    def not_placed(self, fault: Fault, detail: str) -> None:
        """It gets no slot. detail: a sentence for people."""
        raise NotImplementedError

    def broke(self, error: Exception) -> None:
        """One of the other two raised this, after a wait: it must end, and give back what it holds."""
        raise NotImplementedError

    def is_trusted(self) -> bool:
        """Does it come from a trusted peer? Asked only where the queue has classes that such may choose from."""
        return False

    # --- what it does -----------------------------------------------------------------------------------------------

    def claim(self, services: Services, pool: Pool, row: Row, ctx: PickContext, now: float, deadline_at: float) -> None:
        """Ask for a slot. row: the pool's counters. deadline_at: when an answer is of no use any more, else inf."""
        lease = pool.acquire(ctx, self.tried, now, deadline_at)
        if isinstance(lease, Lease):
            self.leased(lease, now)
        elif lease is Refusal.NO_SERVER:
            self.not_placed(errors.NO_SERVER, f"pool {pool.name} has no usable server")
        elif now < deadline_at < inf and pool.is_hopeless(deadline_at, now):
            self.not_placed(errors.DEADLINE_UNREACHABLE, f"the queue of pool {pool.name} is too long for it")
        else:
            place = Place(self, services, pool, row, ctx, now, deadline_at)
            if pool.enqueue(place, now):
                self._place = place
                self.waits()
                pool.tell_crowded_out()
            elif deadline_at <= now:
                self.not_placed(errors.TOTAL_TIMEOUT, "no server was free")
            else:
                self.not_placed(errors.QUEUE_FULL, f"pool {pool.name} is at its limits")

    def claim_kept(
        self,
        services: Services,
        pool: Pool,
        row: Row,
        ctx: PickContext,
        server: Server,
        now: float,
        until: float,
    ) -> bool:
        """Wait for a slot of this server, until that time at most: `leased` or `not_kept` follows. False if that can't
        be: too many wait already."""
        place = KeptPlace(self, services, pool, row, ctx, now, until)
        place.expires_at = until
        if until <= now or not pool.enqueue_kept(server, place):
            return False
        self._place = place
        self.waits()
        return True

    def not_kept(self, now: float) -> None:
        """It has waited for one server in vain."""
        raise NotImplementedError

    def stop_waiting(self, now: float) -> None:
        """Whoever it works for is gone, or out of time."""
        place = self._place
        if place is not None:
            self.wait_over(place, now)
            queue = place.pool.queue
            if queue is not None:
                queue.remove(place, now)

    def wait_over(self, place: Place, now: float) -> float:
        """Its wait has ended, after so many seconds."""
        self._place = None
        waited = now - place.enqueued_at
        self.queue_s = (self.queue_s or 0.0) + waited
        return waited


class Place(Ticket):
    """A claimant's place in the queue."""

    __slots__ = ("_claimant", "_row", "_services", "pool")

    def __init__(
        self,
        claimant: Claimant,
        services: Services,
        pool: Pool,
        row: Row,
        ctx: PickContext,
        now: float,
        deadline_at: float,
    ) -> None:
        super().__init__(ctx, enqueued_at=now, deadline_at=deadline_at, tried=claimant.tried)
        self._claimant = claimant
        self._services = services
        self._row = row
        self.pool = pool

    def is_trusted(self) -> bool:
        """See Ticket."""
        return self._claimant.is_trusted()

    def granted(self, lease: Lease, now: float) -> None:
        """See Ticket."""
        waited = self._claimant.wait_over(self, now)
        observe(self._row, QUEUE_WAIT, QUEUE_BUCKETS, waited)
        self._claimant.leased(lease, now)

    def refused(self, why: str) -> None:
        """See Ticket."""
        waited = self._claimant.wait_over(self, self._services.clock())
        told = f"it waited for {waited:.3g} s in the queue of pool {self.pool.name}"
        self._claimant.not_placed(_FAULTS[why], _DETAILS.get(why, told))

    def failed(self, error: Exception) -> None:
        """See Ticket."""
        self._services.internal_error("queue", error)
        self._claimant.broke(error)


class KeptPlace(Place):
    """Its place in the line of one server."""

    __slots__ = ()

    def refused(self, why: str) -> None:
        """See Ticket."""
        now = self._services.clock()
        self._claimant.wait_over(self, now)
        self._claimant.not_kept(now)
