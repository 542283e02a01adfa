"""Chance: `random` by weight, and `power_of_two`, the better of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from lbproxy.compiling import mypyc_attr
from lbproxy.domain.rng import Rng
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext

RECENT_S: Final = 1.0


@mypyc_attr(allow_interpreted_subclasses=True)
class RandomChoice:
    """Each pick is independent; the chance of a server is in proportion to its weight (all weights 0: even)."""

    __slots__ = ("_rng",)

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    hash_on: str = ""

    def __init__(self, options: Mapping[str, object], rng: Rng) -> None:
        self._rng = rng

    def rebuild(self, servers: Sequence[Server]) -> None:
        """Nothing is kept."""

    def twin(self, rng: Rng) -> RandomChoice:
        """A copy with a chance of its own."""
        return RandomChoice({}, rng)

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        total = sum(server.effective_weight for server in eligible)
        if total == 0:
            return eligible[int(self._rng.random() * len(eligible))]
        rest = self._rng.random() * total
        chosen = eligible[0]
        for server in eligible:
            if server.effective_weight:
                chosen = server
                rest -= server.effective_weight
                if rest < 0.0:
                    break
        return chosen  # rounding may leave rest at 0.0: then it is the last one with a weight


@mypyc_attr(allow_interpreted_subclasses=True)
class PowerOfTwo:
    """Draws two different servers and takes the one with less in flight for its weight, failures counted as load.

    It needs no view of the whole pool, and balancers that do not know of each other do not all rush to the one idle
    server. A tie goes to the one picked less often, for its weight, in the last one to two seconds (HAProxy compares
    rates of the last second); a second tie to the one drawn first, which is chance again.
    """

    __slots__ = ("_before", "_has_drained", "_recent", "_rng", "_window_ends_at")

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    hash_on: str = ""
    heeds_penalties = True

    def __init__(self, options: Mapping[str, object], rng: Rng) -> None:
        self._rng = rng
        self._recent: dict[Server, int] = {}
        self._before: dict[Server, int] = {}
        self._window_ends_at = float("-inf")
        self._has_drained = False

    def rebuild(self, servers: Sequence[Server]) -> None:
        """Members that stay keep their recent picks."""
        self._recent = {server: self._recent.get(server, 0) for server in servers}
        self._before = {server: self._before.get(server, 0) for server in servers}
        self._has_drained = any(server.weight == 0 for server in servers)

    def twin(self, rng: Rng) -> PowerOfTwo:
        """A copy with a chance of its own, whose picks leave this one as it is."""
        return self._copied(PowerOfTwo({}, rng))

    def _copied(self, made: PowerOfTwo) -> PowerOfTwo:
        made._recent, made._before = dict(self._recent), dict(self._before)
        made._window_ends_at, made._has_drained = self._window_ends_at, self._has_drained
        return made

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        if self._has_drained:
            eligible = [server for server in eligible if server.weight] or eligible
        if now >= self._window_ends_at:
            self._start_window(now)
        n = len(eligible)
        chosen = eligible[0] if n == 1 else self._better(*self._draw_pair(eligible, n), now)
        recent = self._recent
        recent[chosen] = recent.get(chosen, 0) + 1
        return chosen

    def _draw_pair(self, eligible: Sequence[Server], n: int) -> tuple[Server, Server]:
        """Two different servers, every ordered pair equally likely.

        The second number is drawn from n - 1 places and steps over the first's. Drawing from n and moving on by one
        when both are equal would favour neighbours.
        """
        first = int(self._rng.random() * n)
        second = int(self._rng.random() * (n - 1))
        if second >= first:
            second += 1
        return eligible[first], eligible[second]

    def _better(self, one: Server, other: Server, now: float) -> Server:
        ours, theirs = one.inflight * other.effective_weight, other.inflight * one.effective_weight
        if one.penalty_until or other.penalty_until:
            ours, theirs = one.load(now) * other.effective_weight, other.load(now) * one.effective_weight
        if ours == theirs:
            ours, theirs = self._picks(one) * other.effective_weight, self._picks(other) * one.effective_weight
        return other if theirs < ours else one

    def _picks(self, server: Server) -> int:
        return self._recent.get(server, 0) + self._before.get(server, 0)

    def _start_window(self, now: float) -> None:
        is_next = now < self._window_ends_at + RECENT_S
        self._before = self._recent if is_next else {}
        self._recent = {}
        self._window_ends_at = now + RECENT_S
