"""A ticket of a pool's queue that calls functions."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from lbproxy.domain.lease import Lease
from lbproxy.domain.queue import Ticket
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext


class CallingTicket(Ticket):
    """For tests, which do different things. failed: None lets the test fail."""

    def __init__(
        self,
        ctx: PickContext,
        granted: Callable[[Lease, float], object],
        refused: Callable[[str], object],
        *,
        enqueued_at: float,
        deadline_at: float = inf,
        tried: tuple[Server, ...] = (),
        failed: Callable[[Exception], object] | None = None,
    ) -> None:
        super().__init__(ctx, enqueued_at=enqueued_at, deadline_at=deadline_at, tried=tried)
        self._granted = granted
        self._refused = refused
        self._failed = failed

    def granted(self, lease: Lease, now: float) -> None:
        self._granted(lease, now)

    def refused(self, why: str) -> None:
        self._refused(why)

    def failed(self, error: Exception) -> None:
        if self._failed is None:
            raise error
        self._failed(error)
