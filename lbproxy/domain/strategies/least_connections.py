"""Least connections: the server with the fewest requests in flight for its weight, failures counted as load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from lbproxy.compiling import mypyc_attr
from lbproxy.domain.rng import Rng
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext


@mypyc_attr(allow_interpreted_subclasses=True)
class LeastConnections:
    """Minimises inflight / weight, compared by cross-multiplication; among equals a weighted round robin decides.

    The round robin is earliest deadline first: a picked server is due again 1 / weight later on a virtual clock that
    never runs back. A server that was busy or away is therefore preferred once, not until it has caught up, and idle
    servers of a quiet pool share in proportion to their weights. Deadlines cost one look-up per tie, where nginx's
    scheme would cost a second pass over the tied servers.
    """

    __slots__ = ("_clock", "_due", "_has_drained", "_is_even")

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    hash_on: str = ""
    fills_fast_first = True
    heeds_penalties = True

    def __init__(self, options: Mapping[str, object], rng: Rng) -> None:
        self._due: dict[Server, float] = {}
        self._clock = 0.0
        self._has_drained = False
        self._is_even = True

    def rebuild(self, servers: Sequence[Server]) -> None:
        """Members that stay keep their place; a new one is due one turn from now, as if it had just been served."""
        due = self._due
        self._due = {
            server: due[server] if server in due else self._clock + 1.0 / (server.effective_weight or 1)
            for server in servers
        }
        weights = {server.effective_weight for server in servers}
        self._is_even = len(weights) <= 1
        self._has_drained = 0 in weights

    def twin(self, rng: Rng) -> LeastConnections:
        """A copy, whose picks leave this one as it is."""
        made = LeastConnections({}, rng)
        made._due, made._clock = dict(self._due), self._clock
        made._has_drained, made._is_even = self._has_drained, self._is_even
        return made

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        best = self._least(eligible) if self._is_even else self._least_for_weight(eligible)
        if best.penalty_until:
            best = self._least_loaded(eligible, now)
        if self._due[best] > self._clock:
            self._clock = self._due[best]
        self._due[best] = self._clock + 1.0 / (best.effective_weight or 1)
        return best

    def _least(self, eligible: Sequence[Server]) -> Server:
        """Weights are equal: the same comparison without the products (half the cost when all are tied)."""
        due = self._due
        best = eligible[0]
        least, best_due = best.inflight, due[best]
        for server in eligible:
            inflight = server.inflight
            if inflight > least:
                continue
            server_due = due[server]
            if inflight < least or server_due < best_due:
                best, least, best_due = server, inflight, server_due
        return best

    def _least_for_weight(self, eligible: Sequence[Server]) -> Server:
        if self._has_drained:
            eligible = [server for server in eligible if server.weight] or eligible
        due = self._due
        best = eligible[0]
        inflight, weight, best_due = best.inflight, best.effective_weight, due[best]
        for server in eligible:
            ours = server.inflight * weight
            theirs = inflight * server.effective_weight
            if ours > theirs:
                continue
            server_due = due[server]
            if ours < theirs or server_due < best_due:
                best, inflight, weight, best_due = server, server.inflight, server.effective_weight, server_due
        return best

    def _least_loaded(self, eligible: Sequence[Server], now: float) -> Server:
        """The winner has a failure penalty: count everybody's. (A winner without one wins this comparison too.)"""
        if self._has_drained:
            eligible = [server for server in eligible if server.weight] or eligible
        due = self._due
        return min(eligible, key=lambda server: (server.load(now) / (server.effective_weight or 1), due[server]))
