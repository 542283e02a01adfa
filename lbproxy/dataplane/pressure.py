"""Memory for data on its way (`limits.buffered_bytes`), and what gives way when it runs short.

    in use    what happens
    75 %      copies of request bodies that are kept for a retry only are given up, the largest first, down to 60 %
    85 %      what waits for a server, or behind another request, is not read further
    95 %      refusing: nobody is accepted and new requests get 503, until less than 85 % is in use

A copy for a retry is a favour to one request; giving it up hurts nobody but a request whose server then dies. Refusing
hurts everybody. So the order is the one above.

The sum is made by each sweep, and kept between two sweeps for what grows fast: large bodies, and answers that a client
does not take.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import PROCESS, Row

RELIEVE_AT: Final = 0.75
RELIEVE_TO: Final = 0.60
HOLD_AT: Final = 0.85
REFUSE_AT: Final = 0.95
COUNTED_FROM: Final = 16 * 1024
"""Bodies up to this size are found by the sweep only: most requests have one, and must not pay for the rest."""
_CHECKS: Final = 32  # while more and more is in use: so many checks until the limit
_GIVEN_UP: Final = PROCESS.column("replay_copies_dropped_total")


class Holder(Protocol):
    """Somebody with the body of a request."""

    def spare_bytes(self) -> int:
        """How much `give_up_spare` frees."""
        ...

    def give_up_spare(self) -> None:
        """Let go of a body that was sent and is kept for a retry only."""
        ...


class Pressure:
    """See the module. limit: bytes. `row` holds the PROCESS counters."""

    __slots__ = ("_check_from", "_copies", "_log", "_row", "buffered", "is_holding", "is_refusing", "limit")

    def __init__(self, limit: int, row: Row, clock: Callable[[], float]) -> None:
        self.limit = limit
        self.buffered = 0
        self.is_holding = False
        self.is_refusing = False
        self._row = row
        self._copies: dict[Holder, int] = {}
        self._check_from = limit * RELIEVE_AT
        self._log = ThrottledLog(logging.getLogger("lbproxy"), clock=clock)

    def limit_to(self, limit: int) -> None:
        """Another limit from now on."""
        self.limit = limit
        self._check()

    @property
    def reason(self) -> str | None:
        """Why new traffic should not come here, or None."""
        if not self.is_refusing:
            return None
        return f"overloaded: {self.buffered >> 20} MiB wait to be sent (limits.buffered_bytes)"

    def count(self, n_bytes: int) -> None:
        """So many more bytes are held (negative: less)."""
        self.buffered += n_bytes
        if n_bytes > 0 and self.buffered >= self._check_from:
            self._check()

    def copy_grew(self, holder: Holder, size: int) -> None:
        """A request's body of more than COUNTED_FROM bytes; `copy_gone` must follow."""
        before = self._copies.get(holder, 0)
        self._copies[holder] = size
        self.count(size - before)

    def copy_gone(self, holder: Holder) -> None:
        """Its body was let go."""
        self.buffered -= self._copies.pop(holder, 0)

    def settle(self, buffered: int) -> None:
        """The sweep has added up what everybody holds."""
        self.buffered = buffered
        self._check()

    def _check(self) -> None:
        if self.buffered >= self.limit * RELIEVE_AT and self._copies:
            self._relieve()
        self.is_holding = self.buffered >= self.limit * HOLD_AT
        if self.buffered >= self.limit * REFUSE_AT:
            if not self.is_refusing:
                self.is_refusing = True
                self._log.warning(
                    "refusing",
                    "overloaded: %d MiB wait to be sent, limits.buffered_bytes is %d MiB; "
                    "nobody is accepted and new requests get 503 until there is room",
                    self.buffered >> 20,
                    self.limit >> 20,
                )
        elif self.is_refusing and not self.is_holding:
            self.is_refusing = False
            self._log.warning("accepting", "no longer overloaded: %d MiB wait to be sent", self.buffered >> 20)
        self._check_from = self._next_check()

    def _next_check(self) -> float:
        """At how many bytes `count` looks again, so that not every one of many large bodies makes it sort them all."""
        if self.buffered < self.limit * RELIEVE_AT:
            return self.limit * RELIEVE_AT
        soon = self.buffered + self.limit / _CHECKS
        for level in (HOLD_AT, REFUSE_AT):
            if self.buffered < self.limit * level:
                return min(soon, self.limit * level)
        return soon

    def _relieve(self) -> None:
        spare = sorted(((item.spare_bytes(), number, item) for number, item in enumerate(self._copies)), reverse=True)
        before, count, freed = self.buffered, 0, 0
        for size, _, holder in spare:
            if size <= 0 or self.buffered <= self.limit * RELIEVE_TO:
                break
            holder.give_up_spare()
            count += 1
            freed += size
        if not count:
            return
        self._row[_GIVEN_UP] += count
        self._log.warning(
            "copies",
            "%d MiB wait to be sent, limits.buffered_bytes is %d MiB: gave up %d MiB of copies of request bodies; "
            "these %d requests go on, but cannot be sent again",
            before >> 20,
            self.limit >> 20,
            freed >> 20,
            count,
        )
