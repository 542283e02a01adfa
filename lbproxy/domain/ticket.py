"""How a pool speaks to who waits for a slot."""

from __future__ import annotations

from math import inf

from lbproxy.compiling import mypyc_attr
from lbproxy.domain.lease import Lease
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext


@mypyc_attr(allow_interpreted_subclasses=True)
class Ticket:
    """A place in the queue, and how the pool speaks to who waits: whoever asks for a slot derives from it.

    deadline_at: when the client's or the config's deadline passes, inf if there is none. is_waiting: in the queue now.
    rank, share: its class, 0 for the first, and whose it is, where the queue asks for these (domain/fairness.py).

    `granted` or `refused` is called, once, unless the ticket was removed; from inside `Lease.release`, `Pool.sweep`
    and others, while other requests wait for their turn. What one of them raises goes no further than `failed`.
    """

    __slots__ = ("ctx", "deadline_at", "enqueued_at", "expires_at", "is_waiting", "rank", "share", "tried")

    def __init__(
        self,
        ctx: PickContext,
        *,
        enqueued_at: float,
        deadline_at: float = inf,
        tried: tuple[Server, ...] = (),
    ) -> None:
        self.ctx = ctx
        self.enqueued_at = enqueued_at
        self.deadline_at = deadline_at
        self.tried = tried
        self.expires_at = deadline_at
        self.is_waiting = False
        self.rank = 0
        self.share = b""

    def is_trusted(self) -> bool:
        """Does it come from a peer that is believed what it says of its requests?"""
        return False

    def granted(self, lease: Lease, now: float) -> None:
        """Its turn has come; it must see to it that the lease is released."""
        raise NotImplementedError

    def refused(self, why: str) -> None:
        """It waited in vain. why: "timeout", "deadline", "hopeless" or "crowded": others have a better right to a place
        in a queue that is full."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """`granted` or `refused` raised this: a defect. End what waited; the pool takes a lease back that is still
        out after this call."""
        raise NotImplementedError
