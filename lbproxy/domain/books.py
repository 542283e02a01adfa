"""The counts of a pool: requests in flight at each server, and requests that wait.

A pool, its leases and its queue change these counts here and nowhere else. So they can be kept elsewhere: data
processes that share their servers need one truth about them, or each would give out every slot of a server once.

This class keeps the counts of one process, in the objects that they are about. One that shares them derives from it,
tells the others, and writes into `server.inflight` and `n_waiting` what holds for all, before the pool reads them.
"""

from __future__ import annotations

from lbproxy.compiling import mypyc_attr
from lbproxy.domain.server import Server


@mypyc_attr(allow_interpreted_subclasses=True)
class Books:
    """See the module. n_waiting: how many requests wait for a slot. A call costs about 5 ns (mypyc)."""

    __slots__ = ("n_waiting",)

    def __init__(self) -> None:
        self.n_waiting = 0

    def began(self, server: Server) -> None:
        """A request was given to the server."""
        server.inflight += 1

    def ended(self, server: Server) -> None:
        """A request at the server is over, however it ended."""
        server.inflight -= 1
        server.requests += 1

    def joined(self) -> None:
        """A request waits."""
        self.n_waiting += 1

    def left(self) -> None:
        """A request waits no more, whether it got a slot or gave up."""
        self.n_waiting -= 1
