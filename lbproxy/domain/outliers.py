"""Which server gives errors that the others do not give.

If everybody answers 500 it is the request's fault; if one does, it is the server's, whatever `circuit_breaker.status`
lists. A server that fails at once draws the requests of a pool that goes by load, so it must not stay.

A server stands out when at least `error_rate` (0.5) of `min_requests` (20) answers within `window` were errors, or the
last IN_A_ROW on end (`failures`, if that is more; one that is penalised gets a request now and then only), while fewer
than FEW were among the answers of all others together, of which there are `min_requests` too. Errors are failures,
answers 5xx and bad answers.

Where a strategy sends each client to a server of its own, one client's requests alone do not say who is at fault: there
it takes errors of at least DISTINCT sorts of requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lbproxy.domain.server import Server
from lbproxy.domain.states import Breaker

IN_A_ROW: Final = 8
FEW: Final = 0.1
DISTINCT: Final = 3
# Between comparisons in a pool: each looks at every server, and in a bad hour every answer asks for one.
COMPARE_EVERY_S: Final = 0.02


class Outliers:
    """The comparisons of one pool. is_hashing: its strategy sends each client to a server of its own."""

    __slots__ = ("_compared_at", "is_hashing")

    def __init__(self, *, is_hashing: bool) -> None:
        self.is_hashing = is_hashing
        self._compared_at = float("-inf")

    def stands_out(self, server: Server, servers: Sequence[Server], now: float) -> bool:
        """Should this server, which has just given an error, be ejected for it?"""
        circuit = server.circuit
        if circuit is None or server.breaker is not Breaker.CLOSED:
            return False
        errors, total = circuit.errors(now)
        if server.errors_in_a_row < max(IN_A_ROW, circuit.failures) and not circuit.is_exceeded_by(errors, total):
            return False
        if self.is_hashing and circuit.n_seen < DISTINCT:
            return False
        if now < self._compared_at + COMPARE_EVERY_S:
            return False
        self._compared_at = now
        return are_well(server, servers, now)


def are_well(server: Server, servers: Sequence[Server], now: float) -> bool:
    """Have the others given few errors of late, and answers enough to tell?"""
    circuit = server.circuit
    errors = total = 0
    for other in servers:
        if other is not server and other.circuit is not None and other.breaker is Breaker.CLOSED:
            theirs, of = other.circuit.errors(now)
            errors += theirs
            total += of
    return circuit is not None and circuit.is_enough(total) and errors < FEW * total
