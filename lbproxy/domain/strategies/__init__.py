"""The strategies by name. Which one suits which pool stands in docs/strategies.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lbproxy.domain.rng import Rng
from lbproxy.domain.strategies.base import Strategy
from lbproxy.domain.strategies.consistent import ConsistentHash
from lbproxy.domain.strategies.first import First
from lbproxy.domain.strategies.hashing import IpHash
from lbproxy.domain.strategies.least_connections import LeastConnections
from lbproxy.domain.strategies.peak_ewma import PeakEwma
from lbproxy.domain.strategies.random_choice import PowerOfTwo, RandomChoice
from lbproxy.domain.strategies.round_robin import RoundRobin
from lbproxy.domain.strategies.weighted import WeightedRoundRobin

_BY_NAME: Final[
    Mapping[
        str,
        type[RoundRobin]
        | type[WeightedRoundRobin]
        | type[LeastConnections]
        | type[IpHash]
        | type[RandomChoice]
        | type[PowerOfTwo]
        | type[PeakEwma]
        | type[ConsistentHash]
        | type[First],
    ]
] = {
    "round_robin": RoundRobin,
    "weighted_round_robin": WeightedRoundRobin,
    "least_connections": LeastConnections,
    "ip_hash": IpHash,
    "random": RandomChoice,
    "power_of_two": PowerOfTwo,
    "peak_ewma": PeakEwma,
    "consistent_hash": ConsistentHash,
    "first": First,
}

NAMES: Final = tuple(_BY_NAME)


def create(name: str, options: Mapping[str, object], rng: Rng) -> Strategy:
    """A new strategy of that name; call its `rebuild` before the first `pick`.

    Raises ValueError with a sentence for the user if there is no such strategy or no such option.
    """
    strategy = _BY_NAME.get(name)
    if strategy is None:
        raise ValueError(f"there is no strategy {name!r}{_hint(name, NAMES)}")
    for option in options:
        if option not in strategy.OPTIONS:
            known = ", ".join(strategy.OPTIONS) or "none"
            raise ValueError(f"strategy {name!r} has no option {option!r} (it has: {known})")
    return strategy(options, rng)


def name_of(strategy: Strategy) -> str:
    """What people call it: its name here, or its class."""
    for name, known in _BY_NAME.items():
        if type(strategy) is known:
            return name
    return type(strategy).__name__


def _hint(word: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches  # 0.7 MB that only a mistake needs

    close = get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
