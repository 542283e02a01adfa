"""Peak EWMA: the server that is likely to answer first, by its recent latency and what it has to do already."""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import mypyc_attr
from lbproxy.domain.rng import Rng
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.random_choice import PowerOfTwo

_NEVER_SEEN_S: Final = 1e6


@mypyc_attr(allow_interpreted_subclasses=True)
class PeakEwma(PowerOfTwo):
    """Draws two different servers and takes the one with the lower cost x (inflight + 1) / weight.

    The cost is the server's latency as a peak-sensitive moving average (Finagle: a slow answer counts at once, fast
    ones pull it down with a time constant of 10 s), or what is left of its failure penalty if that is more: a server
    that fails quickly must not look quick. A server that has never answered costs nothing while it is idle, so that it
    gets one request, and more than any other until that one is answered, so that it gets no flood. Equal costs are
    settled as power_of_two settles a tie.
    """

    __slots__ = ()

    def twin(self, rng: Rng) -> PowerOfTwo:
        """See PowerOfTwo."""
        return self._copied(PeakEwma({}, rng))

    def _better(self, one: Server, other: Server, now: float) -> Server:
        ours, theirs = _cost(one, now), _cost(other, now)
        return super()._better(one, other, now) if ours == theirs else other if theirs < ours else one


def _cost(server: Server, now: float) -> float:
    cost_s = server.latency(now)
    if server.penalty_until:
        cost_s = max(cost_s, server.penalty_s(now))
    if cost_s == 0.0 and server.inflight:
        cost_s = _NEVER_SEEN_S
    return cost_s * (server.inflight + 1) / (server.effective_weight or 1)
