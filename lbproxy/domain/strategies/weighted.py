"""Smooth weighted round robin: in every `sum of weights` picks each server gets its weight, spread out evenly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from lbproxy.compiling import mypyc_attr
from lbproxy.domain.rng import Rng
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext


@mypyc_attr(allow_interpreted_subclasses=True)
class WeightedRoundRobin:
    """The scheme of nginx: each eligible server's credit grows by its weight, the richest is picked and pays the total.

    Weights 5, 1, 1 give a a b a c a a. Credits always add up to 0 over servers that stayed members, so a server that
    was away neither lost its place nor gathered a backlog. Weight 0 is picked only if there is nothing else.
    """

    __slots__ = ("_credit", "_has_drained")

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    hash_on: str = ""

    def __init__(self, options: Mapping[str, object], rng: Rng) -> None:
        self._credit: dict[Server, float] = {}
        self._has_drained = False

    def rebuild(self, servers: Sequence[Server]) -> None:
        """Only those who left lose their credit; a changed weight counts from the next pick."""
        credit = self._credit
        self._credit = {server: credit.get(server, 0) for server in servers}
        self._has_drained = any(server.weight == 0 for server in servers)

    def twin(self, rng: Rng) -> WeightedRoundRobin:
        """A copy, whose picks leave this one as it is."""
        made = WeightedRoundRobin({}, rng)
        made._credit, made._has_drained = dict(self._credit), self._has_drained
        return made

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        if self._has_drained:
            eligible = [server for server in eligible if server.weight] or eligible
        credit = self._credit
        best = eligible[0]
        most = credit[best] + (best.effective_weight or 1)
        total = 0.0
        for server in eligible:
            weight = server.effective_weight or 1  # 0 only if all are drained: share evenly, not all to the first
            total += weight
            credit[server] = mine = credit[server] + weight
            if mine > most:
                best, most = server, mine
        credit[best] = most - total
        return best
