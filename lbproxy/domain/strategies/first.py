"""First: fills the servers one after the other, so that those at the end of the list are needed only under load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from lbproxy.compiling import mypyc_attr
from lbproxy.domain.rng import Rng
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext


@mypyc_attr(allow_interpreted_subclasses=True)
class First:
    """Picks the first server, in the order of the pool, that is below its `max_inflight`; one without gets everything.

    Slots that were given up and may still be in use count as taken while another server has a free one.
    """

    __slots__ = ()

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    hash_on: str = ""

    def __init__(self, options: Mapping[str, object], rng: Rng) -> None:
        """It has neither options nor chance."""

    def rebuild(self, servers: Sequence[Server]) -> None:
        """Nothing is kept: who may be picked comes in the order of the pool."""

    def twin(self, rng: Rng) -> First:
        """Itself would do, as nothing is kept; but a copy is asked for."""
        return First({}, rng)

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        for server in eligible:
            if server.inflight < server.free_limit and server.weight:
                return server
        return eligible[0]
