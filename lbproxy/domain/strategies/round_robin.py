"""Round robin: everybody in turn, weights ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from lbproxy.compiling import mypyc_attr
from lbproxy.domain.rng import Rng
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext


@mypyc_attr(allow_interpreted_subclasses=True)
class RoundRobin:
    """Picks the eligible server whose last turn is longest ago; configured order among those that never had one.

    A counter modulo the number of servers, or "the one after the last", hands the whole share of a missing server to
    its neighbour. Remembering turns instead of a position spreads it over all, whoever comes and goes between picks.
    """

    __slots__ = ("_clock", "_turns")

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    hash_on: str = ""

    def __init__(self, options: Mapping[str, object], rng: Rng) -> None:
        self._turns: dict[Server, int] = {}
        self._clock = 0

    def rebuild(self, servers: Sequence[Server]) -> None:
        """Members that stay keep their place; a new one is next."""
        turns = self._turns
        self._turns = {server: turns.get(server, 0) for server in servers}

    def twin(self, rng: Rng) -> RoundRobin:
        """A copy, whose picks leave this one as it is."""
        made = RoundRobin({}, rng)
        made._turns, made._clock = dict(self._turns), self._clock
        return made

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        turns = self._turns
        best = eligible[0]
        oldest = turns.get(best, 0)
        for server in eligible:
            turn = turns.get(server, 0)
            if turn < oldest:
                best, oldest = server, turn
        self._clock += 1
        turns[best] = self._clock
        return best
