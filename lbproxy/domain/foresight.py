"""Whom a pool would give the next request to, found out without giving it one.

A pick changes what a strategy remembers, and may draw from a source of chance that is shared. So a copy picks: a
strategy's own method `twin(rng)` makes one, which picks as it would and leaves it, its servers and its chance alone.
All of lbproxy's have it. A class that derives from one of them does not inherit it, as the copy would be none of its
kind. Without it the choice is not known in advance; who may be chosen is.

Where chance decides (the copy draws a number) many copies pick, and each server gets the share of picks that it had.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from lbproxy.domain.lease import Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.rng import Rng
from lbproxy.domain.server import Server
from lbproxy.domain.states import Breaker
from lbproxy.domain.strategies.base import PickContext, Strategy

DRAWS: Final = 400
"""How many copies pick where chance decides: shares are true to within 0.05."""
MOST_PICKS_OF_SERVERS: Final = 40_000
"""Draws times members, at most: a copy is as large as its pool, and a large one gets fewer."""


class _Counted:
    """A source of chance that knows whether it was asked."""

    __slots__ = ("_rng", "n_drawn")

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self.n_drawn = 0

    def random(self) -> float:
        self.n_drawn += 1
        return self._rng.random()


@dataclass(frozen=True, slots=True)
class Foresight:
    """What would come of a request now.

    refusal: why it gets no server at once, None if it does. shares: who may get it, the likeliest first, each with its
    chance (0.0 to 1.0); the chance is 0.0 where it is not known, and `unknown` says why. is_probe: it goes to a server
    that is out, to find out whether it is well again.
    """

    refusal: Refusal | None
    shares: tuple[tuple[Server, float], ...]
    is_probe: bool = False
    unknown: str = ""


def foresee(pool: Pool, ctx: PickContext, now: float, rng: Rng, deadline_at: float = inf) -> Foresight:
    """What would come of a new request to this pool. rng: any but the strategy's own. Changes nothing."""
    counted = _Counted(rng)
    strategy = pool.picker.strategy
    pool.eligible()  # so that the strategy, and its copy, know of the last change
    try:
        twin = twin_of(strategy, counted)
        found = pool.foresee(ctx, twin, now, deadline_at)
        if twin is None:
            return _chosen_by_itself(found, "the strategy's own choice is not known in advance")
        if isinstance(found, Refusal):
            return Foresight(found, ())
        first = found[0]
        if not counted.n_drawn:
            return Foresight(None, ((first, 1.0),), is_probe=first.breaker is Breaker.PROBING)
        return _drawn(pool, ctx, now, counted, deadline_at, first)
    except Exception as error:  # a plug-in's defect, which must not become one of the answer
        found = pool.foresee(ctx, None, now, deadline_at)
        return _chosen_by_itself(found, f"a copy of the strategy failed ({type(error).__name__}: {error})")


def _drawn(pool: Pool, ctx: PickContext, now: float, rng: Rng, deadline_at: float, first: Server) -> Foresight:
    counts = {first: 1}
    n_draws = max(10, min(DRAWS, MOST_PICKS_OF_SERVERS // max(1, len(pool.servers))))
    for _ in range(n_draws - 1):
        twin = twin_of(pool.picker.strategy, rng)
        found = pool.foresee(ctx, twin, now, deadline_at)
        if not isinstance(found, Refusal):
            counts[found[0]] = counts.get(found[0], 0) + 1
    total = sum(counts.values())
    shares = [(server, count / total) for server, count in counts.items()]
    shares.sort(key=lambda pair: (-pair[1], pair[0].name))
    return Foresight(None, tuple(shares))


def _chosen_by_itself(found: tuple[Server, ...] | Refusal, why: str) -> Foresight:
    """No copy picks: the one that is left, or all that may be picked."""
    if isinstance(found, Refusal):
        return Foresight(found, ())
    if len(found) == 1:
        return Foresight(None, ((found[0], 1.0),), is_probe=found[0].breaker is Breaker.PROBING)
    return Foresight(None, tuple((server, 0.0) for server in found), unknown=why)


def twin_of(strategy: Strategy, rng: Rng) -> Strategy | None:
    """A copy that picks as the strategy would, with this source of chance; None if its class makes none itself."""
    if "twin" not in type(strategy).__dict__:
        return None
    made: Strategy = getattr(strategy, "twin")(rng)  # noqa: B009 - not every strategy has it, so the type does not
    return made if made is not strategy else None
